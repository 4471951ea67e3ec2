"""The client's input: in order, whole, bounded."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bastion.session.inbox import HIGH_WATER, READ_SIZE, Inbox


class Reader:
    """Whether the channel may be read."""

    def __init__(self) -> None:
        self.paused = False
        self.inbox = Inbox(self._pause, self._resume)

    def _pause(self) -> None:
        assert not self.paused
        self.paused = True

    def _resume(self) -> None:
        assert self.paused
        self.paused = False


async def everything(inbox: Inbox) -> bytes:
    data = b""
    while chunk := await inbox.read():
        assert len(chunk) <= max(READ_SIZE, HIGH_WATER)
        data += chunk
    return data


@given(st.lists(st.binary(min_size=1)))
def test_nothing_is_lost_or_reordered(chunks: list[bytes]) -> None:
    async def run() -> None:
        inbox = Reader().inbox
        for chunk in chunks:
            inbox.feed(chunk)
        inbox.feed_eof()
        assert await everything(inbox) == b"".join(chunks)

    asyncio.run(run())


async def test_a_reader_waits_and_is_woken() -> None:
    inbox = Reader().inbox
    reading = asyncio.create_task(inbox.read())
    await asyncio.sleep(0)
    inbox.feed(b"x")
    assert await reading == b"x"
    reading = asyncio.create_task(inbox.read())
    await asyncio.sleep(0)
    inbox.feed_eof()
    assert await reading == b""


async def test_a_cancelled_reader_loses_nothing() -> None:
    inbox = Reader().inbox
    reading = asyncio.create_task(inbox.read())
    await asyncio.sleep(0)
    inbox.feed(b"x")
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    inbox.feed_eof()
    assert await everything(inbox) == b"x"


async def test_the_channel_is_paused_above_the_mark_and_resumed_below_half() -> None:
    reader = Reader()
    chunk = bytes(32 * 1024)
    sent = 0
    while not reader.paused:
        reader.inbox.feed(chunk)
        sent += len(chunk)
    assert HIGH_WATER < sent <= HIGH_WATER + len(chunk)
    while reader.paused:
        sent -= len(await reader.inbox.read())
    assert sent <= HIGH_WATER // 2


async def test_unread_comes_first() -> None:
    inbox = Reader().inbox
    inbox.feed(b"first rest")
    data = await inbox.read()
    inbox.feed(b" then")
    inbox.unread(data[5:])
    inbox.unread(b"")
    inbox.feed_eof()
    assert await everything(inbox) == b" rest then"
