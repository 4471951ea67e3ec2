"""`python -m tests.bench [NAME ...]`: measure what is named, or all, and print the tables.

Exit status 0 whatever they say: the machine may be busy.
"""

import argparse
import os
import platform
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from tests.bench import commands, comparison, detector, kills, logins, proof, refusals, search, tail


class Benchmarks(Protocol):
    """A module of this folder."""

    NAMES: Sequence[str]

    def measure(self, names: Sequence[str]) -> Table: ...


TABLES: Sequence[Benchmarks] = (comparison, logins, refusals, search, tail, commands, detector, proof, kills)


def main() -> None:
    known = [name for table in TABLES for name in table.NAMES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    chosen = parser.parse_args().names or known
    if unknown := sorted(set(chosen) - set(known)):
        parser.error(f"there is no {', '.join(unknown)}, but {', '.join(known)}")
    for benchmarks in TABLES:
        if names := [name for name in benchmarks.NAMES if name in chosen]:
            table = benchmarks.measure(names)
            table.caption = (
                f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
                f"Python {platform.python_version()}"
            )
            Console(width=120).print(table)


if __name__ == "__main__":
    main()
