"""bastion audit verify --database: the rows of the database, held against what the log says of them."""

import asyncio
from collections.abc import Iterable

from bastion.audit.comparison import Compared, compare, last_position
from bastion.audit.database import create_engine
from bastion.audit.verify import Line
from bastion.config import Config


class Rows:
    """What is in the database before the log is read: each of these rows has its entry by then. Unavailable."""

    def __init__(self, config: Config) -> None:
        self.told: list[str] = []
        self._config = config
        self._last = asyncio.run(self._position())

    def findings(self, lines: Iterable[Line], last: int) -> list[str]:
        """What is wrong with them, by the entries up to number `last`. BastionError."""
        compared = asyncio.run(self._compare(lines, last))
        self.told = [f"database: {compared.rows} events are as the log has them"]
        if compared.older:
            self.told.append(f"database: {compared.older} events are older than the oldest file: not compared")
        if compared.waiting:
            where = "they wait in the spool, or are on their way"
            self.told.append(f"database: {compared.waiting} at the end are not there: {where}")
        for first, last_kept in compared.crashed:
            self.told.append(f"database: entries {first} to {last_kept}: a crash kept them from it")
        return [str(finding) for finding in compared.findings]

    async def _position(self) -> int:
        engine = create_engine(self._config.database)
        try:
            return await last_position(engine)
        finally:
            await engine.dispose()

    async def _compare(self, lines: Iterable[Line], last: int) -> Compared:
        engine = create_engine(self._config.database)
        try:
            return await compare(engine, self._last, lines, last)
        finally:
            await engine.dispose()
