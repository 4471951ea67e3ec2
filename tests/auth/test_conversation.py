from collections.abc import Sequence

from bastion.auth.conversation import Challenge, PasswordOr
from bastion.model import Identity

WHO = Identity("alice", "test")


class Otherwise:
    def __init__(self) -> None:
        self.story: list[object] = []

    async def start(self) -> Challenge | Identity:
        self.story.append("start")
        return Challenge(instruction="look there")

    async def answer(self, responses: Sequence[str]) -> Challenge | Identity:
        self.story.append(responses)
        return WHO

    async def close(self) -> None:
        self.story.append("close")


async def checked(password: str) -> Identity:
    return Identity("alice", password)


async def test_a_password_and_nothing_else_is_begun() -> None:
    otherwise = Otherwise()
    conversation = PasswordOr(checked, otherwise)
    challenge = await conversation.start()
    assert isinstance(challenge, Challenge)
    (prompt,) = challenge.prompts
    assert prompt.text.endswith("password: ")  # sshpass waits for it
    assert not prompt.echo
    assert await conversation.answer(["secret"]) == Identity("alice", "secret")
    await conversation.close()
    assert otherwise.story == ["close"]


async def test_enter_goes_to_the_other_and_stays_there() -> None:
    otherwise = Otherwise()
    conversation = PasswordOr(checked, otherwise)
    await conversation.start()
    assert await conversation.answer([""]) == Challenge(instruction="look there")
    assert await conversation.answer([]) is WHO
    assert otherwise.story == ["start", []]
