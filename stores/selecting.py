"""Every statement about what entries are chosen by: roles, tags, importances. As in `queries`, each names its owner."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, bindparam, insert, select

from threadkeep.stores.queries import SessionRow, at, within
from threadkeep.stores.schema import importances, messages, tags


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a matching entry has, of all that is given here; nothing given: every entry matches."""

    roles: Collection[str] = ()
    """One of these."""
    tags: Collection[str] = ()
    """One of these."""
    importance: float | None = None
    """At least this; an entry that was given none has less than any."""

    def matches(self, role: str, tags: Collection[str], importance: float | None) -> bool:
        """Whether an entry with these does."""
        return (
            (not self.roles or role in self.roles)
            and (not self.tags or not set(tags).isdisjoint(self.tags))
            and (self.importance is None or (importance is not None and importance >= self.importance))
        )


def _of(table: Table, *columns: str) -> Select[Any]:
    """Seqs by a table whose key leads to them, the newest first."""
    in_part = (table.c.seq >= bindparam("b_first"), table.c.seq <= bindparam("b_last"))
    return select(table.c.seq).where(at(table, "branch_id", *columns), *in_part).order_by(table.c.seq.desc()).limit(bindparam("b_limit"))


_ANY = _of(messages)
_BY_ROLE = _of(messages, "role")
_BY_TAG = _of(tags, "tag")
_BY_IMPORTANCE = _of(importances).where(importances.c.importance >= bindparam("b_importance"))


def _beside(column: Column[Any], table: Table) -> ColumnElement[Any]:
    """What the same entry has in another table. A value is looked up by its key, where EXISTS may become a join that reads them all."""
    same = (column.table.c[name] == table.c[name] for name in ("owner_id", "branch_id", "seq"))
    return select(column).where(*same).correlate(table).scalar_subquery()


_TAG_AND_IMPORTANCE = _BY_TAG.where(_beside(importances.c.importance, tags) >= bindparam("b_importance"))


def _also_of_roles(statement: Select[Any], table: Table) -> Select[Any]:
    return statement.where(_beside(messages.c.role, table).in_(bindparam("b_roles", expanding=True)))


_OF_ROLES = {
    statement: _also_of_roles(statement, table)
    for statement, table in ((_BY_TAG, tags), (_BY_IMPORTANCE, importances), (_TAG_AND_IMPORTANCE, tags))
}


def newest_matching(connection: Connection, session: SessionRow, wanted: Wanted, before: int, limit: int) -> list[int]:
    """The seqs of the newest `limit` entries that match, before a seq, along the lineage; descending. Late ones may be among them.

    Each condition is read off a key that ends with the seq, the newest first, so what does not match is not read; where several are
    given, the tags lead, else the importance, and the others are looked up one by one.
    """
    found: list[int] = []
    for segment, first, last in reversed(list(within(session, 1, before - 1))):
        here = {"b_owner_id": session.owner_id, "b_branch_id": segment.branch_id, "b_first": first, "b_last": last}
        seqs = {
            seq
            for statement, values in _statements(wanted)
            for seq in connection.execute(statement, {**here, **values, "b_limit": limit - len(found)}).scalars()
        }
        found.extend(sorted(seqs, reverse=True)[: limit - len(found)])
        if len(found) >= limit:
            break
    return found


def _statements(wanted: Wanted) -> Iterator[tuple[Select[Any], Mapping[str, object]]]:
    """One for each tag, or for each role where nothing else is asked: their answers together are the answer."""
    if not wanted.tags and wanted.importance is None:
        if not wanted.roles:
            yield _ANY, {}
        for role in sorted(wanted.roles):
            yield _BY_ROLE, {"b_role": role}
        return
    more: dict[str, object] = {} if wanted.importance is None else {"b_importance": wanted.importance}
    statement = _BY_IMPORTANCE if not wanted.tags else _BY_TAG if wanted.importance is None else _TAG_AND_IMPORTANCE
    if wanted.roles:
        statement, more["b_roles"] = _OF_ROLES[statement], sorted(wanted.roles)
    if not wanted.tags:
        yield statement, more
    for tag in sorted(wanted.tags):
        yield statement, {**more, "b_tag": tag}


def add_marks(connection: Connection, tag_rows: Sequence[Mapping[str, object]], importance_rows: Sequence[Mapping[str, object]]) -> None:
    """Store what entries can be chosen by, beside their rows."""
    for table, rows in ((tags, tag_rows), (importances, importance_rows)):
        if rows:
            connection.execute(insert(table), [dict(row) for row in rows])
