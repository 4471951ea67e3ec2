"""The recording, from the client's bytes to the file and back: what was seen is in it, what was secret is not."""

import hashlib
import json
import os
import random
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bastion.model import Stream
from bastion.recording.asciicast import Event, Header, Reader
from bastion.recording.chain import End
from bastion.recording.files import CAST, open_lines
from bastion.recording.integrity import Verdict, verify
from tests.e2e.conftest import Start
from tests.e2e.terminal import on_terminal
from tests.recordings import content, recordings
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import DEBIAN, Engine
from tests.servers.process import free_port, wait_until

WEB = "alice+web.worker.1"
BUSY = "alice+web.busy.1"


def read(path: Path) -> tuple[Header, list[Event]]:
    with open_lines(path) as file:
        reader = Reader(file)
        return reader.header, list(reader)


def of(events: list[Event], stream: Stream) -> bytes:
    return b"".join(event.data for event in events if event.stream is stream)


def texts(events: list[Event], code: str) -> list[bytes]:
    return [event.data for event in events if event.code == code]


def ended(bastion: Bastion, **fields: object) -> dict[str, Any]:
    """session.end of the session that began last."""
    session = bastion.wait_for_event("session.start", **fields)["session_id"]
    return bastion.wait_for_event("session.end", session_id=session)


def recording(bastion: Bastion, session_id: str) -> Path:
    (path,) = [path for path in bastion.recordings() if path.stem == session_id]
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_command_with_all_its_bytes(bastion: Bastion) -> None:
    data = b"text: gr\xc3\xbc\xc3\x9fe\n" + bytes(range(256)) * 300
    command = "cat; echo 'gr\xfc\xdfe' >&2; head -c 100000 /dev/urandom >&2"
    done = bastion.ssh(BUSY, command, stdin=data)
    assert done.stdout == data
    assert len(done.stderr) > 100_000
    end = ended(bastion)
    path = recording(bastion, end["session_id"])
    header, events = read(path)
    assert (header.user, header.address, header.command, header.terminal) == ("alice", "web.busy.1", command, False)
    assert of(events, Stream.INPUT) == data
    assert of(events, Stream.OUTPUT) == done.stdout
    assert of(events, Stream.ERROR) == done.stderr
    assert {"ib", "ob", "eb"} <= {event.code for event in events}
    assert verify(path, End(**end["recording"])) == Verdict(End(**end["recording"]), ended=True, finding=None)
    for stream, whole in (("i", data), ("o", done.stdout), ("e", done.stderr)):
        assert end["streams"][stream] == {"bytes": len(whole), "sha256": sha256(whole)}
    with open_lines(path) as lines:
        for line in lines:
            json.loads(line.decode("ascii"))


def test_files_and_folders_are_the_bastion_s_alone(bastion: Bastion) -> None:
    bastion.ssh(BUSY, "true")
    end = ended(bastion)
    path = recording(bastion, end["session_id"])
    wait_until(lambda: not path.exists(), "it is compressed")
    folder = bastion.folder / "recordings"
    assert re.fullmatch(r"\d{4}/\d{2}/\d{2}", str(path.parent.relative_to(folder)))
    assert path.parent == folder / end["time"][:10].replace("-", "/")
    assert bastion.wait_for_event("session.start", session_id=end["session_id"])["recording"] == str(path)
    assert stat.S_IMODE(path.with_name(f"{path.name}.zst").stat().st_mode) == 0o600
    for parent in (folder, *(p for p in path.parents if p.is_relative_to(folder))):
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("read_secret", ["read -s x", "stty -echo; read x; stty echo"])
def test_a_terminal_what_is_typed_in_clear_and_what_is_not(bastion: Bastion, read_secret: str) -> None:
    secret, slow = os.urandom(8).hex().encode(), os.urandom(8).hex().encode()
    utf8 = ("-o", "SetEnv=LC_ALL=C.UTF-8")
    with on_terminal(bastion.ssh_command(WEB, options=utf8), 90, 25) as terminal:
        terminal.expect(rb"[#$] ")
        session_id = bastion.events("session.start")[-1]["session_id"]
        terminal.type(b"echo in-the-clear-$((40+2))\r")
        terminal.expect(rb"clear-42\r\n.*[#$] ")
        for word in (secret, slow):
            terminal.type(f"{read_secret}; echo got ${{#x}}\r".encode())
            terminal.expect(rb"echo got [^\n]*\n")
            wait_until_reading(bastion)
            for piece in (word,) if word is secret else (word[i : i + 1] for i in range(len(word))):
                terminal.type(piece)
            terminal.type(b"\r")
            terminal.expect(rb"got 16\r\n.*[#$] ")
        terminal.type("echo grüße\r".encode())
        terminal.expect("echo grüße\r\n.*grüße\r\n.*[#$] ".encode())
        terminal.resize(100, 30)
        bastion.wait_for_event("session.resize", session_id=session_id, columns=100, rows=30)
        terminal.type(b"exit 3\r")
        assert terminal.wait() == 3
        seen = terminal.transcript
    end = bastion.wait_for_event("session.end", session_id=session_id)
    header, events = read(recording(bastion, session_id))
    assert (header.terminal, header.columns, header.rows, header.env["TERM"]) == (True, 90, 25, "xterm-256color")
    assert of(events, Stream.OUTPUT) == seen
    assert end["streams"]["o"] == {"bytes": len(seen), "sha256": sha256(seen)}
    assert end["streams"]["i"]["sha256"] is None
    typed = of(events, Stream.INPUT)
    assert b"echo in-the-clear-$((40+2))\r" in typed
    assert "echo grüße\r".encode() in typed
    assert set(texts(events, "r")) == {b"100x30"}  # a client may tell it twice
    assert texts(events, "x")
    assert texts(events, "z") == [b"3"]
    # nowhere, in no spelling of it that is known
    for file in filter(Path.is_file, bastion.folder.rglob("*")):
        found = content(file) if CAST in file.name else file.read_bytes()
        for word in (secret, slow):
            assert word not in found, file
            assert sha256(word).encode() not in found, file


def wait_until_reading(bastion: Bastion) -> None:
    """The program has turned the echo off: what is typed before that is echoed, and in the recording."""
    check = "for t in /dev/pts/[0-9]*; do stty -a -F $t; done 2>/dev/null | grep -q ' icanon iexten -echo '"
    wait_until(lambda: bastion.ssh(WEB, check).returncode == 0, "the echo is off")


def test_one_file_a_session_also_on_one_connection(bastion: Bastion, start: Start) -> None:
    control = ("-o", f"ControlPath={bastion.folder}/mux-rec", "-o", "ControlMaster=auto", "-o", "ControlPersist=30")
    try:
        assert bastion.ssh(BUSY, "true", options=control).returncode == 0
        before = set(bastion.recordings())
        clients = [start(bastion.ssh_command(BUSY, f"cat; echo said {i}", options=control)) for i in range(10)]
        wait_until(lambda: len(bastion.recordings()) == len(before) + 10, "ten recordings")
        for i, client in enumerate(clients):
            assert client.communicate(b"sent %d\n" % i, timeout=30)[0] == b"sent %d\nsaid %d\n" % (i, i)
        made = [read(path)[1] for path in set(bastion.recordings()) - before]
        inputs = sorted(of(events, Stream.INPUT) for events in made)
        assert inputs == [b"sent %d\n" % i for i in range(10)]
        assert sorted(of(events, Stream.OUTPUT) for events in made) == [
            b"sent %d\nsaid %d\n" % (i, i) for i in range(10)
        ]
    finally:
        subprocess.run([*bastion.ssh_command(BUSY, options=control), "-O", "exit"], capture_output=True, check=False)


def test_what_is_beyond_the_limit_is_counted_and_hashed(folder: Path, engine: Engine) -> None:
    data = os.urandom(300_000)
    with serving(folder, engine.url, recording={"max_bytes": 100_000}) as bastion:
        done = bastion.ssh(BUSY, "cat; seq 1 30000 >&2", stdin=data)
        assert done.stdout == data
        end = ended(bastion)
        _, events = read(recording(bastion, end["session_id"]))
        for stream, whole in ((Stream.INPUT, data), (Stream.OUTPUT, data), (Stream.ERROR, done.stderr)):
            assert of(events, stream) == whole[:100_000]
            assert end["streams"][stream] == {"bytes": len(whole), "sha256": sha256(whole)}
        assert sorted(texts(events, "t")) == [b"e", b"i", b"o"]
        assert texts(events, "e")[0].startswith(b"1\n2\n3\n")
        shown = bastion.ssh(BUSY, "seq 1 30000", options=("-tt",)).stdout
        end = ended(bastion)
        _, events = read(recording(bastion, end["session_id"]))
        assert of(events, Stream.OUTPUT) == shown[:100_000]
        assert end["streams"]["o"] == {"bytes": len(shown), "sha256": sha256(shown)}


def played(bastion: Bastion, session_id: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    command = [*BASTION, "play", session_id, *options, "-c", f"{bastion.folder}/config.yaml"]
    return subprocess.run(command, capture_output=True, check=False, timeout=30)


@pytest.mark.parametrize("tty", [False, True], ids=["no terminal", "terminal"])
def test_players_show_what_was_seen(bastion: Bastion, tmp_path: Path, *, tty: bool) -> None:
    command = r"printf 'one\ngr\303'; sleep 0.3; printf '\274n \033[31mred\033[0m\n'; echo two; printf '\377\n'"
    done = bastion.ssh(BUSY, command, options=("-tt",) if tty else ())
    assert done.stdout.replace(b"\r", b"") == b"one\ngr\xc3\xbcn \x1b[31mred\x1b[0m\ntwo\n\xff\n"
    session_id = ended(bastion)["session_id"]
    mine = played(bastion, session_id[:12])
    assert mine.returncode == 0, mine.stderr
    assert mine.stdout.startswith(done.stdout.replace(b"\xff", "\N{REPLACEMENT CHARACTER}".encode()))
    path = str(tmp_path / "s.cast")
    export = [*BASTION, "sessions", "export", session_id, "-o", path, "-c", f"{bastion.folder}/config.yaml"]
    subprocess.run(export, capture_output=True, check=True)
    env = {"HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    with on_terminal(["asciinema", "cat", path], env=env) as theirs:
        assert theirs.wait() == 0, theirs.transcript
        assert theirs.transcript.startswith(done.stdout.split(b"\xff")[0])


def test_a_crash_in_a_flood_loses_no_byte_that_a_client_saw(folder: Path, engine: Engine, start: Start) -> None:
    container = engine.app("flood", "main", 1, image=DEBIAN)
    login, port = "alice+flood.main.1", free_port()
    lost: set[str] = set()
    for _ in range(5):
        with serving(folder, engine.url, port) as bastion:
            before = set(bastion.recordings())
            clients = [
                start(bastion.ssh_command(login, "exec seq 1 10000000", options=options)) for options in ((), ("-tt",))
            ]
            for client in clients:
                assert client.stdout is not None
            parts = [client.stdout.read(random.randrange(1, 2_000_000)) for client in clients]  # type: ignore[union-attr]
            bastion.kill()
            for client, part in zip(clients, parts, strict=True):
                received = part + client.stdout.read()  # type: ignore[union-attr]
                assert client.wait(10) == 255
                newline = b"\r\n" if b"\r" in received else b"\n"
                (match,) = [
                    (path, seen)
                    for path in set(bastion.recordings()) - before
                    if newline + b"2" + newline in (seen := of(read(path)[1], Stream.OUTPUT))[:20]
                ]
                path, seen = match
                assert seen.startswith(received), (len(seen), len(received))
                lost.add(path.stem)
    assert len(lost) == 10
    with serving(folder, engine.url, port) as bastion:
        assert bastion.ssh(BUSY, "echo goes on").stdout == b"goes on\n"
        command = [*BASTION, "sessions", "list", "--json", "-c", f"{folder}/config.yaml"]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
        rows = {row["session_id"]: row["status"] for row in map(json.loads, lines)}
        assert {rows[session_id] for session_id in lost} == {"lost"}
        ends = {end["session_id"]: end for end in bastion.events("session.end", status="lost")}
        assert set(ends) == lost
        for session_id, end in ends.items():  # a crash is not tampering, and what it left is guarded from here on
            assert end["recording"]["blocks"] > 1
            verdict = Verdict(End(**end["recording"]), ended=False, finding=None)
            assert verify(recording(bastion, session_id), verdict.end) == verdict
        done = played(bastion, min(lost), "--speed", "1000")
        assert done.returncode == 0
        assert done.stdout.startswith((b"1\n2\n", b"1\r\n2\r\n"))
        wait_until(lambda: len(engine.processes(container)) == 1, "what the crashes left is swept")
    container.remove(force=True)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


SENTENCE = b"This session can no longer be recorded, so it was ended."


@pytest.mark.parametrize("tty", [False, True], ids=["no terminal", "terminal"])
def test_a_disk_that_fills_ends_a_session_and_nothing_unrecorded_was_shown(
    folder: Path, engine: Engine, small_disk: Path, *, tty: bool
) -> None:
    with serving(
        folder, engine.url, recording={"folder": str(small_disk / "recordings"), "min_free_bytes": 0}
    ) as bastion:
        done = bastion.ssh(BUSY, "exec seq 1 10000000", options=("-tt",) if tty else ())
        assert done.returncode == 255
        shown, _, _ = done.stdout.partition(SENTENCE) if tty else (done.stdout, b"", b"")
        assert SENTENCE in (done.stdout if tty else done.stderr)
        end = ended(bastion)
        assert (end["status"], end["reason"]) == ("failed", "recording_failed")
        (path,) = recordings(small_disk / "recordings")
        recorded = of(read(path)[1], Stream.OUTPUT)
        assert len(recorded) > 50_000
        assert recorded.startswith(shown)
        bastion.wait_for_event("recording.failed", session_id=end["session_id"])


def test_best_effort_goes_on_and_says_so_in_the_log(folder: Path, engine: Engine, small_disk: Path) -> None:
    section = {"folder": str(small_disk / "recordings"), "mode": "best_effort", "min_free_bytes": 0}
    with serving(folder, engine.url, recording=section) as bastion:
        done = bastion.ssh(BUSY, "seq 1 200000; exit 6")
        whole = b"".join(b"%d\n" % i for i in range(1, 200_001))
        assert (done.stdout, done.stderr, done.returncode) == (whole, b"", 6)
        end = ended(bastion)
        assert (end["status"], end["exit_status"]) == ("ended", 6)
        assert end["streams"]["o"] == {"bytes": len(whole), "sha256": sha256(whole)}
        failed = bastion.wait_for_event("recording.failed", session_id=end["session_id"])
        assert "ENOSPC" in failed["detail"]
        (path,) = recordings(small_disk / "recordings")
        assert whole.startswith(of(read(path)[1], Stream.OUTPUT))
        fill = ["dd", "if=/dev/zero", f"of={small_disk}/filler", "bs=4096"]
        assert b"No space left" in subprocess.run(fill, capture_output=True, check=False).stderr
        assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"  # and a session without any recording at all
        bastion.wait_for_event("recording.failed", session_id=ended(bastion)["session_id"])
