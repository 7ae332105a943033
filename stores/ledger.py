"""Every statement about the ledger: model calls, and what they cost in all. As in `queries`, each names its owner.

Costs are exact decimals, stored as text; no database adds them up. A total for each session and each owner is kept beside them, so
that what was spent is one look; it outlives the calls of a session that is deleted.
"""

import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, bindparam, func, insert, select

from threadkeep.memory.history import moment
from threadkeep.memory.money import EXACT
from threadkeep.stores.queries import SessionRow, at, change
from threadkeep.stores.rows import now_us
from threadkeep.stores.schema import calls, owners, sessions

MODEL_LENGTH = 255


@dataclass(frozen=True, slots=True)
class NewCall:
    """A model call to be stored; fields as in `CallRow`."""

    purpose: str
    model: str
    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token_ms: int | None = None
    total_ms: int | None = None
    cost: Decimal | None = None
    outcome: str = "complete"


class CallRow(NamedTuple):
    """A model call as stored."""

    id: int
    """Rises with time."""
    turn_id: int | None
    """None: upkeep made it, between turns."""
    purpose: str
    """`reply`, `summary` or `embedding`."""
    model: str
    prompt_tokens: int
    """What was sent; of an embedding, an estimate by the session's counter."""
    cached_tokens: int
    completion_tokens: int
    first_token_ms: int | None
    total_ms: int | None
    cost: Decimal | None
    """In US dollars, exact; None: the price is not known."""
    created_us: int
    outcome: str
    """`complete`; `interrupted`: it was cut, and where the model did not say its tokens they are estimates; `failed`: it said nothing."""

    @property
    def created_at(self) -> datetime:
        return moment(self.created_us)


class Used(NamedTuple):
    """What the calls of one model for one purpose took in all."""

    model: str
    purpose: str
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_ms: int
    cost: Decimal
    """In US dollars, exact."""
    unpriced: int
    """So many of the calls are not in the cost: their price is not known."""


_CALLS = (
    select(*(calls.c[name] for name in CallRow._fields))
    .where(at(calls, "session_id"), calls.c.id > bindparam("b_after"))
    .order_by(calls.c.id)
    .limit(bindparam("b_limit"))
)
_SUMS = (
    select(
        calls.c.model,
        calls.c.purpose,
        calls.c.cost,
        func.count(),
        *(func.sum(calls.c[name]) for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "total_ms")),
    )
    .where(calls.c.owner_id == bindparam("b_owner_id"))
    .group_by(calls.c.model, calls.c.purpose, calls.c.cost)
)
_SESSION_SUMS = _SUMS.where(calls.c.session_id == bindparam("b_session_id"))
_SPENT = select(sessions.c.spent, owners.c.spent).join_from(sessions, owners, owners.c.id == sessions.c.owner_id).where(at(sessions, "id"))


def add_call(connection: Connection, session: SessionRow, turn_id: int | None, call: NewCall) -> None:
    """Write a call, and add what it cost to the totals."""
    now = now_us()
    row = {
        "owner_id": session.owner_id,
        "id": (now << 21) // 1000 + secrets.randbits(11),  # as `new_id` makes them, but to the microsecond: calls are listed by it
        "session_id": session.id,
        "turn_id": turn_id,
        **asdict(call),
        "model": call.model[:MODEL_LENGTH],
        "cost": None if call.cost is None else f"{call.cost:f}",
        "created_us": now,
    }
    connection.execute(insert(calls), row)
    if call.cost:
        _spend(connection, sessions, (sessions.c.owner_id == session.owner_id) & (sessions.c.id == session.id), call.cost)
        _spend(connection, owners, owners.c.id == session.owner_id, call.cost)  # the last row locked, so that nobody waits in a circle


def list_calls(connection: Connection, session: SessionRow, after: int, limit: int) -> list[CallRow]:
    """A page of a session's calls, oldest first: those behind the one of this id."""
    values = {"b_owner_id": session.owner_id, "b_session_id": session.id, "b_after": after, "b_limit": limit}
    rows = map(CallRow._make, connection.execute(_CALLS, values))
    return [row if row.cost is None else row._replace(cost=Decimal(row.cost)) for row in rows]


def sum_calls(connection: Connection, owner_id: int, session: SessionRow | None) -> list[Used]:
    """The calls of an owner, or of one session, by model and purpose; the dearest first. It reads every call."""
    values = {"b_owner_id": owner_id} | ({} if session is None else {"b_session_id": session.id})
    sums: dict[tuple[str, str], Used] = {}
    for model, purpose, text, number, *tokens_and_ms in connection.execute(_SUMS if session is None else _SESSION_SUMS, values):
        before = sums.get((model, purpose), Used(model, purpose, 0, 0, 0, 0, 0, Decimal(0), 0))
        prompt, cached, completion, total_ms = (int(one or 0) for one in tokens_and_ms)
        with localcontext(EXACT):
            sums[model, purpose] = Used(
                model,
                purpose,
                before.calls + number,
                before.prompt_tokens + prompt,
                before.cached_tokens + cached,
                before.completion_tokens + completion,
                before.total_ms + total_ms,
                before.cost + number * Decimal(text or 0),
                before.unpriced + (number if text is None else 0),
            )
    return sorted(sums.values(), key=lambda one: (-one.cost, one.model, one.purpose))


def find_spent(connection: Connection, session: SessionRow) -> tuple[Decimal, Decimal]:
    """What was spent for a session, and for its owner in all, in US dollars."""
    row = connection.execute(_SPENT, {"b_owner_id": session.owner_id, "b_id": session.id}).one_or_none()
    of_session, of_owner = row or (None, None)
    return Decimal(of_session or 0), Decimal(of_owner or 0)


def _spend(connection: Connection, table: Table, row: ColumnElement[bool], cost: Decimal) -> None:
    before = connection.execute(select(table.c.spent).where(row).with_for_update()).scalar_one_or_none()
    with localcontext(EXACT):
        spent = Decimal(before or 0) + cost
    connection.execute(change(table).where(row).values(spent=f"{spent:f}"))
