"""What a session asks for and what it sees of the SSH channel that it runs on: all that this room knows of SSH."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bastion.model import Address, Chunk, Identity, Terminal


@dataclass(frozen=True, slots=True)
class Request:
    """One `shell` or `exec` request (RFC 4254 section 6.5), with what came before it on its channel."""

    identity: Identity
    address: Address | None  # None: the user named none
    command: str | None  # None: a shell
    terminal: Terminal | None
    env: Mapping[str, str]
    connection_id: str
    source_ip: str


class Client(Protocol):
    """The channel. Its methods never block; after it is gone they do nothing, except that drain() raises."""

    def write(self, chunk: Chunk) -> None:
        """Send a chunk: Stream.OUTPUT as data, Stream.ERROR as extended data (RFC 4254 section 5.2)."""

    @property
    def full(self) -> bool:
        """Would more only pile up? Session.client_drained() tells the end of it."""

    async def drain(self) -> None:
        """Return when more can be written without piling up; raises ConnectionError when the client is gone."""

    def pause_reading(self) -> None:
        """No more input, please: the window is not opened further."""

    def resume_reading(self) -> None:
        """Go on."""

    def exit(self, status: int) -> None:
        """Send exit-status and close the channel (RFC 4254 section 6.10)."""

    def exit_signal(self, name: str) -> None:
        """Send exit-signal and close the channel; `name` without SIG."""
