"""bastion audit verify --database: the rows of the database, held against what the log says of them."""

import asyncio
from collections.abc import Iterable

from bastion.audit.comparison import Compared, compare, last_position
from bastion.audit.database import create_engine
from bastion.audit.progress import under_way
from bastion.audit.verify import Line
from bastion.config import Config


class Rows:
    """What is in the database before the log is read: each of these rows has its entry by then. Unavailable."""

    def __init__(self, config: Config) -> None:
        self.told: list[str] = []
        self._config = config
        self._under_way = under_way(config.state_folder)
        self._last = asyncio.run(self._position())

    def findings(self, lines: Iterable[Line], last: int) -> list[str]:
        """What is wrong with them, by the entries up to number `last`. BastionError."""
        compared = asyncio.run(self._compare(lines, last))
        self.told = [f"database: {compared.rows} events are as the log has them"]
        if compared.older:
            self.told.append(f"database: {compared.older} events are older than the oldest file: not compared")
        if compared.waiting:
            self.told.append(f"database: {compared.waiting} are not there yet: they are under way")
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
            return await compare(engine, self._last, self._under_way, lines, last)
        finally:
            await engine.dispose()
