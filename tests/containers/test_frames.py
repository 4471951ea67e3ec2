import contextlib
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.containers.frames import Frames, joined
from bastion.model import Chunk, Stream

NUMBERS = {Stream.OUTPUT: 1, Stream.ERROR: 2}
FRAMES = st.lists(st.tuples(st.sampled_from(list(NUMBERS)), st.binary(max_size=300)))


def framed(chunks: list[Chunk]) -> bytes:
    return b"".join(struct.pack(">BxxxL", NUMBERS[stream], len(data)) + data for stream, data in chunks)


@settings(deadline=None)  # the machine may be busy
@given(FRAMES, st.data())
def test_frames_are_read_however_they_are_split(frames: list[Chunk], data: st.DataObject) -> None:
    wire = framed(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    decoder = Frames()
    got: list[Chunk] = []
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        got += decoder.feed(wire[begin:end])
    assert joined(got) == joined([frame for frame in frames if frame[1]])
    assert all(data for _, data in got)


@settings(deadline=None)  # the machine may be busy
@given(FRAMES)
def test_one_chunk_for_each_run_of_a_stream(frames: list[Chunk]) -> None:
    got = Frames().feed(framed(frames))
    assert all(one[0] is not other[0] for one, other in itertools.pairwise(got))


@settings(deadline=None)  # the machine may be busy
@given(st.binary(min_size=8, max_size=8).filter(lambda header: header[0] not in (1, 2) or header[4] >= 0x80))
def test_a_header_that_is_none_is_an_error(header: bytes) -> None:
    with pytest.raises(ValueError, match="frame of stream"):
        Frames().feed(header)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.binary(max_size=100)))
def test_any_bytes_are_frames_or_an_error(pieces: list[bytes]) -> None:
    decoder = Frames()
    with contextlib.suppress(ValueError):
        for piece in pieces:
            decoder.feed(piece)
