#!/bin/sh
# Usage: demo/install.sh PACKAGE...
# Installs those Debian packages that are missing, as root or by sudo without a password; otherwise says what to run.
# Starts none of the servers that it installs, neither now nor at the next boot: they are for the demo and the tests,
# which start their own.
set -eu

missing=
for package; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "Missing:$missing. This machine has no apt-get: install what your distribution calls these Debian packages." >&2
	exit 1
fi
if [ "$(id -u)" = 0 ]; then
	sudo=
elif sudo -n true 2>/dev/null; then
	sudo="sudo -n"
else
	echo "Missing:$missing. Run this, then try again:  sudo apt-get install$missing" >&2
	exit 1
fi

# Debian starts a server that it installs unless policy-rc.d says 101; a machine's own policy-rc.d is put back.
policy=/usr/sbin/policy-rc.d
servers="docker.service docker.socket containerd.service slapd.service postgresql.service ssh.service ssh.socket
	podman.service podman.socket podman-restart.service podman-auto-update.service podman-auto-update.timer"
units() {
	for server in $servers; do
		if [ -e "/lib/systemd/system/$server" ] || [ -e "/etc/init.d/${server%.service}" ]; then echo "$server"; fi
	done
}
before=" $(units | tr '\n' ' ')"
restore() {
	if [ -e $policy.before-bastion ]; then $sudo mv $policy.before-bastion $policy; else $sudo rm -f $policy; fi
	for server in $(units); do
		case "$before" in
		*" $server "*) ;;
		*) $sudo systemctl disable --quiet "$server" >/dev/null 2>&1 || true ;;
		esac
	done
}
if [ -e $policy ] && [ ! -e $policy.before-bastion ]; then $sudo mv $policy $policy.before-bastion; fi
trap restore EXIT
trap 'exit 130' INT TERM HUP
printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
$sudo chmod 755 $policy

echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120"
$apt update -q || echo "apt-get update failed; trying with the package lists that are here" >&2
# shellcheck disable=SC2086 # the names are words of their own
$apt install -q -y --no-install-recommends $missing </dev/null
