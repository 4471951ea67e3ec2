import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import create_engine
from bastion.audit.events import Event, entry
from bastion.audit.search import Filters, Search
from bastion.audit.sessions import SessionRows
from bastion.audit.sinks import EventTable
from bastion.config import Database
from bastion.errors import BastionError, Unavailable
from tests.audit.test_sessions import begin, container, end

HOSTILE = "printf '\x1b[2J\udc80\0%s_' \"quoted\" \\ GR\u00dcN"
TYPED = {
    "s0": ["ls -la", "cat /etc/passwd", "Rm -rf /srv", "echo 100%", "echo under_score"],
    "s1": ["ls", HOSTILE, "grep needle hay"],
    "s2": ["NEEDLE=1 ls", "a*b ^c$"],
}


async def typed(database: AsyncEngine, session_id: str, user: str, address: str, *lines: str, **changes: Any) -> None:
    """As the log does with what the detector finds."""
    fields = dict.fromkeys(Event.SESSION_COMMAND.required, "x") | {"session_id": session_id, "user": user}
    fields |= {"address": address, "confidence": "exact", "prompt": "$ ", "degraded": False}
    entries = [
        entry(Event.SESSION_COMMAND, "b1", fields | {"content": line, "at": float(number)} | changes)
        for number, line in enumerate(lines)
    ]
    await EventTable(database).write(entries)
    await EventTable(database).write(entries)  # a write may be repeated


@pytest.fixture
async def search(database: AsyncEngine) -> Search:
    async with SessionRows(database, "b1") as rows:
        for session_id, user, app in (("s0", "alice", "web"), ("s1", "bob", "web"), ("s2", "alice", "shop.front")):
            await begin(rows, session_id, user=user, container=container(app))
            await typed(database, session_id, user, f"{app}.worker.1", *TYPED[session_id])
    await typed(
        database, "s2", "alice", "shop.front.worker.1", "[unechoed input]", confidence="unechoed", degraded=True
    )
    await typed(database, "gone", "alice", "web.worker.1", "of a session that was removed")
    return Search(database)


async def lines(search: Search, filters: Filters | None = None, **more: Any) -> list[str]:
    return [row.content for row in await search.commands(filters or Filters(), **more)]


ALL = [*TYPED["s0"], *TYPED["s1"], *TYPED["s2"], "[unechoed input]"][::-1]


async def test_a_command_has_what_its_event_says_and_its_sessions_app(search: Search) -> None:
    (row,) = await search.commands(Filters(), like="cat /etc")
    assert (row.session_id, row.user, row.app_name, row.address) == ("s0", "alice", "web", "web.worker.1")
    assert (row.content, row.confidence, row.prompt, row.at, row.degraded) == (
        "cat /etc/passwd", "exact", "$ ", 1.0, False,
    )  # fmt: skip
    assert row.created_at.tzinfo is UTC
    assert datetime.now(UTC) - row.created_at < timedelta(minutes=5)


async def test_the_latest_first_each_once(search: Search) -> None:
    stored = [line.replace("\udc80", "\\udc80").replace("\0", "\\x00") for line in ALL]
    assert await lines(search) == stored
    assert await lines(search, limit=3) == stored[:3]
    pages, before = [], None
    while page := await search.commands(Filters(), limit=4, before=before):
        pages += [row.content for row in page]
        before = page[-1].command_id
    assert pages == stored


@pytest.mark.parametrize(
    ("like", "found"),
    [
        ("needle", ["NEEDLE=1 ls", "grep needle hay"]),
        ("rm -RF", ["Rm -rf /srv"]),
        ("ls", ["NEEDLE=1 ls", "ls", "ls -la"]),  # shorter than a trigram
        ("%", ["HOSTILE", "echo 100%"]),
        ("100%", ["echo 100%"]),
        ("%s_", ["HOSTILE"]),
        ("r_s", ["echo under_score"]),
        ("_", ["HOSTILE", "echo under_score"]),
        ('"quoted" \\', ["HOSTILE"]),
        ("'", ["HOSTILE"]),
        ("gr\u00dcn", ["HOSTILE"]),  # of a letter beyond ASCII only where the database knows it
        ("a*b ^c$", ["a*b ^c$"]),
        ("\x1b[2J\udc80\0", ["HOSTILE"]),
        ("needle OR ls", []),
        ("\\", ["HOSTILE"]),
    ],
)
async def test_a_part_of_the_line_is_taken_as_it_is_whatever_its_case(
    search: Search, like: str, found: list[str]
) -> None:
    stored = HOSTILE.replace("\udc80", "\\udc80").replace("\0", "\\x00")
    assert await lines(search, like=like) == [stored if line == "HOSTILE" else line for line in found]


async def test_filters(search: Search, database: AsyncEngine) -> None:
    assert await lines(search, Filters(user="bob"), like="ls") == ["ls"]
    assert await lines(search, Filters(app="shop.front"), like="needle") == ["NEEDLE=1 ls"]
    assert await lines(search, Filters(app="w%")) == []
    assert len(await lines(search, Filters(session="s0"))) == 5
    assert await lines(search, regex=r"^l+s( -la)?$") == ["ls", "ls -la"]
    assert await lines(search, confidence=["unechoed", "likely"]) == ["[unechoed input]"]
    assert await lines(search, Filters(apps={"shop.front"}), like="ls") == ["NEEDLE=1 ls"]
    assert await lines(search, Filters(apps=frozenset())) == []
    (row,) = await search.commands(Filters(), like="grep needle")
    later = row.created_at + timedelta(microseconds=1)
    assert "grep needle hay" not in await lines(search, Filters(since=later))
    assert await lines(search, Filters(since=row.created_at, until=later)) == ["grep needle hay"]
    assert await lines(search, Filters(user="alice", app="web", until=row.created_at), like="echo") == [
        "echo under_score",
        "echo 100%",
    ]


async def test_what_is_asked_wrongly_is_a_sentence(search: Search) -> None:
    with pytest.raises(BastionError, match=r"missing \)|parentheses"):
        await search.commands(Filters(), regex="(")
    with pytest.raises(BastionError, match="there is none of this id"):
        await search.commands(Filters(), before="nowhere")
    with pytest.raises(BastionError, match="no session begins with x"):
        await search.session("x\x1b[2J"[:1])


async def test_sessions(search: Search, database: AsyncEngine) -> None:
    await end(database, "s0", "ended")

    async def listed(filters: Filters | None = None, **more: Any) -> list[str]:
        return [row.session_id for row in await search.sessions(filters or Filters(), **more)]

    assert await listed() == ["s2", "s1", "s0"]
    assert await listed(limit=2) == ["s2", "s1"]
    assert await listed(limit=2, before="s1") == ["s0"]
    assert await listed(Filters(user="alice")) == ["s2", "s0"]
    assert await listed(Filters(user="alice"), active=True) == ["s2"]
    assert await listed(Filters(app="web")) == ["s1", "s0"]
    assert await listed(Filters(app="w%")) == []
    assert await listed(Filters(user="' OR 1=1 --")) == []
    assert await listed(Filters(apps={"web"})) == ["s1", "s0"]
    assert await listed(Filters(until=datetime.now(UTC) - timedelta(hours=1))) == []
    assert (await search.session("s1")).user == "bob"
    with pytest.raises(BastionError, match="several sessions begin with s"):
        await search.session("s")
    with pytest.raises(BastionError, match="no session begins with s2"):
        await search.session("s2", {"web"})
    with pytest.raises(BastionError, match="no session begins with s_"):
        await search.session("s_")


async def test_a_search_uses_the_index_of_the_text(search: Search, database: AsyncEngine) -> None:
    """Also where another filter has an index: the other way round, each row would be looked up in the text's."""
    if database.dialect.name == "postgresql":
        async with database.connect() as connection:
            await connection.execute(text("SET enable_seqscan = off"))
            found = await connection.execute(
                text("EXPLAIN SELECT * FROM commands WHERE content ILIKE '%' || 'needle' || '%' ESCAPE '/'")
            )
            assert "commands_content_trigrams" in "".join(found.scalars())
        return
    statement = "EXPLAIN QUERY PLAN SELECT * FROM commands_text CROSS JOIN commands WHERE commands_text MATCH 'needle'"
    statement += " AND commands.position = commands_text.rowid AND commands.user = 'alice'"
    async with database.connect() as connection:
        plan = [row[3] for row in await connection.execute(text(f"{statement} ORDER BY commands_text.rowid DESC"))]
    assert plan[0].startswith("SCAN commands_text VIRTUAL TABLE INDEX")
    assert plan[1].startswith("SEARCH commands USING INTEGER PRIMARY KEY")
    assert len(plan) == 2


async def test_an_index_of_the_text_forgets_what_is_deleted(search: Search, database: AsyncEngine) -> None:
    """By the operator: the bastion deletes nothing."""
    async with database.begin() as connection:
        await connection.execute(text("DELETE FROM commands WHERE session_id = 's1'"))
    assert await lines(search, like="needle") == ["NEEDLE=1 ls"]


async def test_a_database_without_trigrams_is_searched_all_the_same(search: Search, database: AsyncEngine) -> None:
    if database.dialect.name == "postgresql":
        async with database.begin() as connection:
            await connection.execute(text("DROP EXTENSION pg_trgm CASCADE"))
        assert await lines(search, like="needle") == ["NEEDLE=1 ls", "grep needle hay"]


async def test_no_tables(empty_database: Database) -> None:
    engine = create_engine(empty_database)
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable, match=r'unable to open database file|relation "sessions" does not exist'):
            await Search(engine).sessions(Filters())
    await engine.dispose()
