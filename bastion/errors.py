"""What can go wrong, and who may know: a refusal carries a text for the user, a text for the log, a reason code."""

from enum import StrEnum


def printable(text: str) -> str:
    """`text` on one line and without anything that a terminal would obey: the rest as Python's escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Reason(StrEnum):
    """Why something was refused or ended: the code in the audit log. Users read sentences instead."""

    # who are you?
    WRONG_CREDENTIALS = "wrong_credentials"
    UNKNOWN_USER = "unknown_user"
    EMPTY_PASSWORD = "empty_password"  # noqa: S105 - a code, not a secret
    USER_DISABLED = "user_disabled"
    MALFORMED_USER_NAME = "malformed_user_name"
    KEY_NOT_ALLOWED = "key_not_allowed"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_NOT_ALLOWED = "certificate_not_allowed"
    WRONG_PRINCIPAL = "wrong_principal"
    UNKNOWN_AUTHORITY = "unknown_authority"
    CREDENTIAL_EXPIRED = "credential_expired"
    KEY_REVOKED = "key_revoked"
    ANOTHER_USER = "another_user"
    MALFORMED_TOKEN = "malformed_token"  # noqa: S105 - a code, not a secret
    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a secret
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - a code, not a secret
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"  # noqa: S105 - a code, not a secret
    DEVICE_DENIED = "device_denied"
    DEVICE_CODE_EXPIRED = "device_code_expired"
    WRONG_CODE = "wrong_code"
    CODE_REPLAYED = "code_replayed"
    SECOND_FACTOR_NEEDED = "second_factor_needed"
    TOO_MANY_TRIES = "too_many_tries"
    LOGIN_TIMEOUT = "login_timeout"
    THROTTLED = "throttled"
    AUTH_UNAVAILABLE = "auth_unavailable"
    SSO_UNAVAILABLE = "sso_unavailable"
    # which container, and may you enter?
    MALFORMED_ADDRESS = "malformed_address"
    NO_SUCH_CONTAINER = "no_such_container"
    NOT_OWNER = "not_owner"
    AMBIGUOUS_ADDRESS = "ambiguous_address"
    CONTAINER_NOT_RUNNING = "container_not_running"
    CONTAINER_PAUSED = "container_paused"
    PROTECTED_CONTAINER = "protected_container"
    OWNERSHIP_UNAVAILABLE = "ownership_unavailable"
    # can it be run?
    NO_SHELL = "no_shell"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_ERROR = "engine_error"
    NOT_ALLOWED = "not_allowed"
    TOO_MANY_SESSIONS = "too_many_sessions"
    MALFORMED_REQUEST = "malformed_request"
    # can it be recorded?
    RECORDING_FAILED = "recording_failed"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    SHUTTING_DOWN = "shutting_down"
    KILLED = "killed"


class BastionError(Exception):
    """Any failure that this package reports on purpose."""


class ConfigError(BastionError):
    """The configuration can not be used; `problems` has one readable line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Refusal(BastionError):
    """Something that was asked for is not done.

    `user_text` is a sentence that tells the user no more than they may know; `log_text` says it all.
    """

    def __init__(self, reason: Reason, user_text: str, log_text: str = "") -> None:
        super().__init__(log_text or user_text)
        self.reason = reason
        self.user_text = user_text
        self.log_text = log_text or user_text


class Unavailable(Refusal):
    """Not a no: a server that has to be asked did not answer. Never to be mistaken for a wrong password."""
