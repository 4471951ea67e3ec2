"""Whatever is typed, and whatever the labels say: the terminal is restored, and only text reaches it."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.model import Container, ContainerState
from bastion.session.picker import listing, pick
from tests.session.tty import (
    DOWN,
    DRAWN,
    END,
    HOME,
    PAGE_DOWN,
    PAGE_UP,
    UP,
    Pieces,
    Tty,
    assert_fits,
    container,
)

UNUSUAL = "az.é界👍\u0301\u200d\u202e\xad\x1b\x07\x9b\r\n\0\ud800"
texts = st.text(st.sampled_from(UNUSUAL), max_size=30) | st.text(max_size=10)
containers_of_any_kind = st.lists(
    st.builds(
        container,
        texts,
        texts,
        st.integers(0, 10**12),
        image=texts,
        name=texts,
        state=st.sampled_from(ContainerState),
    ),
    max_size=8,
)
pieces_of_keys = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from([DOWN, UP, PAGE_DOWN, PAGE_UP, HOME, END, b"\x1b", b"\r", b"\x7f", b"\x15", b"a"]),
        st.sampled_from([char.encode("utf-8", "surrogatepass") for char in UNUSUAL]),
    ),
    max_size=30,
)


@given(
    containers_of_any_kind,
    pieces_of_keys,
    st.sampled_from(["xterm", "dumb"]),
    st.integers(1, 90),
    st.integers(1, 30),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_leave_the_terminal_restored(
    containers: list[Container], pieces: list[bytes], term: str, columns: int, rows: int
) -> None:
    async def run() -> None:
        tty = Tty(columns, rows, term)
        source = Pieces(*pieces)
        chosen = await pick(containers, lambda: tty.terminal, tty.resized, source, tty.write, tty.drain)
        assert chosen is None or (chosen in containers and chosen.state is ContainerState.RUNNING)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if chosen is not None:
            assert b"".join(pieces).endswith(b"".join(source.pieces))
        if term == "dumb":
            assert tty.sent.endswith(b"\r\n")
        else:
            tty.assert_restored()
            # nothing but what the picker itself draws and printable text
            text = DRAWN.sub("", tty.sent.decode())
            assert text.isprintable()
        assert tty.sent.decode().replace("\r\n", "").replace("\b", "").replace("\x1b", "").isprintable()

    asyncio.run(run())


@given(containers_of_any_kind)
@settings(deadline=None)
def test_any_label_leaves_the_listing_printable(containers: list[Container]) -> None:
    text = listing(containers)
    assert text.count("\n") == 1 + len(containers)
    assert text.replace("\n", "").isprintable()


@given(st.lists(st.builds(container, st.text(st.sampled_from("ab界é👍\x1b\u0301"), max_size=60)), max_size=5))
@settings(max_examples=100, deadline=None)
def test_no_line_is_wider_than_the_terminal(containers: list[Container]) -> None:
    async def run() -> None:
        for columns in (1, 2, 3, 10, 39, 40, 41):
            tty = Tty(columns, 6)
            await pick(
                containers,
                lambda tty=tty: tty.terminal,
                tty.resized,
                Pieces("界é\u0301".encode()),
                tty.write,
                tty.drain,
            )
            for frame in tty.frames[1:-1]:
                assert_fits(frame, columns, 6)

    asyncio.run(run())
