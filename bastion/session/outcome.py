"""How a session ended: what the client is told, what the log says."""

from dataclasses import dataclass
from enum import StrEnum

from bastion.errors import Reason, Refusal


class Status(StrEnum):
    """The `status` column of `sessions`, and what session.end says."""

    ENDED = "ended"  # the program ended by itself
    REFUSED = "refused"  # no program was started
    DISCONNECTED = "disconnected"  # the client went away
    STOPPED = "stopped"  # the container did
    FAILED = "failed"  # the recording or the engine did
    CUT = "cut"  # the bastion ended it: it shuts down
    REVOKED = "revoked"  # the user may no longer be there
    KILLED = "killed"  # somebody of the security team ended it


@dataclass(frozen=True, slots=True)
class Outcome:
    """`exit_status` as of RFC 4254 section 6.10; `sentence` is for the user, `log_text` for the log."""

    status: Status
    exit_status: int = 255
    exit_signal: str | None = None
    reason: Reason | None = None
    sentence: str = ""
    log_text: str = ""

    @property
    def clean(self) -> bool:
        """The program ended by itself: what it left behind on purpose stays."""
        return self.status is Status.ENDED


def ended(code: int, sent_signals: frozenset[str]) -> Outcome:
    """A program's own end. An engine reports death by signal n as 128 + n, as a shell does for its children.

    So 128 + n is taken for a signal only where the client had sent that very signal: `exit 137` stays 137.
    """
    for name, number in SIGNALS.items():
        if code == 128 + number and name in sent_signals:
            return Outcome(Status.ENDED, code, exit_signal=name)
    return Outcome(Status.ENDED, code)


def refused(refusal: Refusal, *, started: bool) -> Outcome:
    """A refusal before or, where something failed, while the program ran."""
    return Outcome(
        Status.FAILED if started else Status.REFUSED,
        _EXIT_STATUS.get(refusal.reason, 1 if not started else 255),
        reason=refusal.reason,
        sentence=refusal.user_text,
        log_text=refusal.log_text,
    )


# The signals of RFC 4254 section 6.10, by their numbers on Linux (signal(7)).
SIGNALS = {
    "HUP": 1,
    "INT": 2,
    "QUIT": 3,
    "ILL": 4,
    "ABRT": 6,
    "FPE": 8,
    "KILL": 9,
    "USR1": 10,
    "SEGV": 11,
    "USR2": 12,
    "PIPE": 13,
    "ALRM": 14,
    "TERM": 15,
}

_EXIT_STATUS = {
    Reason.AMBIGUOUS_ADDRESS: 2,
    Reason.NO_SHELL: 127,  # as a shell says "command not found"
}
