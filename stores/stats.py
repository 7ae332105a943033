"""How much there is: rows and bytes by table, sessions, tokens, and who has most. Over all owners, for who runs the database, or of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import OperationalError

from threadkeep.memory.errors import NotFound
from threadkeep.memory.history import moment
from threadkeep.stores import queries
from threadkeep.stores.schema import PREFIX, branches, messages, metadata, owners, sessions
from threadkeep.stores.sql import SQLStore

LARGEST = 5


@dataclass(frozen=True, slots=True)
class Large:
    """A session that has much."""

    owner: str
    session: str
    entries: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Stats:
    """How much there is."""

    database: str
    """Its kind and version."""
    bytes: int | None
    """On disk, everything of the database; None of one owner."""
    rows: Mapping[str, int]
    """By table."""
    table_bytes: Mapping[str, int]
    """By table, indexes included; empty where the database does not say."""
    tokens: int
    """Of all entries, each once."""
    first: datetime | None
    last: datetime | None
    """When the first entry was said, and the last."""
    largest: tuple[Large, ...]
    """The sessions with the most entries."""


def measure(store: SQLStore, owner: str | None = None) -> Stats:
    """Count everything, or everything of one owner. It reads each table's keys once.

    Raises:
        NotFound: there is no such owner.
    """
    with store.read("counting what there is") as connection:
        owner_id = None
        if owner is not None and (owner_id := queries.find_owner(connection, owner)) is None:
            raise NotFound(f"there is no owner {owner!r} here")
        tokens, first, last = _entries(connection, owner_id)
        rows = {table.name.removeprefix(PREFIX): _count(connection, table.name, owner_id) for table in metadata.sorted_tables}
        return Stats(
            _database(connection),
            _bytes(connection) if owner is None else None,
            rows,
            _table_bytes(connection) if owner is None else {},
            tokens,
            first,
            last,
            _largest(connection, owner_id),
        )


def _count(connection: Connection, name: str, owner_id: int | None) -> int:
    table = metadata.tables[name]
    counted = select(func.count()).select_from(table)
    if owner_id is not None:
        counted = counted.where((table.c.id if table is owners else table.c.owner_id) == owner_id)
    return connection.execute(counted).scalar_one()


def _entries(connection: Connection, owner_id: int | None) -> tuple[int, datetime | None, datetime | None]:
    summed = select(func.sum(messages.c.tokens), func.min(messages.c.created_us), func.max(messages.c.created_us))
    tokens, first, last = connection.execute(summed if owner_id is None else summed.where(messages.c.owner_id == owner_id)).one()
    return int(tokens or 0), None if first is None else moment(first), None if last is None else moment(last)


def _largest(connection: Connection, owner_id: int | None) -> tuple[Large, ...]:
    found = (
        select(owners.c.name, sessions.c.name, branches.c.head_seq, branches.c.head_tokens)
        .join_from(sessions, branches, (branches.c.owner_id == sessions.c.owner_id) & (branches.c.id == sessions.c.active_branch))
        .join(owners, owners.c.id == sessions.c.owner_id)
        .order_by(branches.c.head_seq.desc(), owners.c.name, sessions.c.name)
        .limit(LARGEST)
    )
    return tuple(Large(*row) for row in connection.execute(found if owner_id is None else found.where(sessions.c.owner_id == owner_id)))


def _database(connection: Connection) -> str:
    kind = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}.get(connection.dialect.name, "MariaDB or MySQL")
    asked = "SELECT sqlite_version()" if kind == "SQLite" else "SHOW server_version" if kind == "PostgreSQL" else "SELECT version()"
    return f"{kind} {connection.execute(text(asked)).scalar_one()}"


def _bytes(connection: Connection) -> int:
    match connection.dialect.name:
        case "sqlite":
            statement = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        case "postgresql":
            statement = "SELECT pg_database_size(current_database())"
        case _:
            statement = "SELECT sum(data_length + index_length) FROM information_schema.tables WHERE table_schema = database()"
    return int(connection.execute(text(statement)).scalar() or 0)


def _table_bytes(connection: Connection) -> dict[str, int]:
    match connection.dialect.name:
        case "sqlite":
            statement = "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name GROUP BY m.tbl_name"
        case "postgresql":
            statement = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
        case _:
            statement = "SELECT table_name, data_length + index_length FROM information_schema.tables WHERE table_schema = database()"
    try:
        found = connection.execute(text(statement)).all()
    except OperationalError:  # not every SQLite is built with dbstat
        return {}
    return {name.removeprefix(PREFIX): int(size or 0) for name, size in found if name in metadata.tables}
