"""Every statement finds its rows by a key that leads with the owner and is bound as far as it can be, on every database.

The databases choose how to look by what they believe of their tables. So they are asked when they know nothing, when they have looked,
and, on PostgreSQL, for the one plan that a prepared statement keeps for whatever it is asked.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import actions
import cloning
import databases
import pytest
from actions import Executed
from sqlalchemy import Connection, Engine

from threadkeep import Memory, Session
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.schema import PREFIX, metadata

KEYS: Mapping[str, tuple[str, ...]] = {
    "owners": ("name", "id"),
    "sessions": ("owner_id name", "owner_id id", "owner_id updated_us"),
    "branches": ("owner_id id", "owner_id session_id"),
    "messages": ("owner_id branch_id seq", "owner_id branch_id cum_shown", "owner_id branch_id role seq", "owner_id branch_id key"),
    "pins": ("owner_id branch_id",),
    "terms": ("owner_id branch_id term seq",),
    "tags": ("owner_id branch_id tag seq",),
    "importances": ("owner_id branch_id seq",),
    "vectors": ("owner_id branch_id seq",),
    "summaries": ("owner_id branch_id recipe",),
    "turns": ("owner_id session_id id", "owner_id session_id user_seq"),
    "blobs": ("owner_id sha256",),
    "uses": ("owner_id branch_id seq", "owner_id sha256"),
    "calls": ("owner_id session_id",),
    "upkeep": ("owner_id branch_id",),
}
"""By table, the columns that are bound where it is entered: one of these, or more of the same key."""
WHOLE: Mapping[tuple[str, str], str] = {
    ("turn", "turns"): "owner_id session_id",  # the newest: the end of the key, and one row
    ("branch", "branches"): "owner_id session_id",  # the newest: the end of the key, and a page
    ("list_", "sessions"): "owner_id",  # the newest: the end of the key, and a page
    ("recall", "sessions"): "owner_id",  # all sessions of the owner, as asked
    ("find_nothing", "sessions"): "owner_id",  # the same
    ("recall", "branches"): "owner_id",  # with their branches
    ("find_nothing", "branches"): "owner_id",  # the same
    ("pay", "calls"): "",  # the sums of the owner, who made nearly all the calls there are
}
"""Where less is bound, by action and table."""
FEW = 20
ANALYSED_SQLITE: Mapping[tuple[str, str], str] = {
    ("recall", "vectors"): "owner_id branch_id",
    ("find_nothing", "vectors"): "owner_id branch_id",
    ("branch", "vectors"): "owner_id branch_id",
}
"""A few vectors of several sessions: once SQLite has counted, it reads those of the sessions named instead, if most sessions are short."""


class Access(NamedTuple):
    """How a plan enters one table."""

    table: str
    bound: frozenset[str]
    """The columns of the index that are bound; none: it is read from one end to the other."""
    how: str
    few: bool = False
    """That it is no more than `FEW` rows of a session, as MariaDB has found by a look into the index: then that is as good."""


def plan_of(connection: Connection, executed: Executed, *, generic: bool = False) -> list[Access]:
    """Its tables, as the database would enter them."""
    name = connection.dialect.name
    if name == "sqlite":
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {executed.statement}", executed.parameters)  # type: ignore[arg-type]
        return [access for row in rows if (access := _of_sqlite(row[3])) is not None]
    if name == "postgresql":
        return _of_postgresql(_postgresql_plan(connection, executed, generic=generic))
    explained = connection.exec_driver_sql(f"EXPLAIN FORMAT=JSON {executed.statement}", executed.parameters)  # type: ignore[arg-type]
    return list(_of_mariadb(json.loads(explained.scalar_one())))


def _of_sqlite(step: str) -> Access | None:
    found = re.match(rf"(SEARCH|SCAN) {PREFIX}(\w+)(.*)", step)
    if found is None:
        return None
    return Access(found[2], frozenset(re.findall(r"(\w+)[<>=]", found[3])), step)


def _postgresql_plan(connection: Connection, executed: Executed, *, generic: bool) -> Any:
    if not generic:
        explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {executed.statement}", executed.parameters)  # type: ignore[arg-type]
        return explained.scalar_one()[0]["Plan"]
    assert isinstance(executed.parameters, dict)
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    statement = re.sub(r"%\((\w+)\)s", numbered, executed.statement)
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE kept AS {statement}")
    values = ", ".join(_literal(executed.parameters[name]) for name in names)
    explained = connection.exec_driver_sql(
        f"EXPLAIN (FORMAT JSON) EXECUTE kept({values})" if names else "EXPLAIN (FORMAT JSON) EXECUTE kept"
    )
    plan = explained.scalar_one()[0]["Plan"]
    connection.exec_driver_sql("DEALLOCATE kept")
    return plan


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_literal, value))}]"
    if value is None or isinstance(value, int | float):
        return "NULL" if value is None else str(value)
    return "'" + str(value).replace("'", "''").replace("%", "%%") + "'"


def _of_postgresql(node: Mapping[str, Any]) -> list[Access]:
    found: list[Access] = []
    below = [access for child in node.get("Plans", ()) for access in _of_postgresql(child)]
    kind = node["Node Type"]
    if kind in ("Index Scan", "Index Only Scan", "Seq Scan", "Bitmap Heap Scan"):
        table = node["Relation Name"].removeprefix(PREFIX)
        condition = node.get("Index Cond", "") if kind != "Bitmap Heap Scan" else _bitmaps(node)
        how = f"{kind} {node.get('Index Name', '')} {condition}; filter {node.get('Filter')}"
        found.append(Access(table, frozenset(re.findall(r"\(+(?:\w+\.)?\"?(\w+)\"?\)?(?:::\w+)? (?:=|<|>|<=|>=|IS)", condition)), how))
    return found + below


def _bitmaps(node: Mapping[str, Any]) -> str:
    return " AND ".join(child.get("Index Cond", "") for child in node.get("Plans", ()) if child["Node Type"] == "Bitmap Index Scan")


def _of_mariadb(node: Any) -> Iterator[Access]:
    if isinstance(node, list):
        for child in node:
            yield from _of_mariadb(child)
    elif isinstance(node, dict):
        name = node.get("table_name")
        if isinstance(name, str) and name.startswith(PREFIX):
            how = f"{node['access_type']} {node.get('key')} {node.get('used_key_parts')} rows {node.get('rows')}"
            whole = node["access_type"] in ("ALL", "index")
            bound = frozenset(() if whole else node.get("used_key_parts", ()))
            yield Access(name.removeprefix(PREFIX), bound, how, len(bound) > 1 and node.get("rows", FEW + 1) <= FEW)
        for child in node.values():
            yield from _of_mariadb(child)


def strange(
    connection: Connection, seen: list[Executed], *, generic: bool = False, less: Mapping[tuple[str, str], str] = WHOLE
) -> list[str]:
    """What enters a table otherwise than it should."""
    found = []
    for executed in seen:
        for access in plan_of(connection, executed, generic=generic) if executed.kind != "INSERT" else ():
            allowed = [set(columns.split()) for columns in KEYS[access.table]]
            if (executed.action, access.table) in less:
                allowed.append(set(less[executed.action, access.table].split()))
            if executed.action == "delete":
                allowed.append({"owner_id"})
            if not access.few and not any(columns <= access.bound for columns in allowed):
                found.append(f"{executed.action}: {access.table} by {sorted(access.bound)} ({access.how}): {executed.statement}")
    return found


class Crowd(NamedTuple):
    """A database of many owners, most of them with little, and one with a long session, many turns in another, and many sessions."""

    engine: Engine
    seen: list[Executed]
    """Every statement of all actions, of the one."""


@pytest.fixture(scope="module", params=("sqlite", *databases.KINDS))
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """As the database sees it that looked when its tables were empty."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'chat.db'}" if sqlite else databases.new_database(request.param)
    with pytest.MonkeyPatch.context() as patch, actions.opened(str(url)) as memory:
        patch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
        memory.store.migrate()
        with memory.store.engine.begin() as connection:
            cloning.analyse(connection)
        session = memory.session("chat", owner="ada")
        actions.fill(session)
        small(memory.session("small", owner="ada"))
        memory.session("turns", owner="ada").chat("Well?")
        small(memory.session("chat", owner="bob"))
        seen = actions.executed(memory, session)
        grow(memory)
        yield Crowd(memory.store.engine, seen)


def small(session: Session) -> None:
    """A little of everything."""
    session.append("Hello, parcel.", "Which train?", metadata={"tags": ["fact"], "importance": 0.9}, key="k")
    session.append(*(f"the hen and the {word} " * 40 for word in ("boat", "rain", "wind")))
    session.pin(1)
    session.chat("Well?")
    session.upkeep()


def grow(memory: Memory) -> None:
    def row(owner: str, name: str) -> SessionRow:
        found = memory.store.session(owner, name)
        assert found is not None
        return found

    with memory.store.engine.begin() as connection:
        cloning.draw_out(connection, row("ada", "chat"), 8)
        cloning.draw_out(connection, row("ada", "turns"), 1500)
        cloning.copy_session(connection, row("ada", "small"), 60)
        cloning.copy_owner(connection, row("bob", "chat").owner_id, 2000)


def analysed(crowd: Crowd) -> Engine:
    with crowd.engine.begin() as connection:
        cloning.analyse(connection)
    crowd.engine.dispose()  # SQLite reads the statistics when a connection opens
    return crowd.engine


def test_no_statement_reads_another_owners_rows_where_nothing_was_counted_yet(crowd: Crowd) -> None:
    """A server may read more of the owner then, since it believes that nobody has much. SQLite finds each row by its key."""
    of_owner = {(action, table): "owner_id" for action in actions.ACTIONS for table in KEYS if table != "owners"} | {("pay", "calls"): ""}
    with crowd.engine.connect() as connection:
        name = connection.dialect.name
        assert strange(connection, crowd.seen, less=WHOLE if name == "sqlite" else of_owner) == []
        if name == "postgresql":
            assert strange(connection, crowd.seen, less=of_owner, generic=True) == []


def test_every_statement_finds_its_rows_by_its_key(crowd: Crowd) -> None:
    with analysed(crowd).connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        assert strange(connection, crowd.seen, less={**WHOLE, **(ANALYSED_SQLITE if sqlite else {})}) == []


def test_a_prepared_statement_finds_its_rows_by_its_key_whoever_it_is_asked_for(crowd: Crowd) -> None:
    if crowd.engine.dialect.name != "postgresql":
        pytest.skip("it alone keeps one plan for all values")
    with analysed(crowd).connect() as connection:
        assert strange(connection, crowd.seen, generic=True) == []


def test_no_table_is_left_out(crowd: Crowd) -> None:
    with crowd.engine.connect() as connection:
        entered = {access.table for executed in crowd.seen if executed.kind != "INSERT" for access in plan_of(connection, executed)}
    assert entered == set(KEYS) == {table.name.removeprefix(PREFIX) for table in metadata.sorted_tables}
    assert len(crowd.seen) > 90
