"""The frames in which an exec without a terminal sends its two streams (pure)."""

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from bastion.model import Chunk, Stream

MAX_FRAME = 1 << 30  # bytes; engines send 32 KiB
_HEADER = struct.Struct(">BxxxL")  # stream, length
_STREAMS = {1: Stream.OUTPUT, 2: Stream.ERROR}
Piece = tuple[Stream, bytes | memoryview]


def joined(pieces: Iterable[Piece]) -> list[Chunk]:
    """The same bytes with as few chunks as there are runs of one stream."""
    return [(stream, b"".join([piece for _, piece in run])) for stream, run in groupby(pieces, key=itemgetter(0))]


class Frames:
    """Decoder of application/vnd.docker.multiplexed-stream (Docker API, ContainerAttach: "Stream format").

    Holds at most the 7 bytes of an unfinished header; raises `ValueError` for a header that is none.
    """

    def __init__(self) -> None:
        self._header = b""
        self._stream = Stream.OUTPUT
        self._left = 0  # bytes of the current frame that are still to come

    def feed(self, data: bytes) -> list[Chunk]:
        """The payload in `data`, one chunk for each run of a stream."""
        return joined(self._pieces(data))

    def _pieces(self, data: bytes) -> Iterator[Piece]:
        if self._header:
            data = self._header + data
            self._header = b""
        view, position, end = memoryview(data), 0, len(data)
        while position < end:
            if not self._left:
                if end - position < _HEADER.size:
                    self._header = data[position:]
                    return
                number, self._left = _HEADER.unpack_from(data, position)
                if number not in _STREAMS or self._left > MAX_FRAME:
                    raise ValueError(f"a frame of stream {number} with {self._left} bytes")
                self._stream = _STREAMS[number]
                position += _HEADER.size
                continue
            piece = view[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            yield self._stream, piece
