#!/bin/sh
# Usage: demo/venv.sh FOLDER WHAT     for example: demo/venv.sh .venv '.[dev,test]'
# Makes the virtual environment FOLDER, if it is not there, and installs WHAT in it, editable.
set -eu
cd "$(dirname "$0")/.."
folder=$1

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
	for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
		if suits "$python"; then
			echo "$python"
			return
		fi
	done
	return 1
}

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
	if ! python=$(find_python); then
		[ -z "${PYTHON:-}" ] || { echo "PYTHON=$PYTHON is not a Python of version 3.11 or newer." >&2; exit 1; }
		demo/install.sh python3 python3-venv
		python=$(find_python) || { echo "Python 3.11 or newer is needed; this machine has $(python3 --version)." >&2; exit 1; }
	fi
	# Debian keeps what makes a virtual environment in a package of its own for each version of Python.
	"$python" -c 'import ensurepip' 2>/dev/null ||
		demo/install.sh "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
	echo "Making the virtual environment $folder with $("$python" --version)"
	"$python" -m venv --clear "$folder"
fi
echo "Installing into $folder (about a minute, the first time)"
"$folder/bin/python" -m pip install --disable-pip-version-check --editable "$2"
