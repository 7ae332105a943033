"""How messages come into a session, inside one transaction."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from threadkeep.memory.analysis import ANALYSER
from threadkeep.memory.clipping import CLIP_TOKENS
from threadkeep.memory.errors import KeyReused
from threadkeep.memory.history import Entry, Head
from threadkeep.memory.log import follow
from threadkeep.stores import blobs, queries
from threadkeep.stores.history import entry_of
from threadkeep.stores.queries import Segment, SessionRow
from threadkeep.stores.rows import Prepared, digest, now_us
from threadkeep.stores.selecting import add_marks

MAIN = "main"
"""The name of a session's first branch."""
MIXED = ""
"""The tokenizer of a session whose entries were counted by several: its counts are estimates."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append came to."""

    session: SessionRow
    """The session with its new head."""
    entries: tuple[Entry, ...]
    repeated: bool = False
    """The key had come before, with the same content: nothing was written, these are the entries of then."""


def new_id() -> int:
    """A positive 63-bit number, rising with time: milliseconds, then 21 random bits."""
    return (int(time.time() * 1000) << 21 | secrets.randbits(21)) & (2**63 - 1)


def session_for_append(connection: Connection, owner: str, name: str, tokenizer: str) -> SessionRow:
    """The session, locked; made with its owner and first branch where it is new.

    Where two transactions make the same owner or session at once, the database takes one; the other is undone, run again, and finds it.
    """
    found = queries.find_session(connection, owner, name, lock=True)
    if found is not None:
        return counted_by(connection, found, tokenizer)
    now = now_us()
    owner_id = queries.find_owner(connection, owner, lock=True)
    if owner_id is None:
        owner_id = new_id()
        queries.add_owner(connection, owner_id, owner, now)
    session_id, branch_id = new_id(), new_id()
    queries.add_session(
        connection,
        {
            "owner_id": owner_id,
            "id": session_id,
            "name": name,
            "active_branch": branch_id,
            "tokenizer": tokenizer,
            "clip": CLIP_TOKENS,
            "revision": 0,
            "created_us": now,
            "updated_us": now,
        },
        {
            "owner_id": owner_id,
            "id": branch_id,
            "session_id": session_id,
            "name": MAIN,
            "lineage": "[]",
            "head_seq": 0,
            "head_tokens": 0,
            "head_shown": 0,
            "head_group": 0,
            "head_turn": 0,
            "leading": 0,
            "open_calls": json.dumps([]),
            "analyser": ANALYSER,
            "created_us": now,
        },
    )
    return SessionRow(owner_id, session_id, branch_id, name, tokenizer, CLIP_TOKENS, 0, (Segment(branch_id, 1, 0, 0),), Head())


def counted_by(connection: Connection, session: SessionRow, tokenizer: str) -> SessionRow:
    """The session, some of its entries now counted by this tokenizer."""
    if session.tokenizer in (tokenizer, MIXED):
        return session
    queries.set_tokenizer(connection, session, MIXED)
    return replace(session, tokenizer=MIXED)


def append(connection: Connection, session: SessionRow, prepared: Sequence[Prepared], key: str | None = None) -> Appended:
    """Write messages behind the head, all or none.

    Raises:
        KeyReused: the key came before with other content.
        InvalidMessage: a picture is named that the owner does not have.
    """
    fingerprint = None if key is None else digest(prepared)
    if key is not None:
        known = queries.find_key(connection, session, key)
        if known is not None:
            seq, before, upto = known
            if before != fingerprint:
                raise KeyReused(f"the key {key!r} was used for other content, at entry {seq} of session {session.name!r}: take a new key")
            if seq + len(prepared) - 1 > upto:
                raise KeyReused(
                    f"the key {key!r} was used for these {len(prepared)} messages, from entry {seq} of session {session.name!r} on, and "
                    f"this branch was forked in their middle, at entry {upto}: take a new key"
                )
            return Appended(session, tuple(queries.entries_between(connection, session, seq, seq + len(prepared) - 1)), repeated=True)
    now = now_us()
    head = session.head
    entries: list[Entry] = []
    for one in prepared:
        place, head = follow(head, one.message, one.tokens, one.shown_tokens)
        entries.append(entry_of(one, place, now, None if entries else key))
    owned = {"owner_id": session.owner_id, "branch_id": session.branch_id}
    rows = [
        {
            **owned,
            "seq": entry.seq,
            "role": one.message.role,
            "body": entry.body,
            "tokens": entry.tokens,
            "shown_tokens": entry.shown_tokens,
            "exact": entry.exact,
            "cum_tokens": entry.cum_tokens,
            "cum_shown": entry.cum_shown,
            "group_seq": entry.group_seq,
            "turn_seq": entry.turn_seq,
            "key": entry.key,
            "key_digest": fingerprint if entry.key is not None else None,
            "status": entry.status,
            "metadata": entry.metadata_json,
            "created_us": entry.created_us,
        }
        for one, entry in zip(prepared, entries, strict=True)
    ]
    term_rows = [
        {**owned, "term": term, "seq": entry.seq, "frequency": frequency, "length": one.terms.total()}
        for one, entry in zip(prepared, entries, strict=True)
        for term, frequency in one.terms.items()
    ]
    vector_rows = [
        {**owned, "seq": entry.seq, "model": one.vector.model, "vector": one.vector.stored, "made_at_seq": entry.seq - 1}
        for one, entry in zip(prepared, entries, strict=True)
        if one.vector is not None
    ]
    attached = [(entry.seq, blob) for one, entry in zip(prepared, entries, strict=True) for blob in one.attached]
    if attached:
        blobs.keep(connection, session.owner_id, session.branch_id, attached)
    queries.add_entries(connection, rows, term_rows, vector_rows)
    made = list(zip(prepared, entries, strict=True))
    add_marks(
        connection,
        [{**owned, "tag": tag, "seq": entry.seq} for one, entry in made for tag in one.tags],
        [{**owned, "seq": entry.seq, "importance": one.importance} for one, entry in made if one.importance is not None],
    )
    queries.move_head(connection, session, head, now)
    last = session.segments[-1]
    segments = (*session.segments[:-1], Segment(last.branch_id, last.first, head.seq, head.shown_tokens))
    return Appended(replace(session, head=head, segments=segments), tuple(entries))
