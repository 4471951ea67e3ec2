import asyncio
import threading

import pytest

from bastion.auth.workers import Workers
from bastion.errors import Unavailable


async def test_room_for_so_many_and_no_more() -> None:
    workers, go = Workers("test", 2, 3), threading.Event()
    running = [asyncio.create_task(workers.run(10, go.wait)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many"):
        await workers.run(10, go.wait)
    go.set()
    assert await asyncio.gather(*running) == [True] * 5
    assert await workers.run(10, lambda: 7) == 7
    await workers.close()
    with pytest.raises(Unavailable, match="shutting down"):
        await workers.run(10, go.wait)


async def test_what_nobody_waits_for_is_not_done() -> None:
    workers, go, begun = Workers("test", 1, 5), threading.Event(), threading.Event()
    done: list[int] = []

    def block() -> None:
        begun.set()
        go.wait()

    first = asyncio.create_task(workers.run(10, block))
    late = asyncio.create_task(workers.run(0.01, lambda: done.append(1)))
    cancelled = asyncio.create_task(workers.run(10, lambda: done.append(2)))
    await asyncio.to_thread(begun.wait)
    cancelled.cancel()
    with pytest.raises(Unavailable, match="no answer within"):
        await late
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    go.set()
    await first
    await workers.close()
    assert done == []


async def test_errors_come_back() -> None:
    workers = Workers("test", 1, 0)
    for _ in range(3):  # and give their place back
        with pytest.raises(ZeroDivisionError):
            await workers.run(10, lambda: 1 / 0)
    await workers.close()
