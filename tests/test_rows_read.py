"""What one turn reads and writes is in proportion to its context and to what is new, however long the session is."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cloning
import databases
import pytest
from sqlalchemy import Connection, create_engine, event

from threadkeep import Budget, Memory, Message, Session, SlidingWindow, SQLStore, TiktokenCounter, ToolCall

BUDGET = Budget(700, reply=100)
INDEXES = {
    "owners": [r"INDEX sqlite_autoindex_threadkeep_owners_\d+ \(name=\?\)"],
    "sessions": [
        r"INDEX uq_threadkeep_sessions_name \(owner_id=\? AND name=\?\)",
        r"INDEX sqlite_autoindex_threadkeep_sessions_\d+ \(owner_id=\? AND id=\?\)",
    ],
    "branches": [r"INDEX sqlite_autoindex_threadkeep_branches_\d+ \(owner_id=\? AND id=\?\)"],
    "messages": [
        r"INDEX sqlite_autoindex_threadkeep_messages_\d+ \(owner_id=\? AND branch_id=\? AND seq(=\?|>\? AND seq<\?)\)",
        r"INDEX ix_threadkeep_messages_shown \(owner_id=\? AND branch_id=\? AND cum_shown>\? AND cum_shown<\?\)",
        r"INDEX uq_threadkeep_messages_key \(owner_id=\? AND branch_id=\? AND key=\?\)",
    ],
    "pins": [r"PRIMARY KEY \(owner_id=\? AND branch_id=\?\)"],
    "turns": [
        r"(COVERING )?INDEX sqlite_autoindex_threadkeep_turns_\d+ \(owner_id=\? AND session_id=\?( AND id=\?)?\)( LEFT-JOIN)?",
        r"INDEX ix_threadkeep_turns_branch \(owner_id=\? AND session_id=\? AND user_seq=\? AND branch_id=\?\)",
    ],
    "uses": [
        r"PRIMARY KEY \(owner_id=\? AND branch_id=\? AND seq=\? AND sha256=\?\)",
        r"COVERING INDEX ix_threadkeep_uses_blob \(owner_id=\? AND sha256=\? AND branch_id=\? AND seq=\?\)",
    ],
    "blobs": [r"(COVERING )?INDEX sqlite_autoindex_threadkeep_blobs_\d+ \(owner_id=\? AND sha256=\?\)"],
}
"""By table, how a turn may reach its rows: by a key that leads with the owner, bounded to what it wants."""


def turn(session: Session) -> None:
    """All that may happen in a turn: tools, drafts, a key, a retry, a pin before and one after."""
    with session.turn("Where is the parcel?", key="k", instructions="You help.") as held:
        assert held.request
        held.draft("It is")
    with session.turn("Where is the parcel?", key="k", instructions="You help.") as held:
        assert held.request
        held.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("in the shed", tool_call_id="a"))
        assert held.request
        held.finish("It is in the shed.")
    with session.turn("Where is the parcel?", key="k") as again:
        assert again.reply is not None
    session.context("And where is the shed?")
    session.context(as_of=held)
    session.append("By the way.", key="aside")
    session.entries(after=2, limit=3)


@contextmanager
def filled(url: str | SQLStore, counter: TiktokenCounter, messages: int) -> Iterator[tuple[Memory, Session]]:
    """A session of so many messages, a pin among them, and some of other sessions and owners beside it."""
    with Memory(url, counter=counter, budget=BUDGET, strategy=SlidingWindow()) as memory:
        for number in range(40):
            memory.session(f"session {number % 4}", owner=f"owner {number // 4}").append("a message", "and another", key="k")
        session = memory.session("chat", owner="ada")
        for first in range(0, messages, 500):
            session.append(*(f"message {number} about a parcel" for number in range(first, min(first + 500, messages))))
        session.pin(2)
        yield memory, session


@contextmanager
def statements(memory: Memory) -> Iterator[list[tuple[str, tuple[object, ...]]]]:
    """What is executed meanwhile, with one set of its parameters."""
    seen: list[tuple[str, tuple[object, ...]]] = []

    def note(_1: object, _2: object, statement: str, parameters: object, _3: object, many: bool) -> None:
        first = parameters[0] if many and isinstance(parameters, list) else parameters
        assert isinstance(first, tuple)
        seen.append((statement, first))

    event.listen(memory.store.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(memory.store.engine, "before_cursor_execute", note)


def plan(connection: Connection, statement: str, parameters: tuple[object, ...]) -> list[str]:
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]


@pytest.mark.parametrize("analysed", [False, True], ids=["before ANALYZE", "after ANALYZE"])
@pytest.mark.parametrize("messages", [10, 3000])
def test_every_statement_of_a_turn_finds_its_rows_by_the_key_it_should(
    url: str, counter: TiktokenCounter, monkeypatch: pytest.MonkeyPatch, messages: int, analysed: bool
) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    reached: dict[str, set[str]] = defaultdict(set)
    strange = []
    with filled(url, counter, messages) as (memory, session):
        if analysed:
            with memory.store.engine.begin() as connection:
                connection.exec_driver_sql("ANALYZE")
            memory.store.engine.dispose()  # a connection reads the statistics when it opens
        with statements(memory) as seen:
            turn(session)
        with memory.store.engine.connect() as connection:
            for statement, parameters in dict(seen).items():
                if statement.split()[0] in ("BEGIN", "PRAGMA") or statement.startswith("INSERT"):
                    continue
                for step in plan(connection, statement, parameters):
                    found = re.fullmatch(r"SEARCH threadkeep_(\w+) USING (.+)", step)
                    if found and any(re.fullmatch(allowed, found[2]) for allowed in INDEXES[found[1]]):
                        reached[found[1]].add(found[2])
                    elif "SUBQUERY" not in step:  # its own steps follow
                        strange.append(f"{step}: {statement}")
    assert strange == []
    whole = messages == 10  # then neither pins nor a window are looked for
    assert reached.keys() == INDEXES.keys() - ({"pins"} if whole else set())
    assert any("_shown" in index for index in reached["messages"]) != whole


def work_of(memory: Memory, action: Callable[[], object]) -> int:
    """How many instructions SQLite's machine runs for it, in tens."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def count(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(step, 10)

    event.listen(memory.store.engine, "checkout", count)
    try:
        action()
    finally:
        event.remove(memory.store.engine, "checkout", count)
    return steps


def test_a_turn_costs_the_same_in_a_session_ten_times_as_long(
    url: str, counter: TiktokenCounter, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    costs = []
    for messages in (300, 3000):
        with filled(f"sqlite:///{tmp_path_factory.mktemp('chat')}/chat.db", counter, messages) as (memory, session):
            costs.append(work_of(memory, lambda: turn(session)))  # called at once
    assert costs[0] > 100
    assert costs[1] <= 1.2 * costs[0]


def rows_read(memory: Memory, action: Callable[[], object]) -> int:
    """How many rows a server reads for it, of tables and of indexes; the memory has one connection."""

    def read() -> int:
        with memory.store.engine.connect() as connection:
            if connection.dialect.name != "postgresql":
                return sum(int(row[1]) for row in connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler\\_read\\_%%'"))
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
            connection.commit()
            tables = connection.exec_driver_sql("SELECT sum(seq_tup_read) FROM pg_stat_user_tables").scalar_one()
            return int(tables + connection.exec_driver_sql("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes").scalar_one())

    before = read()
    action()
    return read() - before


def test_a_server_reads_the_same_for_a_turn_in_a_session_ten_times_as_long(
    server: databases.Kind, counter: TiktokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    costs = []
    for messages in (150, 1500):
        engine = create_engine(databases.clean_database(server), pool_size=1, max_overflow=0)
        with filled(SQLStore(engine), counter, messages) as (memory, session):
            with engine.begin() as connection:
                cloning.analyse(connection)
            costs.append(rows_read(memory, lambda: turn(session)))  # called at once
        engine.dispose()
    assert costs[0] > 100
    assert costs[1] <= 1.2 * costs[0]


def test_a_page_reads_no_more_than_it_returns(url: str, counter: TiktokenCounter) -> None:
    with filled(url, counter, 3000) as (memory, session):
        small = work_of(memory, lambda: session.entries(after=100, limit=10))
        assert work_of(memory, lambda: session.entries(after=2900, limit=10)) <= 1.2 * small
        assert work_of(memory, lambda: session.entries(after=100, limit=1000)) > 5 * small


def test_a_page_of_sessions_reads_no_more_than_it_returns(memory: Memory) -> None:
    for number in range(120):
        memory.session(f"session {number}").append("hello")
    seen: list[str] = []

    def page() -> None:
        seen.extend(listed.name for listed in memory.sessions(after=seen[-1] if seen else None, limit=10))

    costs = [work_of(memory, page) for _ in range(12)]
    assert seen == [f"session {number}" for number in reversed(range(120))]
    assert max(costs[1:]) <= 1.3 * min(costs[1:])
