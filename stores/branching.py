"""How a session is forked and goes on on another branch, inside one transaction. What is shared is not read, but for one entry's group."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from sqlalchemy import Connection

from threadkeep.memory.analysis import ANALYSER
from threadkeep.memory.errors import InvalidSetting, NotFound
from threadkeep.memory.history import Head
from threadkeep.stores import branch_queries, queries
from threadkeep.stores.appending import new_id
from threadkeep.stores.queries import Segment, SessionRow
from threadkeep.stores.rows import now_us


def fork(connection: Connection, session: SessionRow, name: str, at: int) -> SessionRow:
    """A new branch that shares the active one's entries up to `at`, and its pins of them. It is the active one from now on.

    Raises:
        NotFound: there is no such entry.
        InvalidSetting: the session has a branch of this name.
    """
    check_seq(session, at, 0)
    if branch_queries.find_branch(connection, session, name) is not None:
        raise InvalidSetting(f"session {session.name!r} has a branch {name!r}: branches() lists them, take another name")
    head = session.head if at == session.head.seq else head_at(connection, session, at)
    shared = list(_shared(session, at, head.shown_tokens))
    branch_id = new_id()
    branch_queries.add_branch(
        connection,
        session,
        {
            "id": branch_id,
            "name": name,
            "lineage": json.dumps([[segment.branch_id, segment.last, segment.shown] for segment in shared]),
            "head_seq": head.seq,
            "head_tokens": head.tokens,
            "head_shown": head.shown_tokens,
            "head_group": head.group_seq,
            "head_turn": head.turn_seq,
            "leading": head.leading,
            "open_calls": json.dumps(head.open_calls),
            "analyser": ANALYSER,
            "created_us": now_us(),
        },
    )
    branch_queries.activate(connection, session, branch_id)
    own = Segment(branch_id, at + 1, at, head.shown_tokens)
    forked = replace(session, branch_id=branch_id, segments=(*shared, own), head=head)
    queries.add_pins(connection, forked, [seq for seq in queries.pinned_seqs(connection, session, session.head.seq) if seq <= at])
    return forked


def check_seq(session: SessionRow, seq: int, first: int) -> None:
    """Refuse the seq of an entry that is not there.

    Raises:
        NotFound: it is not.
    """
    if not first <= seq <= session.head.seq:
        raise NotFound(f"session {session.name!r} has no entry {seq}: its entries run from 1 to {session.head.seq}")


def _shared(session: SessionRow, at: int, shown: int) -> Iterator[Segment]:
    """What of the lineage a fork has, branches without an entry there left out."""
    for segment in session.segments:
        if segment.first <= min(segment.last, at):
            yield segment if segment.last <= at else replace(segment, last=at, shown=shown)


def head_at(connection: Connection, session: SessionRow, at: int) -> Head:
    """What the head was when entry `at` was the last: from that entry, and the others of its group."""
    if at == 0:
        return Head()
    (entry,) = queries.entries_of(connection, session, [at])
    leading = min(session.head.leading, at)
    if entry.status == "late":
        group_seq = branch_queries.newest_group(connection, session, at - 1)
        return Head(at, entry.cum_tokens, entry.cum_shown, group_seq, entry.turn_seq, (), leading)
    members = [entry] if entry.group_seq == at else queries.entries_between(connection, session, entry.group_seq, at)
    calls = [call.id for call in members[0].message.tool_calls]
    for member in members[1:]:
        calls.remove(str(member.message.tool_call_id))
    return Head(at, entry.cum_tokens, entry.cum_shown, entry.group_seq, entry.turn_seq, tuple(calls), leading)


def new_name(connection: Connection, session: SessionRow, words: str, end: str = "") -> str:
    """A name that no branch of the session has: the words, with this end, or with a few random characters, more where those are taken."""
    name = f"{words}-{end or secrets.token_hex(2)}"
    for size in count(3):
        if branch_queries.find_branch(connection, session, name) is None:
            return name
        name = f"{words}-{secrets.token_hex(size)}"
    raise AssertionError("there is always another name")
