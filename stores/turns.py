"""How a turn begins, is held and ends, each inside one transaction.

A session has at most one open turn, its newest. A turn's states: `open` while held; `done`; `interrupted`: its reply was cut and what
was said is stored; `unanswered`: it ended without a reply; `superseded`: another took the session from it, and what had been said, if
anything, is stored. The last three can be taken up again under the same key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection

from threadkeep.memory.errors import Conflict, KeyReused, LeaseLost, NotFound, Superseded
from threadkeep.memory.history import Entry
from threadkeep.stores import queries, turn_queries
from threadkeep.stores.appending import append
from threadkeep.stores.branching import fork, new_name
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import Prepared, digest, now_us
from threadkeep.stores.turn_queries import LEASE_US, TurnRow

Supersede: TypeAlias = Callable[[TurnRow, int], str | None]
"""What the holder of an open turn had said behind the entry of this seq, as a draft; called where his session is taken from him."""


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
    user: Prepared | None,
    key: str | None,
    holder: str,
    is_dead: Callable[[str], bool],
    settle_draft: Callable[[str], Prepared],
    supersede: Supersede | None = None,
) -> Held | Busy | Answered:
    """Take the session's lease and append the user's message; or say what was answered, or, without `supersede`, who has the lease.

    Without a message the last one of the log is to be answered: where it is already, on a new branch that has it and nothing behind it.
    """
    answered = None if key is None or user is None else _answered(connection, session, user, key)
    if answered is not None:
        return answered
    newest = turn_queries.newest_turn(connection, session)
    if newest is not None and newest.state == "open":
        alive = is_alive(newest, is_dead)
        if alive and supersede is None:
            return Busy(newest.id, newest.until_us)
        if alive and supersede is not None:
            newest = newest._replace(draft=supersede(newest, session.head.seq))
        session = settle(connection, session, newest, settle_draft, superseded=alive)
    if user is None:
        session = _where_it_is_answered(connection, session, newest)
        (last,) = queries.entries_of(connection, session, [session.head.turn_seq])
        return _open(connection, session, last, holder, newest)
    added = append(connection, session, [user], key)
    entry = added.entries[0]
    if added.repeated:
        return _again(connection, session, entry, holder, newest)
    return _open(connection, added.session, entry, holder, newest)


def _open(connection: Connection, session: SessionRow, user: Entry, holder: str, newest: TurnRow | None, *, retried: bool = False) -> Held:
    """A new turn, on the active branch."""
    turn_id = _next_id(newest)
    previous = turn_queries.newest_along(connection, session, newest)
    turn_queries.add_turn(
        connection,
        session,
        {
            "id": turn_id,
            "branch_id": session.branch_id,
            "user_seq": user.seq,
            "holder": holder,
            "state": "open",
            "created_us": now_us(),
        },
    )
    return Held(session, turn_id, holder, user, retried, previous)


def _next_id(newest: TurnRow | None) -> int:
    return 1 if newest is None else newest.id + 1


def _where_it_is_answered(connection: Connection, session: SessionRow, newest: TurnRow | None) -> SessionRow:
    """The session, its head the last user's message: where more was said, on a fork right behind that, so that no fork grows on another."""
    seq = session.head.turn_seq
    if not seq:
        raise NotFound(f"session {session.name!r} has no user's message that could be answered: say one")
    if session.head.seq == seq:
        return session
    return fork(connection, session, new_name(connection, session, f"{seq}-again", str(_next_id(newest))), seq)


def _answered(connection: Connection, session: SessionRow, user: Prepared, key: str) -> Answered | None:
    """The reply of a turn that this key named and that is done: it is given whoever holds the session now."""
    known = queries.find_key(connection, session, key)
    turn = None if known is None or known[1] != digest([user]) else turn_queries.turn_of(connection, session, known[0])
    if turn is None or turn.state != "done" or turn.reply_seq is None:
        return None
    if not any(segment.branch_id == turn.branch_id and turn.reply_seq <= segment.last for segment in session.segments):
        return None  # the reply is not on this branch
    (reply,) = queries.entries_of(connection, session, [turn.reply_seq])
    return Answered(turn.id, reply)


def _again(connection: Connection, session: SessionRow, user: Entry, holder: str, newest: TurnRow | None) -> Held:
    """Take up a turn that its key began before; as a new one, where it is another branch's, or others began since on other branches."""
    turn = turn_queries.turn_of(connection, session, user.seq)
    if turn is None:
        raise KeyReused(f"the key {user.key!r} was used to append entry {user.seq}, which began no turn: take a new key")
    if session.head.turn_seq != user.seq:
        raise Conflict(
            f"turn {turn.id} of session {session.name!r} was left without a whole reply and the conversation went on: "
            "send the message again under a new key"
        )
    if newest is None or (turn.id, turn.branch_id) != (newest.id, session.branch_id):
        return _open(connection, session, user, holder, newest, retried=True)
    turn_queries.take_turn(connection, session, turn.id, holder)
    previous = turn_queries.find_turn(connection, session, turn.id - 1)
    if previous is not None and previous.branch_id != session.branch_id:
        previous = turn_queries.turn_before(connection, session, user.seq)
    return Held(session, turn.id, holder, user, retried=True, previous=previous)


def is_alive(turn: TurnRow, is_dead: Callable[[str], bool]) -> bool:
    """Whether somebody still holds an open turn."""
    return not turn.lapsed and not is_dead(turn.holder)


def settle(
    connection: Connection, session: SessionRow, turn: TurnRow, settle_draft: Callable[[str], Prepared], *, superseded: bool = False
) -> SessionRow:
    """End a turn whose holder is dead, gives it back or is superseded: what it had said becomes an interrupted entry."""
    ended: dict[str, object] = {"draft": None, "state": "superseded" if superseded else "interrupted" if turn.draft else "unanswered"}
    if turn.draft:
        added = append(connection, session, [settle_draft(turn.draft)])
        session = added.session
        ended["reply_seq"] = added.entries[0].seq
    turn_queries.change_turn(connection, session, turn.id, ended)
    return session


def write(connection: Connection, held: Held, values: Mapping[str, object]) -> None:
    """Write to a held turn, and hold it on.

    Raises:
        LeaseLost: another holder took the session.
    """
    session = held.session
    if not turn_queries.hold_turn(connection, session.owner_id, session.id, held.turn_id, held.holder, values):
        raise why_lost(connection, held) or _ended(held)


def why_lost(connection: Connection, held: Held) -> LeaseLost | None:
    """The error for a holder that has its turn no more; None: it has it, or ended it itself."""
    session = held.session
    found = turn_queries.holder_of(connection, session.owner_id, session.id, held.turn_id)
    if found is None:
        return LeaseLost(f"turn {held.turn_id} of session {session.name!r} was deleted while it was held. Nothing more of it is stored")
    holder, state = found
    if holder != held.holder or state == "superseded":
        return superseded(held.turn_id, session.name, again=holder != held.holder)
    return None if state in ("open", "done") else _ended(held)


def superseded(turn_id: int, name: str, *, again: bool) -> Superseded:
    """The error for a turn whose session was taken: by its own key `again`, or by a later turn."""
    how = "was taken up again under its key" if again else "was superseded by a later turn"
    return Superseded(f"turn {turn_id} of session {name!r} {how}: what it had said is stored as interrupted, and nothing more from here")


def _ended(held: Held) -> LeaseLost:
    return LeaseLost(
        f"turn {held.turn_id} of session {held.session.name!r} is no longer held here: its lease of {LEASE_US // 1_000_000} s "
        "ended and another took the session. Nothing more of it is stored"
    )
