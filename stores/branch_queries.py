"""Every statement about branches. As in `queries`, each names its owner."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select

from threadkeep.memory.branch import Branch
from threadkeep.memory.errors import NotFound
from threadkeep.memory.history import moment
from threadkeep.stores.probing import by_keys
from threadkeep.stores.queries import SessionRow, at, change, read_session
from threadkeep.stores.schema import branches, messages, sessions

_HEAD = tuple(branches.c[name] for name in "id lineage head_seq head_tokens head_shown head_group head_turn open_calls leading".split())
_BY_ID = select(*_HEAD).where(at(branches, "id"))
_BY_NAME = select(*_HEAD).where(at(branches, "session_id", "name"))
_ACTIVATE = change(sessions).where(at(sessions, "id")).values(active_branch=bindparam("b_active_branch"))
_COLUMNS = tuple(branches.c[name] for name in "id name lineage head_seq head_tokens created_us".split())
_LISTED = select(*_COLUMNS)
_OF_IDS = by_keys(_COLUMNS, branches, at(branches), {"id": "b_ids"})
_NEWEST = _LISTED.where(at(branches, "session_id")).order_by(branches.c.id.desc()).limit(bindparam("b_limit"))
_BEHIND = _NEWEST.where(branches.c.id < bindparam("b_id"))
_SHOWABLE = (
    select(messages.c.group_seq)
    .where(
        at(messages, "branch_id"),
        messages.c.seq >= bindparam("b_first"),
        messages.c.seq <= bindparam("b_last"),
        messages.c.status != "late",
    )
    .order_by(messages.c.seq.desc())
    .limit(1)
)


def find_branch(connection: Connection, session: SessionRow, name: str) -> SessionRow | None:
    """The session as if its branch of this name was the active one; None: it has none."""
    values = {"b_owner_id": session.owner_id, "b_session_id": session.id, "b_name": name}
    return _on(session, connection.execute(_BY_NAME, values).one_or_none())


def need_branch(connection: Connection, session: SessionRow, name: str) -> SessionRow:
    """The same, where it must be there.

    Raises:
        NotFound: it is not.
    """
    found = find_branch(connection, session, name)
    if found is None:
        raise NotFound(f"session {session.name!r} has no branch {name!r}: branches() lists those it has")
    return found


def on_branch(connection: Connection, session: SessionRow, branch_id: int) -> SessionRow:
    """The session as if this branch of it was the active one."""
    if branch_id == session.branch_id:
        return session
    found = _on(session, connection.execute(_BY_ID, {"b_owner_id": session.owner_id, "b_id": branch_id}).one())
    assert found is not None
    return found


def _on(session: SessionRow, found: Row[Any] | None) -> SessionRow | None:
    if found is None:
        return None
    of_session = (session.name, session.tokenizer, session.clip, session.revision)
    return read_session((session.owner_id, session.id, found.id, *of_session, *found[1:]))


def add_branch(connection: Connection, session: SessionRow, values: Mapping[str, object]) -> None:
    connection.execute(insert(branches), {"owner_id": session.owner_id, "session_id": session.id, **values})


def activate(connection: Connection, session: SessionRow, branch_id: int) -> None:
    """Let the session go on on this branch of it."""
    connection.execute(_ACTIVATE, {"b_owner_id": session.owner_id, "b_id": session.id, "b_active_branch": branch_id})


def active_branch(connection: Connection, session: SessionRow) -> Branch:
    """The session's active branch, as a list shows it."""
    rows = _of_ids(connection, session, [segment.branch_id for segment in session.segments[-2:]])  # with the one it was forked from
    return next(branch for branch in _listed(session, rows, rows) if branch.active)


def list_branches(connection: Connection, session: SessionRow, before_id: int | None, limit: int) -> list[Branch]:
    """The session's branches, the newest first; those older than the one of this id."""
    values = {"b_owner_id": session.owner_id, "b_session_id": session.id, "b_limit": limit, "b_id": before_id}
    rows = connection.execute(_NEWEST if before_id is None else _BEHIND, values).all()
    parents = {_forked_from(row)[0] for row in rows} - {row.id for row in rows} - {0}
    return list(_listed(session, rows, [*rows, *_of_ids(connection, session, sorted(parents))]))


def _of_ids(connection: Connection, session: SessionRow, ids: Sequence[int]) -> Sequence[Row[Any]]:
    return connection.execute(_OF_IDS.on(connection), {"b_owner_id": session.owner_id, "b_ids": ids}).all() if ids else ()


def _listed(session: SessionRow, rows: Sequence[Row[Any]], with_parents: Sequence[Row[Any]]) -> Iterator[Branch]:
    names = {row.id: row.name for row in with_parents}
    for row in rows:
        parent, upto = _forked_from(row)
        active = row.id == session.branch_id
        yield Branch(row.name, names.get(parent), upto, row.head_seq, row.head_tokens, active, moment(row.created_us))


def _forked_from(row: Row[Any]) -> tuple[int, int]:
    """Which branch, and behind which entry; 0 and 0: it shares nothing."""
    parent, upto = json.loads(row.lineage)[-1][:2] if row.lineage != "[]" else (0, 0)
    return parent, upto


def newest_group(connection: Connection, session: SessionRow, upto: int) -> int:
    """The group of the newest entry up to a seq that came in time; 0: there is none."""
    for segment in reversed(session.segments):
        values = {
            "b_owner_id": session.owner_id,
            "b_branch_id": segment.branch_id,
            "b_first": segment.first,
            "b_last": min(segment.last, upto),
        }
        found = connection.execute(_SHOWABLE, values).scalar_one_or_none()
        if found is not None:
            return int(found)
    return 0
