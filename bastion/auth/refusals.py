"""What a user reads when they are not let in: the same words for every reason."""

from bastion.errors import Reason, Refusal, Unavailable

REFUSED = "permission denied: the user name, password or key is wrong"
UNAVAILABLE = "sign-in is unavailable, try again"


def refused(reason: Reason, log_text: str) -> Refusal:
    return Refusal(reason, REFUSED, log_text)


def unavailable(log_text: str) -> Unavailable:
    return Unavailable(Reason.AUTH_UNAVAILABLE, UNAVAILABLE, log_text)
