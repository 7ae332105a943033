"""Makes a database large within seconds: the database itself copies rows that the store has written, under other ids.

A copied owner is a whole owner, a copied session a whole session, and a session that was drawn out has the running totals, groups, terms
and turns that appends would have given it. Only keys are left out, since each names one message.
"""

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    String,
    Table,
    and_,
    cast,
    func,
    insert,
    literal,
    null,
    select,
    update,
)

from threadkeep.stores.queries import SessionRow
from threadkeep.stores.schema import branches, calls, messages, metadata, owners, sessions, turns, vectors

Changed: TypeAlias = dict[str, Callable[[Any, ColumnElement[int]], ColumnElement[Any]]]
"""What the copy of number n has in some columns, from the original's value and n."""
PAGE = 200_000
"""Rows, roughly, that one statement writes."""
A_MILLISECOND = 2**21
"""In the ids that are given with time."""


def copy_owner(connection: Connection, owner_id: int, copies: int) -> None:
    """So many owners more, each with all that this one has: `ada 1`, `ada 2`, …"""
    for table in metadata.sorted_tables:
        own = table.c.id if table is owners else table.c.owner_id
        changed: Changed = {own.name: _plus, **({"name": _named} if table is owners else {})}
        _copy(connection, table, own == owner_id, copies, changed)


def copy_session(connection: Connection, session: SessionRow, copies: int) -> None:
    """So many sessions more of the same owner, each with all that this one has: `chat 1`, `chat 2`, …"""
    of_session = select(branches.c.id).where(branches.c.owner_id == session.owner_id, branches.c.session_id == session.id)
    branch_ids = connection.execute(of_session).scalars().all()
    for table in metadata.sorted_tables:
        if table is sessions:
            where: ColumnElement[bool] = table.c.id == session.id
            changed: Changed = {"id": _plus, "active_branch": _plus, "name": _named, "updated_us": _plus}
        elif "session_id" in table.c:
            where = table.c.session_id == session.id
            changed = {"session_id": _plus, **{name: _plus for name in ("branch_id",) if name in table.c}}
            changed = changed if table is turns else {**changed, "id": _plus}
        elif "branch_id" in table.c:
            where, changed = table.c.branch_id.in_(branch_ids), {"branch_id": _plus}
        else:
            continue
        _copy(connection, table, and_(table.c.owner_id == session.owner_id, where), copies, changed)


def draw_out(connection: Connection, session: SessionRow, times: int, *, without: Collection[Table] = ()) -> None:
    """The session so many times as long, its log said again and again; it has one branch, and whole turns."""
    head, copies = session.head, times - 1

    def later(by: int) -> Callable[[Any, ColumnElement[int]], ColumnElement[Any]]:
        return lambda column, number: column + number * by

    def none(column: Any, number: ColumnElement[int]) -> ColumnElement[Any]:
        return null()

    def newest(table: Table) -> int:
        of_session = and_(table.c.owner_id == session.owner_id, table.c.session_id == session.id)
        return connection.execute(select(func.max(table.c.id)).where(of_session)).scalar() or 0

    turn_count = newest(turns)
    for table in metadata.sorted_tables:
        if table in (branches, *without) or ("seq" not in table.c and table not in (turns, calls)):
            continue
        if table in (turns, calls):
            where = and_(table.c.session_id == session.id, table.c.id <= newest(table))  # of the originals, copies there may be already
            changed: Changed = {"id": later(turn_count if table is turns else A_MILLISECOND)}
            more = {"user_seq": later(head.seq), "reply_seq": later(head.seq)} if table is turns else {"turn_id": later(turn_count)}
            changed = {**changed, **more}
        else:
            where, changed = and_(table.c.branch_id == session.branch_id, table.c.seq <= head.seq), {"seq": later(head.seq)}
        if table is messages:
            changed |= {"cum_tokens": later(head.tokens), "cum_shown": later(head.shown_tokens), "key": none, "key_digest": none}
            changed |= {"group_seq": later(head.seq), "turn_seq": later(head.seq)}
        if table is vectors:
            changed |= {"made_at_seq": later(head.seq)}
        _copy(connection, table, and_(table.c.owner_id == session.owner_id, where), copies, changed)
    longer = {
        "head_seq": head.seq * times,
        "head_tokens": head.tokens * times,
        "head_shown": head.shown_tokens * times,
        "head_group": head.group_seq + head.seq * copies,
        "head_turn": head.turn_seq + head.seq * copies,
    }
    connection.execute(update(branches).where(branches.c.owner_id == session.owner_id, branches.c.id == session.branch_id).values(longer))


def analyse(connection: Connection) -> None:
    """Have the database look at what its tables hold."""
    if connection.dialect.name in ("mysql", "mariadb"):
        for table in metadata.sorted_tables:
            connection.exec_driver_sql(f"ANALYZE TABLE {table.name}").all()
    else:
        connection.exec_driver_sql("ANALYZE")


def _plus(column: Any, number: ColumnElement[int]) -> ColumnElement[Any]:
    return column + number  # type: ignore[no-any-return]


def _named(column: Any, number: ColumnElement[int]) -> ColumnElement[Any]:
    return column + " " + cast(number, String)  # type: ignore[no-any-return]


def _copy(connection: Connection, table: Table, where: ColumnElement[bool], copies: int, changed: Changed) -> None:
    rows = connection.execute(select(func.count()).select_from(table).where(where)).scalar_one()
    if connection.dialect.name in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET SESSION max_recursive_iterations = 100000000")
    step = max(1, PAGE // max(1, rows))
    for first in range(1, copies + 1, step) if rows else ():
        numbers = _numbers(first, min(first + step - 1, copies))
        number = numbers.c.number
        values = [changed[column.name](column, number) if column.name in changed else column for column in table.c]
        made = select(*values).select_from(table.join(numbers, literal(1) == 1)).where(where)
        connection.execute(insert(table).from_select([column.name for column in table.c], made))


def _numbers(first: int, last: int) -> FromClause:
    numbers = select(cast(literal(first), BigInteger).label("number")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < last))
