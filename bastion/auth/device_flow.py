"""The device flow (RFC 8628) in a terminal: the user approves in a browser, and the login goes on by itself."""

from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from bastion.auth.conversation import Challenge
from bastion.auth.issuer import Issuer
from bastion.auth.opaque import with_client
from bastion.auth.refusals import refused, unavailable
from bastion.config import Oidc as Section
from bastion.config import why_not_url
from bastion.errors import Reason, Unavailable, printable
from bastion.model import Identity
from bastion.remote.http import JsonClient, RemoteError

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = 5.0  # seconds, where the provider names none (section 3.2), and how much more slow_down means (section 3.5)
SLOWEST = 60.0  # seconds between two questions
LONGEST = 1800.0  # seconds for the whole, whatever the provider says
MAX_SHOWN = 300  # characters of what the provider wants to be shown


@dataclass(frozen=True, slots=True)
class Code:
    """What the provider gave for this login (section 3.2)."""

    device_code: str
    user_code: str
    uri: str
    complete_uri: str | None  # with the code in it
    seconds: float
    interval: float


class DeviceFlow:
    """One login. `signed_in` makes an identity of the ID token that comes in the end."""

    def __init__(
        self, client: JsonClient, issuer: Issuer, config: Section, signed_in: Callable[[str], Awaitable[Identity]]
    ) -> None:
        self._client = client
        self._issuer = issuer
        self._config = config
        self._signed_in = signed_in
        self._code: Code | None = None
        self._deadline = 0.0

    async def start(self) -> Challenge:
        form = {"client_id": self._config.client_id or "", "scope": self._config.scope}
        answer = await self._ask("device_authorization_endpoint", form)
        self._code = self._read(answer)
        self._deadline = monotonic() + self._code.seconds
        # No prompt: a client shows this and answers at once, and the user has nothing to press when they are done.
        return Challenge(instruction=_shown(self._code))

    async def answer(self, responses: Sequence[str]) -> Identity:
        """Return when the user has approved; raise when they have not, or the provider can not tell."""
        assert self._code is not None
        form = {"client_id": self._config.client_id or "", "grant_type": GRANT, "device_code": self._code.device_code}
        interval = self._code.interval
        outage: Unavailable | None = None
        while monotonic() + interval < self._deadline:
            await sleep(interval)
            try:
                answer = await self._ask("token_endpoint", form)
                outage = None
            except Unavailable as no:
                outage = no
                interval = min(2 * interval, SLOWEST)  # section 3.5
                continue
            error = answer.get("error")
            if error is None:
                token = answer.get("id_token")
                if not isinstance(token, str):
                    raise unavailable("device flow: no id_token came; is openid in scope?", Reason.SSO_UNAVAILABLE)
                return await self._signed_in(token)
            if error == "slow_down":
                interval = min(interval + INTERVAL, SLOWEST)
            elif error == "access_denied":
                raise refused(Reason.DEVICE_DENIED, "device flow: the user has not agreed")
            elif error == "expired_token":
                break
            elif error != "authorization_pending":
                raise unavailable(f"device flow: {printable(repr(error)[:200])}", Reason.SSO_UNAVAILABLE)
        raise outage or refused(Reason.DEVICE_CODE_EXPIRED, "device flow: nobody agreed in time")

    async def close(self) -> None:
        pass  # `answer` is all that runs

    async def _ask(self, endpoint: str, form: Mapping[str, str]) -> Mapping[str, object]:
        """Raises Unavailable."""
        known = await self._issuer.known()
        sent, headers = with_client(form, known, self._config, "token_endpoint")
        try:
            answer = await self._client.post(known.endpoint(endpoint), sent, headers)
        except RemoteError as error:
            raise unavailable(f"device flow: {error}", Reason.SSO_UNAVAILABLE) from None
        if answer.status == 200 or (answer.status in (400, 401) and "error" in answer.body):
            return answer.body
        raise unavailable(f"device flow: {endpoint}: HTTP {answer.status}", Reason.SSO_UNAVAILABLE)

    def _read(self, answer: Mapping[str, object]) -> Code:
        """Raises Unavailable: what is shown to the user has to be what it seems."""
        if "error" in answer:
            said = printable(repr(answer["error"])[:200])
            raise unavailable(f"device flow: the provider says {said}", Reason.SSO_UNAVAILABLE)
        device_code, user_code = answer.get("device_code"), answer.get("user_code")
        uri, complete = answer.get("verification_uri"), answer.get("verification_uri_complete")
        if not isinstance(device_code, str) or not _is_plain(user_code) or not self._is_link(uri):
            raise unavailable("device flow: the provider's code or URL can not be shown", Reason.SSO_UNAVAILABLE)
        seconds = _number(answer.get("expires_in"), LONGEST)
        interval = max(_number(answer.get("interval"), INTERVAL), 1.0)
        return Code(
            device_code,
            str(user_code),
            str(uri),
            str(complete) if self._is_link(complete) else None,
            min(seconds, LONGEST),
            min(interval, SLOWEST),
        )

    def _is_link(self, value: object) -> bool:
        cleartext = self._config.allow_cleartext
        return _is_plain(value) and why_not_url(str(value), allow_cleartext=cleartext) is None


def _shown(code: Code) -> str:
    """Lines that are right where they follow something and where they stand alone; the code is in the link, too."""
    minutes = max(1, round(code.seconds / 60))
    lines = ["To sign in, open this page in a browser:", "", f"    {code.complete_uri or code.uri}", ""]
    lines += [
        f"and see that it shows the code {code.user_code}" if code.complete_uri else f"and enter {code.user_code}"
    ]
    lines[-1] += f". The code is good for {minutes} minute{'s' if minutes > 1 else ''}."
    lines += ["The login goes on by itself when you have agreed there. Ctrl-C gives up.", ""]
    return "\n".join(lines)


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_SHOWN and value.isascii() and value.isprintable()


def _number(value: object, default: float) -> float:
    """JSON has no infinite numbers, and orjson reads none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else default
