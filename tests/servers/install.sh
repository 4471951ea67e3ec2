#!/bin/sh
# Installs the servers and clients that the tests run against. Quick when all are there.
set -eu
cd "$(dirname "$0")/../.."
# A machine that has the other busybox package keeps it: the two can not be there together.
busybox=$(command -v busybox >/dev/null || echo busybox-static)
# shellcheck disable=SC2086 # nothing, or one word
demo/install.sh $busybox docker.io podman debootstrap debian-archive-keyring slapd ldap-utils postgresql openssh-client \
	openssh-server sshpass putty-tools dropbear-bin procps rsync rsyslog util-linux asciinema

# Node's ssh2, one of the clients, and the OpenID provider; node itself is a package from PyPI, so that the tests need
# no other one.
for folder in tests/e2e tests/servers/oidc; do
	if [ ! -e $folder/node_modules/installed ] || [ $folder/package.json -nt $folder/node_modules/installed ]; then
		echo "Installing what $folder/package.json names"
		.venv/bin/npm install --prefix $folder --no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund \
			--loglevel=error </dev/null
		touch $folder/node_modules/installed
	fi
done
