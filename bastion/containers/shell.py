"""What is run in a container: the argv of commands and shells, and the launcher that every program starts through."""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath

SHELL = "bastion.shell"  # label
_POSIX_SHELLS = {"sh", "ash", "dash", "bash"}

_SHELL = "command -v bash >/dev/null 2>&1 && exec bash; exec sh"

# 1. Mark the program and all that it will ever start: the limit on file locks has had no effect since Linux 2.4.25, is
#    inherited by every child, and whatever clears the environment, starts a session or changes the user (env -i,
#    setsid, sudo) leaves it alone. ulimit calls it -w in dash and busybox, -x in bash. Not marked, not started: it
#    could not be ended either.
# 2. Below API 1.42 an exec's terminal has its size only after the start: wait for it, about a second at most.
#    Without stty: go straight on.
_LAUNCHER = """\
ulimit -w "$1" 2>/dev/null || ulimit -x "$1" 2>/dev/null || {
    echo 'bastion: the limit on file locks (ulimit -x) can not be set in this container' >&2
    exit 126
}
shift
if [ -t 0 ] && command -v stty >/dev/null 2>&1; then
    bastion_tries=0
    while [ "$bastion_tries" -lt 100 ]; do
        case $(stty size 2>/dev/null) in
        "" | "0 0") sleep 0.01 ;; # busybox says nothing, and fails
        *) break ;;
        esac
        bastion_tries=$((bastion_tries + 1))
    done
    unset bastion_tries
fi
exec "$@"
"""


def command_argv(command: str) -> tuple[str, ...]:
    """`ssh host command`."""
    return "/bin/sh", "-c", command


def shell_argv(labels: Mapping[str, str]) -> tuple[str, ...]:
    """`ssh host`: what label `bastion.shell` says (words, split at blanks), else bash where there is one, else sh."""
    words = labels.get(SHELL, "").split()
    return tuple(words) if words else ("/bin/sh", "-c", _SHELL)


def interpreter(labels: Mapping[str, str]) -> str:
    """The shell that the bastion's own scripts run in: /bin/sh, or the labelled one where that understands them."""
    words = labels.get(SHELL, "").split()
    if words and words[0].startswith("/") and PurePosixPath(words[0]).name in _POSIX_SHELLS:
        return words[0]
    return "/bin/sh"


def mark(session_id: str) -> str:
    """The number that a session's processes carry: 18 digits, so within what every shell takes for a limit."""
    digest = hashlib.sha256(session_id.encode()).digest()
    return str(10**17 + int.from_bytes(digest[:8]) % (9 * 10**17))


def launch_argv(argv: tuple[str, ...], labels: Mapping[str, str], session_id: str) -> tuple[str, ...]:
    """`argv`, marked as of this session, in a terminal that has a size."""
    return interpreter(labels), "-c", _LAUNCHER, "bastion", mark(session_id), *argv
