"""How a turn begins, is held and ends, each inside one transaction.

A session has at most one open turn, its newest. A turn's states: `open` while held; `done`; `interrupted`: its reply was cut and what
was said is stored; `unanswered`: it ended without a reply. The last two can be taken up again under the same key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from threadkeep.memory.errors import Conflict, KeyReused, LeaseLost
from threadkeep.memory.history import Entry
from threadkeep.stores import queries, turn_queries
from threadkeep.stores.appending import append
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import Prepared, digest, now_us
from threadkeep.stores.turn_queries import TurnRow

LEASE_US = 30_000_000
"""How long a turn is held without a sign of life, in microseconds."""


@dataclass(frozen=True, slots=True)
class Held:
    """A turn that this holder has."""

    session: SessionRow
    turn_id: int
    holder: str
    user: Entry
    retried: bool
    """The same key had begun it before; partial replies of then are not shown to the model again."""
    previous: TurnRow | None
    """The turn before."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Another holder has the session."""

    turn_id: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A turn of this key is done."""

    turn_id: int
    reply: Entry


def begin(
    connection: Connection,
    session: SessionRow,
    user: Prepared,
    key: str | None,
    holder: str,
    is_dead: Callable[[str], bool],
    settle_draft: Callable[[str], Prepared],
) -> Held | Busy | Answered:
    """Take the session's lease and append the user's message; or say who has it, or what was answered."""
    answered = None if key is None else _answered(connection, session, user, key)
    if answered is not None:
        return answered
    newest = turn_queries.newest_turn(connection, session)
    if newest is not None and newest.state == "open":
        if is_alive(newest, is_dead):
            return Busy(newest.id, newest.until_us)
        session = settle(connection, session, newest, settle_draft)
    added = append(connection, session, [user], key)
    entry = added.entries[0]
    if added.repeated:
        return _again(connection, session, entry, holder)
    turn_id = 1 if newest is None else newest.id + 1
    now = now_us()
    turn_queries.add_turn(
        connection,
        added.session,
        {
            "id": turn_id,
            "branch_id": session.branch_id,
            "user_seq": entry.seq,
            "holder": holder,
            "until_us": now + LEASE_US,
            "state": "open",
            "created_us": now,
        },
    )
    return Held(added.session, turn_id, holder, entry, retried=False, previous=newest)


def _answered(connection: Connection, session: SessionRow, user: Prepared, key: str) -> Answered | None:
    """The reply of a turn that this key named and that is done: it is given whoever holds the session now."""
    known = queries.find_key(connection, session, key)
    turn = None if known is None or known[1] != digest([user]) else turn_queries.turn_of(connection, session, known[0])
    if turn is None or turn.state != "done" or turn.reply_seq is None:
        return None
    (reply,) = queries.entries_of(connection, session, [turn.reply_seq])
    return Answered(turn.id, reply)


def _again(connection: Connection, session: SessionRow, user: Entry, holder: str) -> Held:
    """Take up a turn that its key began before."""
    turn = turn_queries.turn_of(connection, session, user.seq)
    if turn is None:
        raise KeyReused(f"the key {user.key!r} was used to append entry {user.seq}, which began no turn: take a new key")
    if session.head.turn_seq != user.seq:
        raise Conflict(
            f"turn {turn.id} of session {session.name!r} was left without a whole reply and the conversation went on: "
            "send the message again under a new key"
        )
    turn_queries.change_turn(
        connection, session, turn.id, {"holder": holder, "until_us": now_us() + LEASE_US, "state": "open", "draft": None}
    )
    previous = turn_queries.find_turn(connection, session, turn.id - 1)
    return Held(session, turn.id, holder, user, retried=True, previous=previous)


def is_alive(turn: TurnRow, is_dead: Callable[[str], bool]) -> bool:
    """Whether somebody still holds an open turn."""
    return turn.until_us > now_us() and not is_dead(turn.holder)


def settle(connection: Connection, session: SessionRow, turn: TurnRow, settle_draft: Callable[[str], Prepared]) -> SessionRow:
    """End a dead holder's turn: what it had said becomes an interrupted entry."""
    ended: dict[str, object] = {"draft": None, "state": "unanswered"}
    if turn.draft:
        added = append(connection, session, [settle_draft(turn.draft)])
        session = added.session
        ended |= {"state": "interrupted", "reply_seq": added.entries[0].seq}
    turn_queries.change_turn(connection, session, turn.id, ended)
    return session


def write(connection: Connection, held: Held, values: Mapping[str, object]) -> None:
    """Write to a held turn, and hold it on.

    Raises:
        LeaseLost: another holder took the session.
    """
    session = held.session
    values = {"until_us": now_us() + LEASE_US, **values}
    if not turn_queries.change_held_turn(connection, session.owner_id, session.id, held.turn_id, held.holder, values):
        raise LeaseLost(
            f"turn {held.turn_id} of session {session.name!r} is no longer held here: its lease of {LEASE_US // 1_000_000} s "
            "ended and another took the session, or it was deleted. Nothing more of it is stored"
        )
