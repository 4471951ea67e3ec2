"""Keyboard-interactive (RFC 4256): what is asked one after the other until it is clear who answers."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bastion.model import Identity


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` is shown as it is, so nothing in it may come from a client; `echo`: is the answer shown as it is typed?"""

    text: str
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Challenge:
    """One SSH_MSG_USERAUTH_INFO_REQUEST (RFC 4256 section 3.2). Without prompts a client shows it and answers at once.

    `instruction` may have several lines, divided by a newline. Texts are trusted as Prompt's are.
    """

    name: str = ""
    instruction: str = ""
    prompts: tuple[Prompt, ...] = ()


class Conversation(Protocol):
    """One try to sign in. Refusal and Unavailable, from either of the first two, are its end; so is an Identity."""

    async def start(self) -> Challenge | Identity: ...

    async def answer(self, responses: Sequence[str]) -> Challenge | Identity:
        """`responses` are one for each prompt of the last challenge, as the client sent them."""

    async def close(self) -> None:
        """Called once, always: at the end, or when the client leaves or has run out of time: `answer` is cancelled."""


class Ask:
    """One question, as PAM would ask for a password; `instruction` is shown above it."""

    def __init__(self, prompt: Prompt, check: Callable[[str], Awaitable[Identity]], instruction: str = "") -> None:
        self._challenge = Challenge(instruction=instruction, prompts=(prompt,))
        self._check = check

    async def start(self) -> Challenge | Identity:
        return self._challenge

    async def answer(self, responses: Sequence[str]) -> Challenge | Identity:
        return await self._check(responses[0])

    async def close(self) -> None:
        pass


class PasswordOr:
    """A password, or nothing and Enter for `otherwise`, which is not begun before: it may be out of order."""

    def __init__(self, check: Callable[[str], Awaitable[Identity]], otherwise: Conversation) -> None:
        self._check = check
        self._otherwise = otherwise
        self._chosen = False

    async def start(self) -> Challenge | Identity:
        # "password:" at the end is what sshpass waits for
        return Challenge(prompts=(Prompt("Press Enter to sign in with a browser, or type your password: "),))

    async def answer(self, responses: Sequence[str]) -> Challenge | Identity:
        if self._chosen:
            return await self._otherwise.answer(responses)
        if responses[0]:
            return await self._check(responses[0])
        self._chosen = True
        return await self._otherwise.start()

    async def close(self) -> None:
        await self._otherwise.close()
