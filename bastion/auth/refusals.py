"""What a user reads when they are not let in: the same words for every reason that says who there is."""

from bastion.errors import Reason, Refusal, Unavailable, printable

REFUSED = "permission denied: the user name, password, token or key is wrong"
UNAVAILABLE = "sign-in is unavailable, try again"
# What whoever holds a token can know about it anyway; which users there are does not follow from it.
TOLD = {
    Reason.MALFORMED_TOKEN: "the token is malformed, or was cut short by the SSH client",
    Reason.TOKEN_EXPIRED: "the token has expired: get a new one",
    Reason.TOKEN_NOT_YET_VALID: "the token is not valid yet",
    Reason.WRONG_ISSUER: "the token is not of the single sign-on that counts here",
    Reason.WRONG_AUDIENCE: "the token is for another service",
    Reason.DEVICE_DENIED: "the browser said no",
    Reason.DEVICE_CODE_EXPIRED: "nobody agreed in the browser in time",
}


def refused(reason: Reason, log_text: str) -> Refusal:
    """`log_text` may hold what came from a client, a file or a server."""
    return Refusal(reason, TOLD.get(reason, REFUSED), printable(log_text))


def unavailable(log_text: str, reason: Reason = Reason.AUTH_UNAVAILABLE) -> Unavailable:
    return Unavailable(reason, UNAVAILABLE, printable(log_text))
