"""The picker, seen through a terminal emulator and driven by the bytes that terminals send."""

import asyncio

import pytest

from bastion.model import ContainerState
from bastion.session.picker import FILTER_CHARACTERS, KEYS_AT_A_TIME, listing
from tests.session.tty import (
    DOWN,
    END,
    HOME,
    PAGE_DOWN,
    PAGE_UP,
    UP,
    Tty,
    assert_fits,
    container,
    many,
    picking,
)


async def test_shows_what_there_is_in_order_and_leaves_the_screen_as_it_was() -> None:
    tty = Tty()
    containers = [
        container("web", "worker", 10),
        container("web", "worker", 2, image="registry/web:7"),
        container("shop", "front", 1, state=ContainerState.PAUSED),
    ]
    async with picking(tty, containers) as task:
        assert tty.on_alternate
        assert tty.lines[0] == "container>"
        assert tty.lines[1].split() == [">", "web.worker.2", "running", "registry/web:7", "web-worker-2"]
        assert tty.lines[2].split() == ["web.worker.10", "running", "debian:12", "web-worker-10"]
        assert tty.lines[3].split() == ["shop.front.1", "paused", "debian:12", "shop-front-1"]
        assert tty.lines[4].startswith("3 of 3; ")
        assert not any(tty.lines[5:])
        assert tty.cursor == (0, len("container> "))
        assert not tty.hidden
        tty.inbox.feed(DOWN + b"\r")
        assert await task is containers[0]
    tty.assert_restored()


@pytest.mark.parametrize(
    ("keys", "instance"),
    [
        (b"", 1),
        (DOWN, 2),
        (b"\x1bOB", 2),
        (b"\x0e\x0e", 3),
        (DOWN + DOWN + UP, 2),
        (DOWN + b"\x10", 1),
        (UP, 1),
        (END, 50),
        (END + DOWN, 50),
        (END + HOME, 1),
        (PAGE_DOWN, 9),
        (PAGE_DOWN + PAGE_DOWN + PAGE_UP, 9),
        (PAGE_UP, 1),
        (PAGE_DOWN * 20, 50),
        (b"\x00\t\xff\x1b[C\x1b[3~\x1bx" + DOWN, 2),
    ],
)
async def test_moving(keys: bytes, instance: int) -> None:
    tty = Tty(80, 10)  # 8 of them visible
    async with picking(tty, many(50)) as task:
        await tty.send(keys or b"\0")
        assert tty.selected == f"app.web.{instance}"
        tty.inbox.feed(b"\r")
        chosen = await task
    assert chosen is not None
    assert chosen.address.instance == instance


@pytest.mark.parametrize(
    ("typed", "fitting"),
    [
        ("shop", ["shop.web.1"]),
        ("SHOP", ["shop.web.1"]),
        ("web .2", ["blog.web.2"]),
        (".2   we", ["blog.web.2"]),
        ("postgres", ["vault.db.1"]),
        ("strange", ["vault.db.1"]),
        ("STRASSE", ["straße.web.1"]),
        ("aß", ["straße.web.1"]),
        ("shopx\x7f", ["shop.web.1"]),
        ("shopx\x08", ["shop.web.1"]),
        ("nothing\x15vault", ["vault.db.1"]),
        ("shop vault", []),
        (".1", ["shop.web.1", "straße.web.1", "vault.db.1"]),
        ("\x7f\x7f \x15", ["blog.web.2", "shop.web.1", "straße.web.1", "vault.db.1"]),
    ],
)
async def test_typing_filters(typed: str, fitting: list[str]) -> None:
    containers = [
        container("shop"),
        container("vault", "db", image="postgres:15", name="Strange_name"),
        container("straße"),
        container("blog", "web", 2),
    ]
    tty = Tty()
    async with picking(tty, containers) as task:
        for byte in typed.encode():  # characters in pieces
            await tty.send(bytes([byte]))
        await tty.shows(f"{len(fitting)} of 4; ")
        assert [line[2:].split()[0] for line in tty.lines[1 : 1 + len(fitting)]] == fitting
        assert tty.lines[1 + len(fitting)].startswith(f"{len(fitting)} of 4; ")
        assert not any(tty.lines[2 + len(fitting) :])
        tty.inbox.feed(b"\r")
        if fitting:
            chosen = await task
            assert chosen is not None
            assert str(chosen.address) == fitting[0]
        else:
            await tty.shows("Nothing fits")
            tty.inbox.feed(b"\x15")
            await tty.shows("4 of 4; ")


async def test_a_new_filter_selects_its_first() -> None:
    assert await Tty().answer(many(20), END + b"web.1\r") == many(1)[0]


async def test_the_end_of_a_long_filter_is_visible_and_it_has_a_limit() -> None:
    tty = Tty(40, 5)
    async with picking(tty, many(2)):
        tty.inbox.feed("界".encode() * 100 + b"end")
        await tty.shows("end")
        assert tty.cursor[0] == 0
        assert tty.lines[0].endswith("end")
        tty.inbox.feed(b"x" * 10_000 + b"y")
        await tty.until(lambda: tty.lines[0].endswith("xxx") and not tty.inbox._chunks)
        tty.inbox.feed(b"\x7f" * FILTER_CHARACTERS)
        await tty.shows("2 of 2; ")


@pytest.mark.parametrize("keys", [b"\x03", b"\x04", b"\x1b", b"web\x03\r", DOWN + b"\x04\r", b"\x1b\r", b"\x1b\x1b"])
async def test_leaving(keys: bytes) -> None:
    assert await Tty().answer(many(3), keys) is None


async def test_the_end_of_the_input_leaves() -> None:
    tty = Tty()
    tty.inbox.feed(DOWN)
    tty.inbox.feed_eof()
    assert await tty.pick(many(3)) is None
    tty.assert_restored()


async def test_a_choice_counts_also_when_the_input_has_ended() -> None:
    tty = Tty()
    tty.inbox.feed(DOWN + b"\r")
    tty.inbox.feed_eof()
    assert await tty.pick(many(3)) == many(2)[1]


async def test_a_key_in_two_reads_is_not_esc() -> None:
    tty = Tty()
    containers = many(3)
    async with picking(tty, containers) as task:
        tty.inbox.feed(b"\x1b")
        await tty.until(lambda: len(tty.frames) > 2)  # it was read and is undecided
        for _ in range(20):  # far less than the time limit, and more than none
            await asyncio.sleep(0)
        tty.inbox.feed(b"[B")
        await tty.until(lambda: tty.selected == "app.web.2")
        tty.inbox.feed(b"\x1b")
        await tty.until(lambda: len(tty.frames) > 4)
        tty.resize(79, 24)  # a resize decides nothing
        await tty.until(lambda: len(tty.frames) > 5)
        tty.inbox.feed(b"OB\r")
        assert await task is containers[2]


@pytest.mark.parametrize("after", [b"ls -l\n", b"\x1b[A\x03\x1b", "é".encode()[:1], b"\r\r", b"x" * 100_000, b""])
async def test_what_is_typed_after_the_choice_is_the_programs(after: bytes) -> None:
    tty = Tty()
    tty.inbox.feed(b"web.2\r" + after[:3])
    tty.inbox.feed(after[3:])
    tty.inbox.feed_eof()
    assert await tty.pick(many(3)) == many(2)[1]
    assert await tty.inbox.read() == after


async def test_what_arrives_after_the_choice_is_not_read() -> None:
    tty = Tty()
    async with picking(tty, many(3)) as task:
        tty.inbox.feed(b"\r")
        await task
        tty.inbox.feed(b"ls\n")
        assert await tty.inbox.read() == b"ls\n"


async def test_what_does_not_run_can_not_be_chosen() -> None:
    tty = Tty()
    stopped = container("shop", state=ContainerState.STOPPED)
    paused = container("vault\x1b", state=ContainerState.PAUSED)
    running = container("web")
    async with picking(tty, [stopped, paused, running]) as task:
        tty.inbox.feed(DOWN + b"\r")
        await tty.shows("shop.web.1 is stopped and can not be entered")
        tty.inbox.feed(DOWN + b"\r")
        await tty.shows(r"vault\x1b.web.1 is paused and can not be entered")
        tty.inbox.feed(HOME)
        await tty.shows("3 of 3; ")  # the sentence is gone
        tty.resize(80, 3)  # where there is no line for it
        tty.inbox.feed(END + b"\r")
        await tty.until(lambda: tty.lines[0] == r"vault\x1b.web.1 is paused and can not be entered")
        tty.inbox.feed(HOME + b"\r")
        assert await task is running


@pytest.mark.parametrize(("columns", "rows"), [(10, 3), (1, 1), (2, 2), (300, 100), (80, 1), (1, 50)])
async def test_fits_every_size_and_is_drawn_anew(columns: int, rows: int) -> None:
    tty = Tty()
    containers = [container("界" * 30, "web", number) for number in range(1, 200)]
    async with picking(tty, containers) as task:
        tty.inbox.feed(END)
        await tty.until(lambda: any(line.startswith("> ") and ".199" in line for line in tty.lines))
        drawn = len(tty.frames)
        tty.resize(columns, rows)
        await tty.until(lambda: len(tty.frames) > drawn)
        assert_fits(tty.frames[-1], columns, rows)
        # the selected one stays in view, and a larger terminal is filled
        selected = [row for row in range(rows) if tty._shown.buffer[row][0].reverse]
        assert len(selected) == 1
        assert selected[0] == rows - 1 - (rows >= 4)
        drawn = len(tty.frames)
        tty.resize(80, 24)
        await tty.until(lambda: len(tty.frames) > drawn)
        assert len([line for line in tty.lines if "界" in line]) == 22
        tty.inbox.feed(b"\r")
        assert await task is containers[-1]


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (1 << 16, 1 << 16), ((1 << 32) - 1, (1 << 32) - 1)])
async def test_odd_sizes_cost_no_more_than_what_is_shown(columns: int, rows: int) -> None:
    tty = Tty(columns, rows)
    async with picking(tty, many(1000)):
        assert_fits(tty.frames[-1], columns or 80, rows or 24)
        assert len(tty.frames[-1]) < 1000 * 100
        assert tty.frames[-1].count(b"app.web.") == (1000 if rows else 22)


async def test_a_thousand_containers_are_drawn_as_quickly_as_thirty() -> None:
    sizes = []
    for count in (30, 1000):
        tty = Tty()
        async with picking(tty, many(count)) as task:
            await tty.send(PAGE_DOWN)
            sizes.append(len(tty.frames[-1]))
            tty.inbox.feed(END + b"\r")
            chosen = await task
            assert chosen is not None
            assert chosen.address.instance == count
    assert sizes[1] < 1.2 * sizes[0]


async def test_cancelled_while_it_waits_for_a_key() -> None:
    tty = Tty()
    async with picking(tty, many(3)) as task:
        assert tty.on_alternate
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    tty.assert_restored()


async def test_cancelled_while_the_client_does_not_read() -> None:
    tty = Tty()
    tty.stuck.clear()
    async with picking(tty, many(3)) as task:
        tty.inbox.feed(b"x" * 100)
        await asyncio.sleep(0)
        assert len(tty.frames) == 2  # nothing more is drawn, and nothing taken from the inbox, until it reads
        assert tty.inbox._size == 100
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    tty.assert_restored()


async def test_cancelled_when_the_client_is_gone_too() -> None:
    tty = Tty()
    async with picking(tty, many(3)) as task:
        tty.broken = True
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("term", ["xterm", "dumb"])
async def test_a_client_that_is_gone_chooses_nothing(term: str) -> None:
    tty = Tty(term=term)
    async with picking(tty, many(3)) as task:
        tty.broken = True
        tty.inbox.feed(b"2")
        assert await task is None


async def test_others_have_their_turn_during_a_flood_of_keys() -> None:
    tty = Tty()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    tty.write = tty.sent.extend  # the emulator is slow
    tty.inbox.feed(b"a\x7f\0\x1b[B" * 1_000 + b"\r")
    try:
        assert await tty.pick(many(1000)) == many(2)[1]
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert turns >= 4_000 / KEYS_AT_A_TIME
    assert len(tty.sent) < 2_500 * 4_000 / KEYS_AT_A_TIME  # and not each key is drawn


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
async def test_a_dumb_terminal_gets_a_numbered_list(term: str) -> None:
    tty = Tty(term=term)
    containers = [
        container("web", "worker", 2),
        container("shop", state=ContainerState.PAUSED),
        container("blog\x1b[2J"),
    ]
    async with picking(tty, containers) as task:
        before, first, *lines = [line for line in tty.lines if line]
        assert before == "before"
        assert first == "Which container? Its number and Enter, or ctrl-C to leave."
        assert lines[0].split() == ["1", r"blog\x1b[2J.web.1", "running", "debian:12", r"blog\x1b[2J-web-1"]
        assert lines[1].split()[:2] == ["2", "web.worker.2"]
        assert lines[2].split()[:3] == ["3", "shop.web.1", "paused"]
        assert lines[3:] == ["number:"]
        tty.inbox.feed(b"x93")
        await tty.shows("number: 93")
        tty.inbox.feed(b"\x7f")
        await tty.until(lambda: "number: 9" in tty.lines)
        tty.inbox.feed(b"\r")
        await tty.shows("A number from 1 to 3, please.")
        tty.inbox.feed(b"3\r")
        await tty.shows("shop.web.1 is paused and can not be entered")
        tty.inbox.feed(b"3456789012345\x151\x7f\x7f\x7f")
        await tty.until(lambda: tty.lines[tty.cursor[0]] == "number:" and not tty.inbox._chunks)
        assert b"\x1b" not in tty.sent
        tty.inbox.feed(b"2\rls\n")
        assert await task is containers[0]
    assert tty.lines[tty.cursor[0] - 1] == "number: 2"
    assert tty.cursor[1] == 0
    assert await tty.inbox.read() == b"ls\n"


@pytest.mark.parametrize("keys", [b"\x03", b"\x04", b"\x1b", b"1\x03"])
async def test_leaving_a_dumb_terminal(keys: bytes) -> None:
    tty = Tty(term="dumb")
    tty.inbox.feed(keys)
    assert await tty.pick(many(3)) is None
    assert tty.sent.endswith(b"\r\n")


def test_the_listing_says_what_to_do_and_has_a_line_for_each() -> None:
    text = listing(
        [
            container("web", "worker", 10),
            container("web", "worker", 9, image="registry/web:7"),
            container("shop", state=ContainerState.PAUSED),
            container("bad\x1b]0;x\x07\r\n\u202ee\u0301", image="\x9b\ud800"),
        ]
    )
    first, *lines = text.removesuffix("\n").split("\n")
    assert first == "Say which container: ssh USER+ADDRESS@..., with one of these addresses:"
    assert [line.split() for line in lines] == [
        [r"bad\x1b]0;x\x07\r\n\u202ee\u0301.web.1", "running", r"\x9b\ud800"],
        ["web.worker.9", "running", "registry/web:7"],
        ["web.worker.10", "running", "debian:12"],
        ["shop.web.1", "paused", "debian:12"],
    ]
    assert text.isascii()
