"""What a user reads when they are not let in: the same words for every reason."""

from bastion.errors import Reason, Refusal, Unavailable, printable

REFUSED = "permission denied: the user name, password, token or key is wrong"
UNAVAILABLE = "sign-in is unavailable, try again"


def refused(reason: Reason, log_text: str) -> Refusal:
    """`log_text` may hold what came from a client, a file or a server."""
    return Refusal(reason, REFUSED, printable(log_text))


def unavailable(log_text: str, reason: Reason = Reason.AUTH_UNAVAILABLE) -> Unavailable:
    return Unavailable(reason, UNAVAILABLE, printable(log_text))
