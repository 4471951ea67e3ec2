"""bastion audit: the audit log, and whether it is as it was written."""

import asyncio
import os
import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bastion.audit.database import create_engine
from bastion.audit.events import ITEMS_LIMIT, Event
from bastion.audit.files import Known, State, anchored, files, in_order, lines_of, state_file
from bastion.audit.log import AuditLog
from bastion.audit.signing import PublicKey, load, public_key
from bastion.audit.verify import Line, Report, verify
from bastion.cli.database_verified import Rows
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.recordings_verified import Recordings
from bastion.cli.tail import tail
from bastion.config import Config, load_config
from bastion.control.lock import make_folder
from bastion.errors import BastionError, printable

app = typer.Typer(no_args_is_help=True, help="The audit log, and whether it is as it was written.")


@app.callback()
def audit() -> None:
    """The audit log, and whether it is as it was written."""


app.command()(tail)


@app.command(name="verify")
def verify_(
    logs: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="In any order; else the log and its rotated files.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--public-key", metavar="KEY", help="As `bastion keys init` printed it: ssh-ed25519 AAAA..."),
    ] = None,
    anchor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Signed heads from elsewhere, such as what syslog has.")
    ] = None,
    recordings: Annotated[
        bool, typer.Option("--recordings", help="Also each recording, by the end that the log remembers.")
    ] = False,
    database: Annotated[
        bool, typer.Option("--database", help="Also the rows of the database, by the events that are in the log.")
    ] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Read the whole audit log, and name what was changed, removed, added, re-ordered, cut short or rolled back.

    With FILE and --public-key alone, no configuration is read. The status is 1 where something is found that nobody has
    acknowledged.
    """
    loaded = None if logs and key and not recordings and not database else load_config(config)
    files_now = Recordings(loaded) if loaded is not None and recordings else None
    rows_now = Rows(loaded) if loaded is not None and database else None
    public = _key(key, loaded)
    report = _report(logs, public, _known(None if logs else loaded, public, anchor), loaded)
    for line in _told(report):
        typer.echo(printable(line))
    wrong: list[str] = []
    if files_now is not None:
        wrong = files_now.findings(_lines(logs, loaded), complete=report.first == 1)
        for line in [*wrong, files_now.told]:
            typer.echo(printable(line))
    if rows_now is not None:
        amiss = rows_now.findings(_lines(logs, loaded), report.tip.seq)
        for line in [*amiss, *rows_now.told]:
            typer.echo(printable(line))
        wrong += amiss
    raise typer.Exit(1 if report.findings or wrong else 0)


@app.command()
def acknowledge(
    why: Annotated[str, typer.Option(help="What has happened; the audit log has it.")],
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Go on over a log that was touched, once you know why it was. With the bastion stopped."""
    loaded = load_config(config)
    if loaded.audit.file is None:
        raise BastionError("audit.file: there is no file that could have been touched")
    public = load(loaded.audit.signing_key).public
    report = _report(None, public, _known(loaded, public, None), loaded)
    if not report.findings:
        raise BastionError("nothing is found that was not acknowledged already")
    make_folder(loaded.state_folder)
    asyncio.run(_acknowledge(loaded, report, why))
    for finding in report.findings:
        typer.echo(printable(f"acknowledged: {finding}"))


async def _acknowledge(config: Config, report: Report, why: str) -> None:
    engine = create_engine(config.database)
    user = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    try:
        lenient = config.audit.model_copy(update={"mode": "best_effort"})
        async with AuditLog(lenient, config.bastion_id, engine, config.state_folder) as log:
            ids = sorted({finding.id for finding in [*report.findings, *log.findings]})
            for start in range(0, len(ids), ITEMS_LIMIT):
                found = ids[start : start + ITEMS_LIMIT]
                await log.emit(Event.AUDIT_ACKNOWLEDGED, user=user, why=why, findings=found)
    finally:
        await engine.dispose()


def _key(text: str | None, config: Config | None) -> PublicKey:
    if text is not None:
        return public_key(text)
    assert config is not None
    return load(config.audit.signing_key).public


def _known(config: Config | None, key: PublicKey, anchor: Path | None) -> Known:
    """What is remembered of the log outside of it."""
    known: dict[int, tuple[str, str]] = {}
    if config is not None and config.audit.file is not None:
        path = state_file(config.audit.file)
        tip = State(path).read()
        known |= {tip.seq: (tip.hash, str(path))} if tip is not None else {}
        known |= anchored(config.audit.anchor, key) if config.audit.anchor is not None else {}
    return known | (anchored(anchor, key) if anchor is not None else {})


def _report(logs: Sequence[Path] | None, key: PublicKey, known: Known, config: Config | None) -> Report:
    return verify(_lines(logs, config), key, known)


def _lines(logs: Sequence[Path] | None, config: Config | None) -> Iterator[Line]:
    """Of the log that is named or configured. BastionError."""
    if not logs:
        assert config is not None
        if config.audit.file is None:
            raise BastionError("audit.file: there is none; name the files that your standard output went to")
        logs = files(config.audit.file)
    try:
        for path in in_order(logs):
            yield from lines_of(path)
    except OSError as error:
        raise BastionError(f"{error.filename}: can not be read: {error.strerror}") from None


def _told(report: Report) -> list[str]:
    heads = f"{report.heads} signed heads, the last of entry {report.signed}" if report.signed else "no signed head"
    lines = [f"entries {report.first} to {report.tip.seq}, {heads}"]
    if report.torn:
        lines.append(f"behind the last entry, {report.torn} bytes of one that a crash cut short")
    lines += [f"acknowledged ({why}): {finding}" for finding, why in report.acknowledged]
    if report.findings:
        lines += [str(finding) for finding in report.findings]
        lines.append(f"entries up to {report.intact} are as they were signed")
    else:
        lines.append("nothing was changed, removed, added or re-ordered")
    return lines
