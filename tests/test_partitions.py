"""Every statement names the owner whose rows it touches, for each table in it: so each stays in one partition, where tables are cut."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from types import ModuleType

import actions
import databases
import pytest
import sqlglot
from actions import Executed
from sqlalchemy import Connection, create_engine
from sqlglot import exp

from threadkeep import Memory
from threadkeep.stores import (
    blob_queries,
    branch_queries,
    index_queries,
    ledger,
    queries,
    selecting,
    summary_queries,
    turn_queries,
    upkeep_queries,
    vector_queries,
)
from threadkeep.stores.doctor import examine
from threadkeep.stores.jobs import Jobs
from threadkeep.stores.schema import PREFIX, metadata
from threadkeep.stores.stats import measure

STATEMENTS: tuple[ModuleType, ...] = (
    blob_queries,
    branch_queries,
    index_queries,
    ledger,
    queries,
    selecting,
    summary_queries,
    turn_queries,
    upkeep_queries,
    vector_queries,
)
"""Where the functions stand that execute statements."""
OWNERS = PREFIX + "owners"
EVERYBODY: Mapping[str, Callable[[Memory], object]] = {
    "upkeep of all sessions": lambda memory: memory.upkeep(),
    "the jobs of all sessions": lambda memory: Jobs(memory.store).status(None, 10),
    "how many sessions are behind": lambda memory: Jobs(memory.store).count_behind(["embed:x"], None),
    "doctor": lambda memory: list(examine(memory.store)),
    "stats": lambda memory: measure(memory.store),
}
"""What is asked about all owners, by who runs the database."""


# What a statement binds.


def unbound(statement: str, dialect: str) -> list[str]:
    """The tables of a statement that are not bound to one owner."""
    (tree,) = sqlglot.parse(re.sub(r"%\(\w+\)s|%s|\?", ":p", statement), read=dialect)
    assert tree is not None
    if isinstance(tree, exp.Insert):
        columns = [column.name for column in tree.this.expressions]
        rows = tree.expression.expressions
        whole = all(_is_bound(row.expressions[columns.index("owner_id")]) for row in rows) if "owner_id" in columns else False
        return [] if whole or tree.this.this.name == OWNERS else [tree.this.this.name]
    return [name for scope in tree.find_all(exp.Select, exp.Update, exp.Delete) for name in _unbound_in(scope)]


def _unbound_in(scope: exp.Expr) -> Iterator[str]:
    """Those that this SELECT, UPDATE or DELETE names itself."""
    known = _owners_known(scope)
    for alias, table in _tables(scope).items():
        if table == OWNERS:
            by = [condition for condition in _conditions(scope) if _side(condition, alias, "name") or _side(condition, alias, "id")]
            if not any(
                _is_bound(value) or (_owner_of(value) or ()) in known for condition in by for value in (condition.left, condition.right)
            ):
                yield table
        elif (id(scope), alias) not in known:
            yield f"{table} AS {alias}"


def _owners_known(scope: exp.Expr) -> set[tuple[int, str]]:
    """The tables here and around, by where they stand and their alias, of which the owner is a value that was given."""
    known: set[tuple[int, str]] = set()
    equal: list[tuple[tuple[int, str], tuple[int, str]]] = []
    here: exp.Expr | None = scope
    while here is not None:
        for condition in _conditions(here):
            left, right = _owner_of(condition.left), _owner_of(condition.right)
            if left and right:
                equal.append((left, right))
            elif left and _is_bound(condition.right):
                known.add(left)
            elif right and _is_bound(condition.left):
                known.add(right)
        here = here.find_ancestor(exp.Select, exp.Update, exp.Delete)
    grown = True
    while grown:
        more = {two for one, two in equal if one in known} | {one for one, two in equal if two in known}
        grown, known = not more <= known, known | more
    return known


def _tables(scope: exp.Expr) -> dict[str, str]:
    """By alias."""
    if isinstance(scope, exp.Select):
        sources = [scope.args.get("from_") or scope.args.get("from"), *scope.args.get("joins", ())]
        tables = [source.this for source in sources if source is not None and isinstance(source.this, exp.Table)]
    else:
        tables = [scope.this]
    return {table.alias_or_name: table.name for table in tables if table.name.startswith(PREFIX)}


def _conditions(scope: exp.Expr) -> Iterator[exp.EQ]:
    """The equalities that every row meets: parts of WHERE and ON that are joined by AND; of an outer join, none but those of its table."""
    places = [scope.args.get("where"), *(join.args.get("on") for join in scope.args.get("joins", ()))]
    for place in places:
        whole = place.this if isinstance(place, exp.Where) else place
        for part in whole.flatten() if isinstance(whole, exp.And) else [whole]:
            if isinstance(part, exp.EQ):
                yield part


def _side(condition: exp.EQ, alias: str, column: str) -> bool:
    return any(isinstance(side, exp.Column) and (side.table, side.name) == (alias, column) for side in (condition.left, condition.right))


def _owner_of(value: exp.Expr) -> tuple[int, str] | None:
    """Whose owner_id this is: where the table stands, and its alias. For `owners`, that is its id."""
    if not isinstance(value, exp.Column):
        return None
    scope = value.find_ancestor(exp.Select, exp.Update, exp.Delete)
    while scope is not None:
        table = _tables(scope).get(value.table)
        if table is not None:
            return (id(scope), value.table) if value.name == ("id" if table == OWNERS else "owner_id") else None
        scope = scope.find_ancestor(exp.Select, exp.Update, exp.Delete)
    return None


def _is_bound(value: exp.Expr) -> bool:
    """A value that was given, or the number of the owner of a name that was given."""
    if isinstance(value, exp.Cast):
        return _is_bound(value.this)
    if isinstance(value, exp.Subquery) and isinstance(value.this, exp.Select):
        return list(_tables(value.this).values()) == [OWNERS] and [one.name for one in value.this.selects] == ["id"]
    return isinstance(value, exp.Placeholder | exp.Parameter)


@pytest.mark.parametrize(
    ("statement", "forgotten"),
    [
        ("SELECT a FROM threadkeep_pins WHERE owner_id > ?", ["threadkeep_pins AS threadkeep_pins"]),
        ("SELECT p.a FROM threadkeep_pins AS p WHERE p.owner_id = ? OR p.seq = ?", ["threadkeep_pins AS p"]),
        ("SELECT p.a FROM threadkeep_pins AS p WHERE p.owner_id = ?", []),
        ("SELECT p.a FROM threadkeep_pins AS p JOIN threadkeep_tags AS t ON t.seq = p.seq WHERE p.owner_id = ?", ["threadkeep_tags AS t"]),
        ("SELECT p.a FROM threadkeep_pins AS p JOIN threadkeep_tags AS t ON t.owner_id = p.owner_id WHERE p.owner_id = ?", []),
        ("SELECT p.a FROM threadkeep_pins AS p JOIN threadkeep_tags AS t ON t.owner_id = p.owner_id", None),
        (
            "SELECT p.a FROM threadkeep_pins AS p WHERE p.owner_id = ? AND (SELECT t.a FROM threadkeep_tags AS t WHERE t.seq = p.seq) = 1",
            ["threadkeep_tags AS t"],
        ),
        (
            "SELECT a FROM threadkeep_pins p WHERE p.owner_id = ? AND (SELECT a FROM threadkeep_tags t WHERE t.owner_id = p.owner_id) > 1",
            [],
        ),
        ("SELECT p.a FROM threadkeep_pins AS p WHERE p.owner_id = (SELECT o.id FROM threadkeep_owners AS o WHERE o.name = ?)", []),
        ("SELECT p.a FROM threadkeep_pins AS p WHERE p.owner_id = (SELECT o.id FROM threadkeep_owners AS o)", [OWNERS]),
        ("SELECT p.a FROM threadkeep_pins AS p WHERE p.owner_id = (SELECT max(t.owner_id) FROM threadkeep_tags AS t)", None),
        ("DELETE FROM threadkeep_pins WHERE threadkeep_pins.seq = ?", ["threadkeep_pins AS threadkeep_pins"]),
        ("UPDATE threadkeep_pins SET owner_id = ? WHERE threadkeep_pins.seq = ?", ["threadkeep_pins AS threadkeep_pins"]),
        ("INSERT INTO threadkeep_pins (seq) VALUES (?)", ["threadkeep_pins"]),
        ("INSERT INTO threadkeep_pins (owner_id, seq) VALUES (1 + 1, ?)", ["threadkeep_pins"]),
        ("INSERT INTO threadkeep_pins (owner_id, seq) VALUES (?, ?)", []),
    ],
)
def test_a_statement_that_forgets_its_owner_is_found(statement: str, forgotten: list[str] | None) -> None:
    found = unbound(statement, "sqlite")
    assert found == forgotten if forgotten is not None else found


# Every statement there is.


@pytest.mark.parametrize("kind", ["sqlite", *databases.KINDS])
def test_every_table_of_every_statement_is_bound_to_one_owner(kind: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    uncalled = _note_calls(monkeypatch)
    with actions.opened(url if kind == "sqlite" else databases.clean_database(kind)) as memory:  # type: ignore[arg-type]
        session, seen = memory.session("chat", owner="ada"), list[Executed]()
        assert memory.sessions() == []  # the version of the tables is asked for once
        with actions.noted(memory.store.engine, "fill", seen):
            actions.fill(session, 60)
        seen += actions.executed(memory, session)
    dialect = {"postgresql": "postgres", "mariadb": "mysql"}.get(kind, kind)
    assert {one.statement: tables for one in seen if (tables := unbound(one.statement, dialect))} == {}
    assert {table.name for table in metadata.sorted_tables} <= {name for one in seen for name in re.findall(rf"{PREFIX}\w+", one.statement)}
    assert uncalled == {"upkeep_queries.list_jobs", "upkeep_queries.count_behind"}, "no action comes by there; of the two, see below"


def _note_calls(patch: pytest.MonkeyPatch) -> set[str]:
    """The functions that are handed a connection, but for those that have been called since."""
    uncalled: set[str] = set()

    def noting(function: Callable[..., object], name: str) -> Callable[..., object]:
        uncalled.add(name)

        @wraps(function)
        def called(*given: object, **more: object) -> object:
            uncalled.discard(name)
            return function(*given, **more)

        return called

    noted = {
        function: noting(function, f"{module.__name__.rpartition('.')[2]}.{name}")
        for module in STATEMENTS
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_") and "connection" in inspect.signature(function).parameters
    }
    for module in [module for name, module in sys.modules.items() if name.startswith("threadkeep.")]:
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value in noted:
                patch.setattr(module, name, noted[value])
    return uncalled


@pytest.mark.parametrize("asked", EVERYBODY)
def test_what_is_asked_about_everybody_is_known(url: str, asked: str) -> None:
    seen: list[Executed] = []
    with actions.opened(url) as memory:
        memory.session("chat").append("Hello")
        with actions.noted(memory.store.engine, asked, seen):
            EVERYBODY[asked](memory)
    assert any(unbound(one.statement, "sqlite") for one in seen)


def test_the_jobs_of_one_owner_are_asked_for_by_the_owner(url: str) -> None:
    seen: list[Executed] = []
    with actions.opened(url) as memory:
        memory.session("chat").append("Hello")
        with actions.noted(memory.store.engine, "status", seen):
            Jobs(memory.store).status("ada", 10)
            Jobs(memory.store).count_behind(["embed:x"], "ada")
    assert len(seen) == 2
    assert [unbound(one.statement, "sqlite") for one in seen] == [[], []]


# Tables that are cut.


def test_every_statement_touches_one_partition_of_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    url = databases.new_database("postgresql")
    cut, told = re.findall(r"```sql\n(DO .*?)```", Path("docs/distributed_postgresql.md").read_text(), re.DOTALL)
    with actions.opened(str(url)) as memory:
        memory.store.migrate()
        admin = create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(cut.replace("%", "%%"))
        session = memory.session("chat", owner="ada")
        for owner in ("bob", "eve", "joe", "zoe"):
            memory.session("chat", owner=owner).append("Hello", "parcel")
        actions.fill(session, 60)
        with admin.connect() as connection:
            for statement in told.split("$$;")[0] + "$$;", "ANALYZE":
                connection.exec_driver_sql(statement.replace("%", "%%"))
        admin.dispose()
        seen = actions.executed(memory, session)
        with memory.store.engine.connect() as connection:
            touched = {one.statement: _parts(connection, one) for one in seen if one.kind != "INSERT"}
    assert {statement: parts for statement, parts in touched.items() if len(parts) > 1} == {}
    assert sum(len(parts) == 1 for parts in touched.values()) > 60


def _parts(connection: Connection, executed: Executed) -> set[str]:
    """The numbers of the partitions that were entered when it ran."""
    with connection.begin() as transaction:
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {executed.statement}", executed.parameters)  # type: ignore[arg-type]
        (plan,) = explained.scalar_one()
        transaction.rollback()
    found: set[str] = set()

    def look(node: Mapping[str, object]) -> None:
        part = re.search(r"_p(\d+)$", str(node.get("Relation Name", "")))
        if part is not None and node["Actual Loops"] and node["Node Type"] != "ModifyTable":
            found.add(part[1])
        below = node.get("Plans", [])
        assert isinstance(below, list)
        for child in below:
            look(child)

    look(plan["Plan"])
    return found
