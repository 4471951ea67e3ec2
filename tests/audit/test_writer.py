import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from bastion.audit.writer import BATCH, Writer


class Paper:
    """What a Writer writes on; `refuse` says which items it does not take."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.refuse: set[int] = set()
        self.refused = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.changes: list[tuple[str | None, int]] = []
        self.writer: Writer[int] = Writer("paper", self.write, capacity=10, attempt=0.5, changed=self.changed)

    async def write(self, batch: Sequence[int]) -> int:
        await self.may_write.wait()
        if bad := self.refuse & set(batch):
            self.refused.set()
            raise OSError(f"not {bad}")
        self.written += batch
        return len(batch)

    def changed(self, writer: Writer[int], error: Exception | None) -> None:
        self.changes.append((error and str(error), writer.dropped))


@pytest.fixture
async def paper() -> AsyncIterator[Paper]:
    made = Paper()
    yield made
    await made.writer.close(0)


async def test_in_order(paper: Paper) -> None:
    done = [paper.writer.put(n, keep=True) for n in range(10)]
    assert await asyncio.gather(*done) == [None] * 10
    assert paper.written == list(range(10))
    assert paper.changes == []


async def test_lingering_makes_one_write_of_what_comes_soon_after() -> None:
    batches: list[int] = []

    async def write(batch: Sequence[int]) -> int:
        batches.append(len(batch))
        return len(batch)

    writer: Writer[int] = Writer("slow", write, capacity=10_000, attempt=1, linger=2, changed=lambda *_: None)
    first = writer.put(1, keep=True)
    await asyncio.sleep(0.01)
    await asyncio.gather(first, writer.put(2, keep=True))
    assert batches == [2]
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(writer.put(number, keep=True) for number in range(BATCH)))  # enough not to wait
    assert asyncio.get_running_loop().time() - began < 2
    await writer.close(1)


async def test_a_bad_item_takes_no_other_with_it(paper: Paper) -> None:
    paper.refuse = {3}
    results = await asyncio.gather(*(paper.writer.put(n, keep=False) for n in range(6)))
    assert [result and str(result) for result in results] == [None, None, None, "not {3}", None, None]
    assert paper.written == [0, 1, 2, 4, 5]
    assert paper.changes == [("not {3}", 0), (None, 0)]


async def test_what_is_kept_is_tried_until_it_is_taken_and_then_in_order(paper: Paper) -> None:
    paper.refuse = {1}
    done = [paper.writer.put(n, keep=True) for n in range(3)]
    await paper.refused.wait()
    paper.refuse = set()
    assert await asyncio.gather(*done) == [None] * 3
    assert paper.written == [0, 1, 2]


async def test_what_does_not_fit_is_dropped_and_counted_and_told_once(
    paper: Paper, caplog: pytest.LogCaptureFixture
) -> None:
    paper.may_write.clear()
    done = [paper.writer.put(n, keep=True, weight=4) for n in range(5)]
    assert paper.writer.dropped == 3
    assert len(caplog.records) == 1
    paper.may_write.set()
    results = await asyncio.gather(*done)
    assert [type(result) for result in results] == [type(None)] * 2 + [RuntimeError] * 3
    assert paper.changes == [(None, 3)]
    assert paper.writer.dropped == 0
    assert await paper.writer.put(9, keep=True, weight=10) is None  # the weight was given back


async def test_a_write_that_hangs_is_given_up(paper: Paper) -> None:
    paper.may_write.clear()
    assert isinstance(await paper.writer.put(1, keep=False), TimeoutError)
    paper.may_write.set()
    assert await paper.writer.put(2, keep=False) is None


async def test_what_nobody_waits_for_any_more_is_not_written(paper: Paper) -> None:
    paper.may_write.clear()
    first = paper.writer.put(1, keep=False)
    await asyncio.sleep(0)  # the task takes the first batch
    second, third = paper.writer.put(2, keep=False), paper.writer.put(3, keep=False)
    second.cancel()
    paper.may_write.set()
    assert await first is None
    assert await third is None
    assert paper.written == [1, 3]


async def test_close_writes_what_is_left(paper: Paper) -> None:
    for n in range(3):
        paper.writer.put(n, keep=True)
    assert await paper.writer.close(5) == 0
    assert paper.written == [0, 1, 2]
    assert isinstance(await paper.writer.put(4, keep=True), RuntimeError)


async def test_close_ends_in_time_and_counts_what_was_not_written(paper: Paper) -> None:
    paper.may_write.clear()
    done = [paper.writer.put(n, keep=True) for n in range(3)]
    async with asyncio.timeout(2):
        assert await paper.writer.close(0.1) == 3
    assert all(isinstance(result, RuntimeError) for result in await asyncio.gather(*done))
