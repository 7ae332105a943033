"""Every statement that an index is read with: many rows, few columns, raw from the driver. As in `queries`, each names its owner.

Rows of many branches come with one statement. Entries are asked for in no order: a database may not find that by its key.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, case, func, select

from threadkeep.memory.history import Entry
from threadkeep.memory.index import ROLES
from threadkeep.stores.probing import ByKeys, by_keys
from threadkeep.stores.queries import ENTRY, SessionRow, at, read_session
from threadkeep.stores.schema import branches, messages, sessions, terms, vectors

NAMED = 500
"""Branches, terms or seqs that one statement names."""
PROBES = 2_000
"""Places that a statement looks at which names branches and seqs: all of the ones with all of the others."""
PAGE, VECTORS_PAGE = 2_048, 256
"""Rows that are taken from the driver at a time; fewer with vectors, which stay in the processor's cache until they are copied."""
NO_END = 2**62
SESSIONS = 2_000
"""Of an owner's sessions, so many are recalled from, the last used: each question looks at all of them, and costs what they are."""

Row = tuple[Any, ...]  # as the driver gives it


class Span(NamedTuple):
    """The entries of some branches behind one seq, up to another."""

    branch_ids: tuple[int, ...]
    after: int
    upto: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands."""

    branch_id: int
    seq: int


def _in_span(table: Table, *more: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition that a row is of a span, whatever its branch."""
    return and_(at(table), table.c.seq > bindparam("b_after"), table.c.seq <= bindparam("b_upto"), *more)


_COMMON_FIRST = sorted(ROLES, key=("user", "assistant", "tool", "system", "developer").index)
_ROLE = case({role: ROLES.index(role) for role in _COMMON_FIRST}, value=messages.c.role, else_=len(ROLES))
_OF_BRANCHES = {"branch_id": "b_branches"}
_AT_SEQS = {**_OF_BRANCHES, "seq": "b_seqs"}
_WITH_TERMS = {**_OF_BRANCHES, "term": "b_terms"}
_COLUMNS = by_keys(
    [*(messages.c[name] for name in "branch_id seq shown_tokens created_us group_seq".split()), _ROLE.label("role_number")],
    messages,
    _in_span(messages, messages.c.status.in_(("complete", "interrupted"))),
    _OF_BRANCHES,
)
_OF_MODEL = vectors.c.model == bindparam("b_model")
_MAKER = func.coalesce(vectors.c.made_on, vectors.c.branch_id).label("maker")
_STORED = [vectors.c.branch_id, vectors.c.seq, vectors.c.made_at_seq, _MAKER, vectors.c.vector]
_VECTORS = by_keys(_STORED, vectors, _in_span(vectors, _OF_MODEL), _OF_BRANCHES)
_VECTORS_AT = by_keys(_STORED, vectors, and_(at(vectors), _OF_MODEL), _AT_SEQS)
_VECTOR_COUNTS = by_keys([vectors.c.branch_id], vectors, _in_span(vectors, _OF_MODEL), _OF_BRANCHES, count_by="branch_id")
_POSTINGS = by_keys([terms.c[name] for name in "term branch_id seq frequency".split()], terms, _in_span(terms), _WITH_TERMS)
_TERM_COUNTS = by_keys([terms.c.term], terms, _in_span(terms), _WITH_TERMS, count_by="term")
_ENTRIES_AT = by_keys([messages.c.branch_id, *ENTRY], messages, at(messages), _AT_SEQS)
_SESSIONS = (
    select(
        *(sessions.c[name] for name in "owner_id id active_branch name tokenizer clip revision".split()),
        *(branches.c[name] for name in "lineage head_seq head_tokens head_shown head_group head_turn open_calls leading".split()),
    )
    .join_from(sessions, branches, (branches.c.owner_id == sessions.c.owner_id) & (branches.c.id == sessions.c.active_branch))
    .where(at(sessions))
    .order_by(sessions.c.updated_us.desc(), sessions.c.id.desc())
    .limit(bindparam("b_limit"))
)


def owner_sessions(connection: Connection, owner_id: int) -> list[SessionRow]:
    """The sessions of an owner that were used last, at most `SESSIONS`, the oldest first."""
    rows = [row for page in _pages(connection, _SESSIONS, {"b_owner_id": owner_id, "b_limit": SESSIONS}) for row in page]
    return sorted((read_session((*row[:3], _text(row[3]), _text(row[4]), *row[5:])) for row in rows), key=lambda session: session.id)


def columns(connection: Connection, owner_id: int, span: Span) -> Iterator[list[Row]]:
    """Branch, seq, shown tokens, time, group and the role's number of what may be recalled of a span, in pages."""
    for branch_ids in _cut(span.branch_ids):
        yield from _pages(connection, _COLUMNS, _bound(owner_id, span, branch_ids))


def vectors_within(connection: Connection, owner_id: int, model: str, span: Span) -> Iterator[list[Row]]:
    """Branch, seq, when and on which branch it was made, and the vector of a span's entries, in pages."""
    for branch_ids in _cut(span.branch_ids):
        yield from _pages(connection, _VECTORS, _bound(owner_id, span, branch_ids) | {"b_model": model}, VECTORS_PAGE)


def vectors_at(connection: Connection, owner_id: int, model: str, places: Sequence[Place]) -> Iterator[list[Row]]:
    """The same of these places, and of others of their branches and seqs."""
    values = {"b_owner_id": owner_id, "b_model": model}
    yield from _pages(connection, _VECTORS_AT, values | _named(places))


def vector_counts(connection: Connection, owner_id: int, model: str, span: Span) -> dict[int, int]:
    """How many vectors each branch of a span has, those that have any."""
    counts: dict[int, int] = {}
    for branch_ids in _cut(span.branch_ids):
        for page in _pages(connection, _VECTOR_COUNTS, _bound(owner_id, span, branch_ids) | {"b_model": model}):
            counts.update((int(branch_id), int(count)) for branch_id, count in page)
    return counts


def postings(connection: Connection, owner_id: int, names: Sequence[str], span: Span) -> Iterator[list[Row]]:
    """Term (bytes on MySQL), branch, seq and frequency of a span's entries, in pages."""
    for branch_ids in _cut(span.branch_ids):
        for some in _cut(names):
            yield from _pages(connection, _POSTINGS, _bound(owner_id, span, branch_ids) | {"b_terms": list(some)})


def term_counts(connection: Connection, owner_id: int, names: Sequence[str], span: Span) -> dict[str, int]:
    """In how many entries of a span each term stands, those that stand in any."""
    counts: dict[str, int] = {}
    for branch_ids in _cut(span.branch_ids):
        for some in _cut(names):
            for page in _pages(connection, _TERM_COUNTS, _bound(owner_id, span, branch_ids) | {"b_terms": list(some)}):
                for term, count in page:
                    counts[_text(term)] = counts.get(_text(term), 0) + int(count)
    return counts


def entries_at(connection: Connection, owner_id: int, places: Sequence[Place]) -> dict[Place, Entry]:
    """The entries of these places."""
    wanted, found = set(places), {}
    for some in gathered(places):
        for row in connection.execute(_ENTRIES_AT.on(connection), {"b_owner_id": owner_id} | _named(some)).all():
            place = Place(row[0], row[1])
            if place in wanted:
                found[place] = Entry._make(row[1:])
    return found


def gathered(places: Iterable[Place]) -> list[list[Place]]:
    """The places in groups that a statement names at once: each looks at no more than `PROBES`."""
    groups: list[list[Place]] = []
    branch_ids: set[int] = set()
    seqs: set[int] = set()
    for place in sorted(places, key=lambda place: (place.branch_id, place.seq)):
        branch_ids.add(place.branch_id)
        seqs.add(place.seq)
        if not groups or len(seqs) > NAMED or len(branch_ids) * len(seqs) > PROBES:
            groups.append([])
            branch_ids, seqs = {place.branch_id}, {place.seq}
        groups[-1].append(place)
    return groups


def _named(places: Sequence[Place]) -> dict[str, object]:
    return {"b_branches": sorted({place.branch_id for place in places}), "b_seqs": sorted({place.seq for place in places})}


def _bound(owner_id: int, span: Span, branch_ids: Sequence[int]) -> dict[str, object]:
    return {"b_owner_id": owner_id, "b_branches": list(branch_ids), "b_after": span.after, "b_upto": span.upto}


def _cut(names: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(names), NAMED):
        yield names[start : start + NAMED]


def _pages(connection: Connection, statement: Select[Any] | ByKeys, values: dict[str, object], size: int = PAGE) -> Iterator[list[Row]]:
    """The driver's own rows: SQLAlchemy's take three times as long."""
    with connection.execute(statement.on(connection) if isinstance(statement, ByKeys) else statement, values) as result:
        cursor = result.cursor
        assert cursor is not None
        while page := cast(list[Row], list(cursor.fetchmany(size))):
            yield page


def _text(name: str | bytes) -> str:
    """A name as the driver gives it: bytes on MySQL."""
    return name.decode() if isinstance(name, bytes) else name
