"""Every statement that upkeep and appending need about vectors. As in `queries`, each names its owner.

A vector stands with its entry's branch, so that forks share it, whichever of them made it. Its `made_at_seq` is how long the log of the
branch was that made it (`made_on`; none: its entry's own): on that branch it counts in turns whose user message came later. On others it
counts at once: a session's branches are kept up, and answered on, one at a time.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select

from threadkeep.memory.history import Entry
from threadkeep.stores.probing import by_keys
from threadkeep.stores.queries import ENTRY, SessionRow, at, within
from threadkeep.stores.schema import messages, vectors

_OWN_VECTOR = (
    select(vectors.c.seq)
    .where(*(vectors.c[name] == messages.c[name] for name in ("owner_id", "branch_id", "seq")), vectors.c.model == bindparam("b_model"))
    .correlate(messages)
    .scalar_subquery()  # looked up by its key, where NOT EXISTS may become a join that reads all vectors of the session
)
_UNEMBEDDED = (
    select(*ENTRY)
    .where(
        at(messages, "branch_id"),
        messages.c.seq >= bindparam("b_first"),
        messages.c.seq <= bindparam("b_last"),
        messages.c.status.not_in(("late", "erased")),
        _OWN_VECTOR.is_(None),
    )
    .order_by(messages.c.seq)
    .limit(bindparam("b_limit"))
)
_THERE = by_keys([vectors.c.seq], vectors, at(vectors, "branch_id", "model"), {"seq": "b_seqs"})
_DROP_OTHERS = delete(vectors).where(
    at(vectors, "branch_id"),
    vectors.c.seq >= bindparam("b_first"),
    vectors.c.seq <= bindparam("b_last"),
    vectors.c.model != bindparam("b_model"),
)
_MAKER = func.coalesce(vectors.c.made_on, vectors.c.branch_id)
_VECTOR = select(vectors.c.vector).where(
    at(vectors, "branch_id", "seq", "model"), or_(vectors.c.made_at_seq < bindparam("b_seq"), bindparam("b_maker") != _MAKER)
)


def find_vector(connection: Connection, session: SessionRow, model: str, seq: int) -> bytes | None:
    """An entry's vector as stored, if it was made before the entry was: a live message's that upkeep made is not used in its own turn.

    One that another branch's upkeep made is: it was there when this branch answers the message.
    """
    for segment, _, _ in within(session, seq, seq):
        values = {"b_owner_id": session.owner_id, "b_branch_id": segment.branch_id, "b_seq": seq, "b_model": model}
        values["b_maker"] = session.branch_id
        found: bytes | None = connection.execute(_VECTOR, values).scalar_one_or_none()
        return found
    return None


def unembedded(connection: Connection, session: SessionRow, model: str, after_seq: int, limit: int) -> list[Entry]:
    """The oldest `limit` entries behind a seq that have no vector of this model; late and erased ones, which nobody recalls, need none."""
    found: list[Entry] = []
    for segment, first, last in within(session, after_seq + 1, session.head.seq):
        values = {
            "b_owner_id": session.owner_id,
            "b_branch_id": segment.branch_id,
            "b_model": model,
            "b_first": first,
            "b_last": last,
            "b_limit": limit - len(found),
        }
        found.extend(map(Entry._make, connection.execute(_UNEMBEDDED, values).all()))
        if len(found) >= limit:
            break
    return found


def add_vectors(connection: Connection, session: SessionRow, model: str, rows: Sequence[tuple[int, bytes]]) -> None:
    """Store vectors by the seqs of their entries, float16, low byte first, as made at the head; what is there already stays."""
    for segment in session.segments:
        here = [(seq, vector) for seq, vector in rows if segment.first <= seq <= segment.last]
        owned = {"owner_id": session.owner_id, "branch_id": segment.branch_id, "model": model}
        made = {"made_at_seq": session.head.seq, "made_on": None if segment.branch_id == session.branch_id else session.branch_id}
        for start in range(0, len(here), 500):
            page = here[start : start + 500]
            values = {f"b_{name}": value for name, value in owned.items()} | {"b_seqs": [seq for seq, _ in page]}
            there = set(connection.execute(_THERE.on(connection), values).scalars())
            new = [{**owned, **made, "seq": seq, "vector": vector} for seq, vector in page if seq not in there]
            if new:
                connection.execute(insert(vectors), new)


def drop_other_vectors(connection: Connection, session: SessionRow, model: str, first: int, last: int) -> None:
    """Forget what other models made of a run of entries."""
    for segment, low, high in within(session, first, last):
        values = {"b_owner_id": session.owner_id, "b_branch_id": segment.branch_id, "b_model": model, "b_first": low, "b_last": high}
        connection.execute(_DROP_OTHERS, values)
