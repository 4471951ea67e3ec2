"""No byte is lost, whatever it is and wherever it is cut."""

import contextlib
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bastion.model import Stream
from bastion.recording.asciicast import (
    Code,
    Event,
    Header,
    Reader,
    RecordingError,
    StreamEncoder,
    decode_event,
    decode_header,
    encode_header,
    encode_text,
    split_text,
    text_of,
)

HEADER = Header("s1", "alice", "web.worker.1", 1700000000, 132, 43, True, "ls", {"TERM": "xterm"})

mixed_bytes = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from(
            [b"\xe4\xb8", b"\xad", b"\xf0\x9f\x98", b"\x80", b"\0", b'"\\\x7f\x1b', b"\xed\xa0\x80", b"plain"]
        ),
    ),
    max_size=12,
)


def test_header_is_asciicast_version_2() -> None:
    line = encode_header(HEADER)
    assert line.endswith(b"\n")
    fields = json.loads(line)
    assert (fields["version"], fields["width"], fields["height"]) == (2, 132, 43)
    assert fields["timestamp"] == 1700000000
    assert fields["env"] == {"TERM": "xterm"}
    assert decode_header(line) == HEADER


def test_header_with_hostile_text_is_one_ascii_line() -> None:
    header = Header("s", "a\nb\x1b]0;x\x07\udcff", "x", 0, command="\u2028\n")
    line = encode_header(header)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode_header(line) == header


@pytest.mark.parametrize("line", [b"", b"[]\n", b"{}\n", b'{"version": 1}\n', b"\x00\n", b'{"version": 2}\n', b"1\n"])
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(RecordingError):
        decode_header(line)


@given(mixed_bytes)
@example([b"\xf0\x9f", b"\x98", b"\x80"])
@example([b"\xe4\xb8", b"\xadabc", b"\xff\xfe"])
def test_terminal_text_round_trip(pieces: list[bytes]) -> None:
    back, held = b"", b""
    for piece in pieces:
        text, held = split_text(held + piece)
        assert len(held) <= 3
        line = encode_text(1.5, Code.OUTPUT, text)
        assert line.isascii()
        assert line.count(b"\n") == 1
        event = decode_event(line)
        assert (event.time, event.code, event.stream) == (1.5, "o", Stream.OUTPUT)
        back += event.data
    assert back + held == b"".join(pieces)


@given(mixed_bytes, st.sampled_from(list(Stream)))
@example([b"\xe4", b"\xb8", b"\xad"], Stream.OUTPUT)
@example([b"a\xf0\x9f", b"\x98\x80b\xe4", b"\xb8\xad\0"], Stream.OUTPUT)
def test_each_chunk_without_a_terminal_is_written_out_at_once(pieces: list[bytes], stream: Stream) -> None:
    encoder = StreamEncoder(stream)
    for piece in pieces:
        line = encoder.encode(0.25, piece)
        assert line.isascii()
        assert line.count(b"\n") == 1
        event = decode_event(line)
        assert event.data == piece
        assert event.stream is stream


def test_a_character_split_over_two_reads_stays_whole_on_a_terminal() -> None:
    first, held = split_text("naïve 中文".encode()[:-1])
    second, nothing = split_text(held + "文".encode()[-1:])
    assert first + second == "naïve 中文"
    assert nothing == b""


def test_text_cut_inside_a_character_stays_text_without_a_terminal() -> None:
    text = ("中文 text\n" * 100).encode()
    for cut in range(1, 14):
        encoder = StreamEncoder(Stream.OUTPUT)
        pieces = [text[:cut], text[cut : 2 * cut], text[2 * cut :]]
        events = [decode_event(encoder.encode(0, piece)) for piece in pieces]
        assert {event.code for event in events} == {"o"}
        assert b"".join(event.data for event in events) == text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"plain\n", "o"),
        ("Grüße".encode("latin-1"), "o"),
        (b"\x1b[31mred\x1b[0m", "o"),
        (b"ELF\0\0", "ob"),
        (bytes(range(1, 256)), "ob"),
        (b"\x89PNG\r\n\x1a\n", "ob"),
    ],
)
def test_what_is_not_text_at_all_is_base64(data: bytes, code: str) -> None:
    assert decode_event(StreamEncoder(Stream.OUTPUT).encode(0, data)) == Event(0.0, code, data)


@pytest.mark.parametrize("code", ["o", "e"])
def test_bytes_that_are_no_text_are_surrogate_escapes_in_json(code: str) -> None:
    line = encode_text(2, code, text_of(b"\xff\xc3\xa9"))
    assert line == b'[2.000000, "%b", "\\udcff\\u00e9"]\n' % code.encode()


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"[1]\n",
        b'["x", "o", "d"]\n',
        b'[1, "o", 2]\n',
        b'[1, "ob", "!"]\n',
        b'[1, "o", "\\ud800"]\n',
        b"{}\n",
        b"7\n",
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(RecordingError):
        decode_event(line)


@given(st.binary(max_size=80))
def test_no_line_makes_the_decoder_fail_otherwise(line: bytes) -> None:
    for decode in (decode_event, decode_header):
        with contextlib.suppress(RecordingError):
            decode(line)


def recording(*lines: bytes) -> io.BytesIO:
    return io.BytesIO(encode_header(HEADER) + b"".join(lines))


def test_reader_gives_header_and_events() -> None:
    reader = Reader(recording(encode_text(0, "o", "a"), encode_text(1, "r", "80x24")))
    assert reader.header == HEADER
    assert [(event.code, event.data, event.stream) for event in reader] == [
        ("o", b"a", Stream.OUTPUT),
        ("r", b"80x24", None),
    ]
    assert reader.truncated is None


@pytest.mark.parametrize("kept", [1, 5, 14])
def test_a_last_line_cut_by_a_crash_is_reported_not_an_error(kept: int) -> None:
    reader = Reader(recording(encode_text(0, "o", "a"), encode_text(1, "o", "b")[:kept]))
    assert [event.data for event in reader] == [b"a"]
    assert reader.truncated is not None
    assert "line 3" in reader.truncated


def test_a_broken_line_in_the_middle_is_an_error_that_names_it() -> None:
    reader = Reader(recording(b'[0, "o", "a\n', encode_text(1, "o", "b")))
    with pytest.raises(RecordingError, match="line 2"):
        list(reader)


@pytest.mark.parametrize("content", [b"", b'{"version": 2, "wid'])
def test_a_recording_without_a_whole_header_is_an_error(content: bytes) -> None:
    with pytest.raises(RecordingError):
        Reader(io.BytesIO(content))
