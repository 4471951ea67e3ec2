import ast
import json
import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.audit.events import ALWAYS, CHAIN, ITEM_LIMIT, ITEMS_LIMIT, TEXT_LIMIT, Event, entry
from bastion.errors import Reason

# The names that DESIGN.md and its readers' searches rely on; a name or a field that was given is never taken back.
CATALOGUE = {
    "connection.open": "connection_id source_ip source_port",
    "connection.close": "connection_id seconds source_ip source_port",
    "source.penalised": "network offence seconds source_ip",
    "user.login": "connection_id method source_ip source_port user",
    "user.login_failed": "connection_id method reason source_ip source_port user",
    "user.second_factor": "by change user",
    "certificate.issued": "by ca key key_id seconds serial user",
    "access.denied": "connection_id reason source_ip source_port user",
    "session.start": "address command connection_id container_id engine recording rule session_id source_ip"
    " terminal user",
    "session.resize": "address columns connection_id container_id engine rows session_id source_ip user",
    "session.killed": "address by connection_id container_id engine session_id source_ip user why",
    "session.end": "address connection_id container_id engine exit_status session_id source_ip status user",
    "session.command": "address at confidence connection_id container_id content degraded engine prompt session_id"
    " source_ip user",
    "command.denied": "address connection_id container_id content engine rule session_id source_ip user",
    "command.alerted": "address connection_id container_id content engine rule session_id source_ip user",
    "recording.failed": "address connection_id container_id engine reason session_id source_ip user",
    "recording.viewed": "session_id user",
    "recording.pruned": "recording session_id user",
    "audit.searched": "filters user what",
    "alert.raised": "rule",
    "config.reloaded": "",
    "audit.failed": "reason sink",
    "audit.recovered": "dropped sink",
    "audit.caught_up": "late removed sink",
    "audit.reopened": "",
    "audit.head": "key",
    "audit.verified": "begins entries findings",
    "audit.acknowledged": "findings user why",
}


def parse(line: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def line(**fields: object) -> str:
    return entry(Event.CONFIG_RELOADED, "b", fields).line


def test_the_catalogue() -> None:
    assert {event.value: " ".join(sorted(event.required)) for event in Event} == CATALOGUE
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", event) for event in Event)


def test_events_are_emitted_by_their_names_in_the_catalogue() -> None:
    """Every emit() in the package names a member of Event, so that no event is outside the catalogue."""
    for path in Path(__file__).parents[2].glob("bastion/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit"):
                continue
            (event,) = node.args
            assert ast.unparse(event).startswith("Event."), f"{path}:{node.lineno}"
            assert ast.unparse(event).removeprefix("Event.") in Event.__members__, f"{path}:{node.lineno}"


def test_what_every_event_has() -> None:
    before = datetime.now(UTC)
    values = parse(entry(Event.RECORDING_VIEWED, "bastion-1", {"user": "eve", "session_id": "5"}).line)
    assert list(values) == ["time", "event", "id", "bastion_id", "user", "session_id"]
    assert set(values) >= ALWAYS - {"seq", "prev"}  # the chain's: test_chain.py
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", values["time"])
    assert before <= datetime.fromisoformat(values["time"]) <= datetime.now(UTC)
    assert values["id"] != parse(line())["id"]


def test_a_missing_field_and_one_of_the_logs_own_are_mistakes() -> None:
    with pytest.raises(TypeError, match=r"recording\.viewed needs session_id, user"):
        entry(Event.RECORDING_VIEWED, "b", {})
    with pytest.raises(TypeError, match="time is set by the audit log"):
        line(time="yesterday")
    with pytest.raises(TypeError, match="seq, signature is set by the audit log"):
        line(seq=1, signature="")


def test_values_of_every_kind() -> None:
    class Unshowable:
        def __str__(self) -> str:
            raise ValueError

        __repr__ = __str__

    loop: list[object] = []
    loop.append(loop)
    cases: dict[object, object] = {
        "a\0b\n\x1b[2J\x7f\x9b\u2028\u202e": "a\0b\n\x1b[2J\x7f\x9b\u2028\u202e",
        "caf\udce9": "caf\\udce9",
        "\ud83d": "\\ud83d",
        b"caf\xe9 \xc3\xa9": "caf\\xe9 é",
        Reason.NOT_OWNER: "not_owner",
        None: None,
        True: True,
        2**63 - 1: 2**63 - 1,
        2**63: "9223372036854775808",
        10**5000: "<int>",
        float("inf"): "inf",
        1.5: 1.5,
        PurePosixPath("/a"): "/a",
        frozenset({"b", "a"}): ["a", "b"],
        (1, (2, (3,))): [1, [2, "(3,)"]],
        Unshowable(): "<Unshowable>",
    }
    for value, expected in cases.items():
        assert parse(line(value=value))["value"] == expected
    assert parse(line(value={"o": {"bytes": 1, "sha256": "ab"}}))["value"] == {"o": {"bytes": 1, "sha256": "ab"}}
    assert parse(line(value=loop))["value"] == [["[[...]]"]]
    assert parse(line(value=float("nan")))["value"] == "nan"
    assert parse(line(value={frozenset({1}): 2}))["value"] == {"frozenset({1})": 2}


def test_long_values_are_cut_and_say_so() -> None:
    name = "x" * 10_240
    assert parse(line(user=name))["user"] == "x" * TEXT_LIMIT + "...(cut, 10240 characters)"
    assert parse(line(user=name.encode()))["user"] == "x" * TEXT_LIMIT + "...(cut, 10240 bytes)"
    groups = parse(line(groups=[name] * 100))["groups"]
    assert groups == ["x" * ITEM_LIMIT + "...(cut, 10240 characters)"] * ITEMS_LIMIT + ["...(cut, 100 items)"]
    assert len(parse(line(claims={str(n): n for n in range(100)}))["claims"]) == ITEMS_LIMIT + 1
    assert len(line(user="\U0001f600" * 1_000_000)) < 13 * TEXT_LIMIT


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))  # surrogates as well
    | st.binary()
    | st.datetimes()
    | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name not in ALWAYS | CHAIN), ANYTHING))
def test_one_event_is_one_line_of_printable_ascii(fields: dict[str, object]) -> None:
    made = entry(Event.CONFIG_RELOADED, "b", fields)
    assert re.fullmatch("[ -~]*", made.line)
    assert parse(made.line) == made.fields
    made.line.encode().decode()
    json.dumps(parse(made.line), ensure_ascii=False).encode()  # no lone surrogate is left: strict readers take it


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=TEXT_LIMIT))
def test_text_comes_back_as_it_was(text: str) -> None:
    assert parse(line(user=text))["user"] == text
