"""Every statement about turns. As in `queries`, each names its owner."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select

from threadkeep.stores.clock import DatabaseNow
from threadkeep.stores.queries import SESSION_BY_NAME, SessionRow, at, change, entries_of, read_session
from threadkeep.stores.schema import sessions, turns

LEASE_US = 30_000_000
"""How long a turn is held without a sign of life, in microseconds, by the database's clock."""
_LEASE_ENDS = DatabaseNow() + LEASE_US


class TurnRow(NamedTuple):
    """A turn as stored."""

    id: int
    branch_id: int
    user_seq: int
    reply_seq: int | None
    holder: str
    until_us: int
    state: str
    draft: str | None
    manifest: str | None
    lapsed: bool
    """Whether its lease has ended."""


_COLUMNS = (*(turns.c[name] for name in TurnRow._fields[:-1]), (turns.c.until_us <= DatabaseNow()).label("lapsed"))
_TURN = select(*_COLUMNS).where(at(turns, "session_id"))
_NEWEST_TURN = _TURN.order_by(turns.c.id.desc()).limit(1)
_NEWEST_ID = (
    select(func.max(turns.c.id))
    .where(turns.c.owner_id == sessions.c.owner_id, turns.c.session_id == sessions.c.id)
    .correlate(sessions)
    .scalar_subquery()
)
_SESSION_AND_TURN = SESSION_BY_NAME.add_columns(*_COLUMNS).outerjoin(
    turns, and_(turns.c.owner_id == sessions.c.owner_id, turns.c.session_id == sessions.c.id, turns.c.id == _NEWEST_ID)
)
_TURN_BY_ID = _TURN.where(turns.c.id == bindparam("b_id"))
_TURNS_BY_USER = _TURN.where(turns.c.user_seq == bindparam("b_user_seq"), turns.c.branch_id.in_(bindparam("b_branches", expanding=True)))
_HOLDER = select(turns.c.holder, turns.c.state).where(at(turns, "session_id", "id"))
_ADD_TURN = insert(turns).values(until_us=_LEASE_ENDS)
_HELD_TURN = change(turns).where(at(turns, "session_id", "id", "holder"), turns.c.state == "open")
_ANY_TURN = change(turns).where(at(turns, "session_id", "id"))
_DELETE_TURNS = delete(turns).where(at(turns, "session_id"))


def find_session_and_newest_turn(connection: Connection, owner: str, name: str) -> tuple[SessionRow | None, TurnRow | None]:
    """Both with one statement: every context begins with it."""
    row = connection.execute(_SESSION_AND_TURN, {"b_owner": owner, "b_name": name}).one_or_none()
    if row is None:
        return None, None
    turn = TurnRow._make(row[-len(TurnRow._fields) :])
    return read_session(row[: -len(TurnRow._fields)]), None if turn.id is None else turn


def newest_turn(connection: Connection, session: SessionRow) -> TurnRow | None:
    row = connection.execute(_NEWEST_TURN, {"b_owner_id": session.owner_id, "b_session_id": session.id}).one_or_none()
    return None if row is None else TurnRow._make(row)


def find_turn(connection: Connection, session: SessionRow, turn_id: int) -> TurnRow | None:
    row = connection.execute(_TURN_BY_ID, {"b_owner_id": session.owner_id, "b_session_id": session.id, "b_id": turn_id}).one_or_none()
    return None if row is None else TurnRow._make(row)


def holder_of(connection: Connection, owner_id: int, session_id: int, turn_id: int) -> tuple[str, str] | None:
    """Who had a turn last, and its state; None: it is gone."""
    row = connection.execute(_HOLDER, {"b_owner_id": owner_id, "b_session_id": session_id, "b_id": turn_id}).one_or_none()
    return None if row is None else (row.holder, row.state)


def turn_of(connection: Connection, session: SessionRow, user_seq: int) -> TurnRow | None:
    """The turn that answers, or was to answer, a user message of the lineage: the last branch's that has one, there the newest."""
    branch_ids = [segment.branch_id for segment in session.segments if segment.last >= user_seq]
    values = {"b_owner_id": session.owner_id, "b_session_id": session.id, "b_user_seq": user_seq, "b_branches": branch_ids}
    found = map(TurnRow._make, connection.execute(_TURNS_BY_USER, values).all())
    return max(found, key=lambda turn: (branch_ids.index(turn.branch_id), turn.id), default=None)


def turn_before(connection: Connection, session: SessionRow, user_seq: int) -> TurnRow | None:
    """The turn of the user message before one, if it had one."""
    entries = entries_of(connection, session, [user_seq - 1])
    return turn_of(connection, session, entries[0].turn_seq) if entries and entries[0].turn_seq else None


def newest_along(connection: Connection, session: SessionRow, newest: TurnRow | None) -> TurnRow | None:
    """The newest turn of the session, where the active branch has it, else the newest of the lineage: what a context is compared with."""
    if newest is None or newest.branch_id == session.branch_id:
        return newest
    seq = session.head.turn_seq
    return turn_of(connection, session, seq) or turn_before(connection, session, seq)


def add_turn(connection: Connection, session: SessionRow, values: Mapping[str, object]) -> None:
    """Add a turn, held from now on."""
    connection.execute(_ADD_TURN, {"owner_id": session.owner_id, "session_id": session.id, **values})


def hold_turn(connection: Connection, owner_id: int, session_id: int, turn_id: int, holder: str, values: Mapping[str, object]) -> bool:
    """Write to a turn and hold it on, if this holder still has it; whether he has."""
    bound = {"b_owner_id": owner_id, "b_session_id": session_id, "b_id": turn_id, "b_holder": holder}
    return connection.execute(_HELD_TURN.values({"until_us": _LEASE_ENDS, **values}), bound).rowcount == 1


def take_turn(connection: Connection, session: SessionRow, turn_id: int, holder: str) -> None:
    """Give a turn to another holder."""
    change_turn(connection, session, turn_id, {"until_us": _LEASE_ENDS, "holder": holder, "state": "open", "draft": None})


def change_turn(connection: Connection, session: SessionRow, turn_id: int, values: Mapping[str, object]) -> None:
    bound = {"b_owner_id": session.owner_id, "b_session_id": session.id, "b_id": turn_id}
    connection.execute(_ANY_TURN.values(dict(values)), bound)


def delete_turns(connection: Connection, session: SessionRow) -> None:
    connection.execute(_DELETE_TURNS, {"b_owner_id": session.owner_id, "b_session_id": session.id})
