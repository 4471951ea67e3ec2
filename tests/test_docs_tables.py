"""The README and docs/: fragments are loaded, and what is named, listed or linked is held against the code."""

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from bastion.audit.events import ALWAYS, Event
from bastion.audit.tables import ACTIVE, LOST
from bastion.cli import command_line
from bastion.config import Auth, Config, LocalUsers, MaxStartups, Section, load_config
from bastion.config.loader import _expected
from bastion.errors import Reason
from bastion.recording.asciicast import Code
from bastion.session.outcome import Status
from demo import __main__ as demo
from tests.pages import PROSE, README, ROOT, Block, blocks, names, table

# ---- the fragments and options ----


@pytest.mark.parametrize("block", blocks(README, "yaml"), ids=lambda block: block.heading)
def test_fragments_load(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LDAP_PASSWORD", "DB_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    for file in re.findall(r"_file: (\S+)", block.text):
        (tmp_path / file).touch()
    for file in re.findall(r": file:(\S+)", block.text):
        (tmp_path / file).write_text("hunter2")
    text = block.text if "auth:" in block.text else f"{block.text}auth: {{local: {{}}}}\n"
    (tmp_path / "config.yaml").write_text(text)
    load_config(tmp_path / "config.yaml")  # raises ConfigError


def defaults(option: str) -> Any:
    value: Any = Config(auth=Auth(local=LocalUsers()))
    for part in option.split("."):
        value = getattr(value, part, None) if isinstance(value, Section) else None
    return value


def test_every_option_that_is_named_exists() -> None:
    sections = "|".join(name for name in Config.model_fields if name != "bastion_id")
    named = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)(?:: [^`]*)?`", PROSE)) - {*Event, "auth.py"}
    assert len(named) > 10
    assert [option for option in named if not _expected(tuple(option.split(".")))] == []
    assert {"timeout", "exec_starts", "exec_kills", "cluster"} <= get_args(Config.model_fields["engines"].annotation)[
        0
    ].model_fields.keys()


def test_the_limits_and_their_defaults_are_right() -> None:
    for cells in table("option | default | means"):
        (option,) = names(cells[0])
        if option.startswith(("auth.ldap.", "auth.oidc.")):
            kind = _expected(tuple(option.split(".")[:2]))[0]
            default = kind.model_fields[option.rpartition(".")[2]].default
        else:
            default = defaults(option)
        if isinstance(default, MaxStartups):
            default = f"{default.start}, {default.rate}, {default.full}"
        assert cells[1] == str(default), option


def test_every_bastion_command_that_is_named_exists() -> None:
    found = [command for command in names(PROSE) if command.startswith("bastion ")]
    assert len(found) >= 6
    for text in found:
        command: Any = typer.main.get_command(command_line())
        for word in shlex.split(text.partition("|")[0])[1:]:
            if word.islower() and hasattr(command, "commands"):
                command = command.commands[word]
            elif word.startswith("-"):
                assert word in [name for parameter in command.params for name in parameter.opts], text
    flags = set(re.findall(r"`(--[a-z-]+)`", PROSE))
    everything = "".join(path.read_text() for path in (ROOT / "bastion/cli").glob("*.py"))
    own = {flag for flag in flags if f'"{flag}"' in everything or f"{flag[2:].replace('-', '_')}:" in everything}
    assert flags - own == {"--hostname"}  # docker's


# ---- the tables ----


def code() -> str:
    return "".join(path.read_text() for path in (ROOT / "bastion").rglob("*.py") if path.name != "events.py")


def test_the_audit_events_are_the_catalogue() -> None:
    written = {Event[name] for name in re.findall(r"Event\.([A-Z_]+)", code())}
    rows = {names(cells[0])[0]: set(names(cells[1])) for cells in table("event | fields it always has | when")}
    assert rows == {event.value: set(event.required) for event in written}
    reserved = README.partition("These names are reserved")[2].partition("\n\n")[0]
    assert set(names(reserved)) == set(Event) - written
    assert set(names(README.partition("Each has ")[2].partition("\n")[0])) == ALWAYS


def test_reasons_statuses_and_codes_are_those_of_the_code() -> None:
    tables = {
        "reason | means": {*Reason},
        "status | means": {*Status, ACTIVE, LOST},
        "code | means": {*Code},
    }
    for head, expected in tables.items():
        assert {names(cells[0])[0] for cells in table(head)} == {str(one) for one in expected}, head
    unused = [reason for reason in Reason if f"Reason.{reason.name}" not in code()]
    reserved = [names(cells[0])[0] for cells in table("reason | means") if cells[1].startswith("reserved")]
    assert unused == reserved


def test_the_labels_are_those_of_the_code() -> None:
    named = {name for cells in table("label | means") for name in names(cells[0])}
    assert named == set(re.findall(r'"(bastion\.[a-z]+)"', code()))


def test_the_rooms_are_those_of_the_package() -> None:
    named = {name for cells in table("room | what is in it") for name in names(cells[0])}
    package = ROOT / "bastion"
    rooms = {f"bastion/{path.parent.name}/" for path in package.glob("*/__init__.py")}
    files = {f"bastion/{path.name}" for path in package.glob("*.py") if not path.name.startswith("__")}
    assert named == rooms | files


@pytest.mark.parametrize("page", ["README.md", "docs/recording.md", "docs/proof.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / file if file else ROOT / page
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text() if anchor else "", re.MULTILINE)
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], target


# ---- the two commands ----


def test_what_the_demo_prints_is_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks(README, "text")[0]
    alice, bob = re.findall(r"password: (\S+)", shown.text)
    fingerprint = re.search(r"SHA256:\S+", shown.text)
    assert fingerprint is not None
    demo._tell(2222, {"alice": alice, "bob": bob}, fingerprint[0])
    assert capsys.readouterr().out.strip() in shown.text
    steps = "".join(path.read_text() for path in (ROOT / "demo").glob("*.py"))
    for line in shown.text.splitlines():
        if " ... " in line:
            assert line.partition(" ... ")[0].split(" web.")[0] in steps, line


def test_each_make_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`(?:BASTION_PORT=\d+ )?make ([a-z-]+)`", PROSE))
    assert {"demo", "test", "check", "bench"} <= named <= targets
