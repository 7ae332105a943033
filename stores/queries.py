"""Every statement, as a function on a plain `Connection`. Each names its owner; nothing here begins or ends a transaction.

Conditions are bound under `b_` and the column's name, so that they never meet a value that is to be written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, Update, and_, bindparam, delete, func, insert, or_, select, update

from threadkeep.memory.history import Entry, Head, moment
from threadkeep.stores.probing import by_keys
from threadkeep.stores.schema import branches, messages, metadata, owners, pins, sessions, terms, vectors

ENTRY = tuple(
    messages.c[name]
    for name in "seq body tokens shown_tokens cum_tokens cum_shown group_seq turn_seq status created_us key metadata exact".split()
)
"""Columns in the order of `Entry`'s fields."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a lineage: one branch's entries from `first` to `last`, and the shown total at its end."""

    branch_id: int
    first: int
    last: int
    shown: int


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session and its active branch, as read at one moment."""

    owner_id: int
    id: int
    branch_id: int
    name: str
    tokenizer: str
    clip: int
    revision: int
    segments: tuple[Segment, ...]
    """Oldest first; the last one is the active branch's own."""
    head: Head


def at(table: Table, *columns: str) -> ColumnElement[bool]:
    """The condition that a row is the owner's, and has these columns' bound values."""
    return and_(*(table.c[name] == bindparam(f"b_{name}") for name in ("owner_id", *columns)))


def change(table: Table) -> Update:
    """An UPDATE of a row by its whole primary key.

    MariaDB and MySQL are told to find it by that: where an owner has few rows they read another index instead, and lock all of his. Then
    turns of two sessions wait for each other in a circle.
    """
    by_key = "FORCE INDEX (PRIMARY)"
    return update(table).with_hint(by_key, dialect_name="mysql").with_hint(by_key, dialect_name="mariadb")


# Owners and sessions.

_OWNER = select(owners.c.id).where(owners.c.name == bindparam("b_name"))
_OWNER_LOCKED = _OWNER.with_for_update()
_SESSION = select(
    *(sessions.c[name] for name in "owner_id id active_branch name tokenizer clip revision".split()),
    *(branches.c[name] for name in "lineage head_seq head_tokens head_shown head_group head_turn open_calls leading".split()),
).join_from(sessions, branches, (branches.c.owner_id == sessions.c.owner_id) & (branches.c.id == sessions.c.active_branch))
# The owner's id by a query of its own: joined, SQLite reads all owners where its statistics, even old ones, say that they are few.
OWNER_ID = select(owners.c.id).where(owners.c.name == bindparam("b_owner")).scalar_subquery()
SESSION_BY_NAME = _SESSION.where(sessions.c.owner_id == OWNER_ID, sessions.c.name == bindparam("b_name"))
_BOTH = (sessions, branches)
_SESSION_BY_NAME_LOCKED = SESSION_BY_NAME.with_for_update(of=_BOTH)
_SESSION_BY_ID = _SESSION.where(at(sessions, "id"))
_SESSION_BY_ID_LOCKED = _SESSION_BY_ID.with_for_update(of=_BOTH)
_MOVE_HEAD = change(branches).where(at(branches, "id"))
_TOUCH = change(sessions).where(at(sessions, "id"))


def find_owner(connection: Connection, name: str, *, lock: bool = False) -> int | None:
    """An owner's id; with `lock`, he is not deleted and gets no other new session before the transaction ends."""
    return connection.execute(_OWNER_LOCKED if lock else _OWNER, {"b_name": name}).scalar_one_or_none()


def add_owner(connection: Connection, owner_id: int, name: str, now: int) -> None:
    connection.execute(insert(owners), {"id": owner_id, "name": name, "created_us": now})


def find_session(connection: Connection, owner: str, name: str, *, lock: bool = False) -> SessionRow | None:
    """The session and the head of its active branch; with `lock`, held until the transaction ends."""
    values = {"b_owner": owner, "b_name": name}
    if lock:
        return _lock_session(connection, _SESSION_BY_NAME_LOCKED, SESSION_BY_NAME, values)
    found = connection.execute(SESSION_BY_NAME, values).one_or_none()
    return None if found is None else read_session(found)


def find_session_again(connection: Connection, session: SessionRow) -> SessionRow | None:
    """The same session as it is now, locked; None if it was deleted."""
    values = {"b_owner_id": session.owner_id, "b_id": session.id}
    return _lock_session(connection, _SESSION_BY_ID_LOCKED, _SESSION_BY_ID, values)


def _lock_session(connection: Connection, locking: Select[Any], looking: Select[Any], values: Mapping[str, object]) -> SessionRow | None:
    """A session with its active branch, both locked: who holds them knows that no other branch becomes the active one.

    PostgreSQL gives no row where that happened while this waited for the locks: then it is asked again.
    """
    while (found := connection.execute(locking, values).one_or_none()) is None:
        if connection.execute(looking, values).first() is None:
            return None
    return read_session(found)


def read_session(found: Sequence[Any]) -> SessionRow:
    """A row of `SESSION_BY_NAME`."""
    (owner_id, session_id, branch_id, name, tokenizer, clip, revision, lineage, seq, tokens, shown, group, turn, calls_open, leading) = (
        found
    )
    segments, first = [], 1
    if lineage != "[]":
        for ancestor, upto, shown_there in json.loads(lineage):
            segments.append(Segment(ancestor, first, upto, shown_there))
            first = upto + 1
    segments.append(Segment(branch_id, first, seq, shown))
    open_calls = () if calls_open == "[]" else tuple(json.loads(calls_open))
    head = Head(seq, tokens, shown, group, turn, open_calls, leading)
    return SessionRow(owner_id, session_id, branch_id, name, tokenizer, clip, revision, tuple(segments), head)


def add_session(connection: Connection, session: Mapping[str, object], branch: Mapping[str, object]) -> None:
    connection.execute(insert(sessions), dict(session))
    connection.execute(insert(branches), dict(branch))


def set_tokenizer(connection: Connection, session: SessionRow, tokenizer: str) -> None:
    connection.execute(_TOUCH, {"b_owner_id": session.owner_id, "b_id": session.id, "tokenizer": tokenizer})


def move_head(connection: Connection, session: SessionRow, head: Head, now: int) -> None:
    """Write the active branch's new head, and that the session was used."""
    connection.execute(
        _MOVE_HEAD,
        {
            "b_owner_id": session.owner_id,
            "b_id": session.branch_id,
            "head_seq": head.seq,
            "head_tokens": head.tokens,
            "head_shown": head.shown_tokens,
            "head_group": head.group_seq,
            "head_turn": head.turn_seq,
            "leading": head.leading,
            "open_calls": json.dumps(head.open_calls),
        },
    )
    connection.execute(_TOUCH, {"b_owner_id": session.owner_id, "b_id": session.id, "updated_us": now})


class Listed(NamedTuple):
    """A session as a list shows it."""

    id: int
    name: str
    title: str | None
    entries: int
    tokens: int
    """What the whole log costs."""
    created_us: int
    updated_us: int

    @property
    def created_at(self) -> datetime:
        return moment(self.created_us)

    @property
    def updated_at(self) -> datetime:
        """When something was last appended."""
        return moment(self.updated_us)


_LISTED = (
    select(
        sessions.c.id,
        sessions.c.name,
        sessions.c.title,
        branches.c.head_seq,
        branches.c.head_tokens,
        sessions.c.created_us,
        sessions.c.updated_us,
    )
    .join(branches, (branches.c.owner_id == sessions.c.owner_id) & (branches.c.id == sessions.c.active_branch))
    .where(sessions.c.owner_id == bindparam("b_owner_id"))
)
_RECENT = _LISTED.order_by(sessions.c.updated_us.desc(), sessions.c.id.desc()).limit(bindparam("b_limit"))
_AFTER = _RECENT.where(
    sessions.c.updated_us <= bindparam("b_updated_us"),  # where the index is entered; the rest tells apart those of one moment
    or_(sessions.c.updated_us < bindparam("b_updated_us"), sessions.c.id < bindparam("b_id")),
)
_ONE_LISTED = _LISTED.where(sessions.c.name == bindparam("b_name"))


def list_sessions(connection: Connection, owner_id: int, after: Listed | None, limit: int) -> list[Listed]:
    """The owner's sessions, the last used first; those behind `after`."""
    values: dict[str, object] = {"b_owner_id": owner_id, "b_limit": limit}
    if after is not None:
        values |= {"b_updated_us": after.updated_us, "b_id": after.id}
    return [Listed(*row) for row in connection.execute(_RECENT if after is None else _AFTER, values)]


def find_listed(connection: Connection, owner_id: int, name: str) -> Listed | None:
    row = connection.execute(_ONE_LISTED, {"b_owner_id": owner_id, "b_name": name}).one_or_none()
    return None if row is None else Listed(*row)


def delete_session(connection: Connection, session: SessionRow) -> None:
    """Every row that belongs to the session, whatever its branch."""
    of_session = select(branches.c.id).where(branches.c.owner_id == session.owner_id, branches.c.session_id == session.id)
    branch_ids = connection.execute(of_session).scalars().all()
    for table in metadata.sorted_tables:
        if "branch_id" in table.c and "session_id" not in table.c:
            connection.execute(delete(table).where(table.c.owner_id == session.owner_id, table.c.branch_id.in_(branch_ids)))
        elif "session_id" in table.c:
            connection.execute(delete(table).where(table.c.owner_id == session.owner_id, table.c.session_id == session.id))
    connection.execute(delete(sessions).where(sessions.c.owner_id == session.owner_id, sessions.c.id == session.id))


def delete_owner(connection: Connection, owner_id: int) -> int:
    """Every row of an owner; how many sessions there were."""
    count = connection.execute(select(func.count()).select_from(sessions).where(sessions.c.owner_id == owner_id)).scalar_one()
    for table in metadata.sorted_tables:
        column = table.c.id if table is owners else table.c.owner_id
        connection.execute(delete(table).where(column == owner_id))
    return count


# Entries.

_RANGE = (
    select(*ENTRY)
    .where(at(messages, "branch_id"), messages.c.seq >= bindparam("b_first"), messages.c.seq <= bindparam("b_last"))
    .order_by(messages.c.seq)
)
_PAGE = _RANGE.limit(bindparam("b_limit"))
_SEQS = by_keys(ENTRY, messages, at(messages, "branch_id"), {"seq": "b_seqs"}, order_by="seq")
_SHOWN = (
    select(*ENTRY)
    .where(at(messages, "branch_id"), messages.c.cum_shown > bindparam("b_low"), messages.c.cum_shown <= bindparam("b_high"))
    .order_by(messages.c.cum_shown, messages.c.seq)
)
_KEYED = (messages.c.branch_id, messages.c.seq, messages.c.key_digest)
_KEY_HERE = select(*_KEYED).where(at(messages, "branch_id", "key"))
_KEY_ALONG = by_keys(_KEYED, messages, at(messages, "key"), {"branch_id": "b_branches"})


def add_entries(
    connection: Connection,
    rows: Sequence[Mapping[str, object]],
    term_rows: Sequence[Mapping[str, object]],
    vector_rows: Sequence[Mapping[str, object]],
) -> None:
    connection.execute(insert(messages), [dict(row) for row in rows])
    if term_rows:
        connection.execute(insert(terms), [dict(row) for row in term_rows])
    if vector_rows:
        connection.execute(insert(vectors), [dict(row) for row in vector_rows])


def _read_entries(connection: Connection, statement: Select[Any], values: Mapping[str, object]) -> Iterator[Entry]:
    return map(Entry._make, connection.execute(statement, values).all())  # all at once: row by row takes twice as long


def within(session: SessionRow, first: int, last: int) -> Iterable[tuple[Segment, int, int]]:
    """The segments that hold some of these seqs, oldest first, with the part they hold."""
    for segment in session.segments:
        low, high = max(first, segment.first), min(last, segment.last)
        if low <= high:
            yield segment, low, high


def entries_between(connection: Connection, session: SessionRow, first: int, last: int, limit: int | None = None) -> list[Entry]:
    """Entries by seq, both ends included; at most `limit`, the oldest."""
    found: list[Entry] = []
    for segment, low, high in within(session, first, last):
        values: dict[str, object] = {
            "b_owner_id": session.owner_id,
            "b_branch_id": segment.branch_id,
            "b_first": low,
            "b_last": high,
        }
        if limit is not None:
            values["b_limit"] = limit - len(found)
        found.extend(_read_entries(connection, _RANGE if limit is None else _PAGE, values))
        if limit is not None and len(found) >= limit:
            break
    return found


def entries_of(connection: Connection, session: SessionRow, seqs: Sequence[int]) -> list[Entry]:
    """The entries of these ascending seqs, in their order."""
    found: list[Entry] = []
    for segment in session.segments if seqs else ():
        here = [seq for seq in seqs if segment.first <= seq <= segment.last]
        for at in range(0, len(here), 500):
            values = {"b_owner_id": session.owner_id, "b_branch_id": segment.branch_id, "b_seqs": here[at : at + 500]}
            found.extend(_read_entries(connection, _SEQS.on(connection), values))
    return found


def entries_shown_after(connection: Connection, session: SessionRow, low: int) -> list[Entry]:
    """The entries whose shown total passes `low`, in their order; late ones among them."""
    found: list[list[Entry]] = []
    for segment in reversed(session.segments):
        if segment.shown <= low:
            break
        if segment.first > segment.last:
            continue  # a branch just forked
        values = {"b_owner_id": session.owner_id, "b_branch_id": segment.branch_id, "b_low": low, "b_high": segment.shown}
        entries = _read_entries(connection, _SHOWN, values)
        found.append([entry for entry in entries if segment.first <= entry.seq <= segment.last])
    return [entry for entries in reversed(found) for entry in entries]


class Keyed(NamedTuple):
    """What was appended under a key."""

    seq: int
    digest: str
    last: int
    """Up to where the lineage has the branch that it stands on: a batch may have been cut there by a fork."""


def find_key(connection: Connection, session: SessionRow, key: str) -> Keyed | None:
    """What was appended under a key, along the lineage: the newest, and nothing that a branch got after it was left."""
    values: dict[str, object] = {"b_owner_id": session.owner_id, "b_key": key}
    if len(session.segments) == 1:
        rows = connection.execute(_KEY_HERE, {**values, "b_branch_id": session.branch_id}).all()
    else:
        branch_ids = [segment.branch_id for segment in session.segments]
        pages = (branch_ids[start : start + 500] for start in range(0, len(branch_ids), 500))
        rows = [row for page in pages for row in connection.execute(_KEY_ALONG.on(connection), {**values, "b_branches": page})]
    upto = {segment.branch_id: segment.last for segment in session.segments} if rows else {}
    return max((Keyed(seq, digest, upto[at]) for at, seq, digest in rows if seq <= upto[at]), default=None)


# Pins. A fork has its own, from those that there were when it was made: no branch sees what another pins later.

_PINS = select(pins.c.seq).where(at(pins, "branch_id"), pins.c.since_seq <= bindparam("b_at"))


def pinned_seqs(connection: Connection, session: SessionRow, at: int) -> list[int]:
    """The seqs that were pinned when the log's head was at `at`, ascending."""
    values = {"b_owner_id": session.owner_id, "b_branch_id": session.branch_id, "b_at": at}
    return sorted(connection.execute(_PINS, values).scalars())


def add_pins(connection: Connection, session: SessionRow, seqs: Sequence[int]) -> None:
    """Pin entries, from the head on."""
    made = {"owner_id": session.owner_id, "branch_id": session.branch_id, "since_seq": session.head.seq}
    if seqs:
        connection.execute(insert(pins), [{**made, "seq": seq} for seq in seqs])
