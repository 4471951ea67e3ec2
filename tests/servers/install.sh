#!/bin/sh
# Installs the servers and clients that the tests run against. Quick when all are there.
set -eu
cd "$(dirname "$0")/../.."
# A machine that has the other busybox package keeps it: the two can not be there together.
busybox=$(command -v busybox >/dev/null || echo busybox-static)
# shellcheck disable=SC2086 # nothing, or one word
demo/install.sh $busybox docker.io debootstrap debian-archive-keyring slapd ldap-utils postgresql openssh-client \
	openssh-server sshpass putty-tools dropbear-bin procps rsync util-linux asciinema

# Node's ssh2, one of the clients; node itself is a package from PyPI, so that the tests need no other one.
modules=tests/e2e/node_modules
if [ ! -e $modules/installed ] || [ tests/e2e/package.json -nt $modules/installed ]; then
	echo "Installing Node's ssh2"
	.venv/bin/npm install --prefix tests/e2e --no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund \
		--loglevel=error </dev/null
	touch $modules/installed
fi
