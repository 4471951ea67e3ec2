"""How rows are shown: as a table for people, as JSON or CSV for programs. Nothing that is shown can move a cursor."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bastion.errors import printable

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, with every column.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV with a heading, with every column.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")]
Before = Annotated[str | None, typer.Option(metavar="ID", help="The next page: those before the one with this id.")]
User = Annotated[str | None, typer.Option(metavar="NAME", help="Only this user's.")]
App = Annotated[str | None, typer.Option("--app", metavar="APP", help="Only in this app.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Not before: 2h, yesterday, 2026-11-21T22:50Z.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only before that.")]


@dataclass(frozen=True, slots=True)
class Column:
    """A heading of a table, and whether what is below may be broken."""

    heading: str
    whole: bool = False


def as_json(row: Any) -> str:
    return json.dumps(asdict(row), default=moment)


def print_rows(rows: Sequence[Any], kind: type[Any], *, json_lines: bool) -> None:
    """Every column of dataclasses of this kind, for programs."""
    if json_lines:
        for row in rows:
            typer.echo(as_json(row))
        return
    names = list(kind.__dataclass_fields__)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(_cell(getattr(row, name)) for name in names)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """For people."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # whoever reads a pipe wants whole lines
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.heading, overflow="fold", no_wrap=column.whole)
    for row in rows:
        # Text, so that nothing is taken for markup; printable, so that nothing is taken for a terminal's commands.
        table.add_row(*(Text(_encodable(printable(cell), console.encoding)) for cell in row))
    console.print(table)


def tell_of_more(count: int, limit: int, last: str) -> None:
    if count == limit:
        typer.echo(f"There may be more: --before {printable(last)}", err=True)


def moment(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")


def position(seconds: float) -> str:
    """In a recording, as `bastion play --at` takes it."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return moment(value) if isinstance(value, datetime) else printable(str(value))


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)
