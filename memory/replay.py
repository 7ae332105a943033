"""A past context made again from its stored record: the same bytes, but for what was erased since."""

import json
from collections.abc import Mapping
from dataclasses import replace

from threadkeep.memory.budget import Budget
from threadkeep.memory.clipping import CLEARED, cleared_tokens
from threadkeep.memory.context import Context, Pick
from threadkeep.memory.decisions import decide
from threadkeep.memory.errors import NotFound
from threadkeep.memory.filling import filled
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Head
from threadkeep.memory.layout import lay_out
from threadkeep.memory.manifest import Manifest
from threadkeep.memory.message import JSON
from threadkeep.memory.pieces import Shown
from threadkeep.stores.sql import SQLStore


def replay(store: SQLStore, owner: str, name: str, turn_id: int) -> Context:
    """The context that a turn was sent.

    Raises:
        NotFound: there is no such turn, or it ended before a context was assembled; or the bytes of a picture it showed are gone.
    """
    session, turn = store.turn(owner, name, turn_id)
    if turn.manifest is None:
        raise NotFound(f"turn {turn_id} of session {name!r} has no context: it ended before one was stored")
    record = Manifest.from_json(turn.manifest)
    profile = Profile.from_dict(record.profile)
    instructions, (tools, response_format) = map(json.loads, store.texts(session.owner_id, record.instructions, record.tools))
    chosen = [_pick(given) for given in record.picks]
    keep = dict(record.clipped)
    with store.history_of(session) as history:
        seqs = {seq for pick in chosen if pick.kind == "entries" for seq in pick.seqs}
        shown = {entry.seq: Shown(entry, keep.get(entry.seq)) for entry in history.entries(seqs) if entry.status != "erased"}
        leading = [entry for entry in history.between(1, record.leading) if entry.status != "erased"] if record.leading else []
        gone = seqs - shown.keys()
        picks = [replace(pick, seqs=tuple(seq for seq in pick.seqs if seq not in gone)) for pick in chosen]
        head = Head(seq=record.head, turn_seq=record.turn, leading=record.leading)
        _, sent = lay_out(instructions, leading, shown, picks, head, profile)
        messages = filled([piece.sent(profile.keys) for piece in sent], history.blobs)
    window, reply = record.budget
    return Context(
        messages=messages,
        budget=Budget(window, reply),
        tokens=record.tokens,
        exact=record.exact,
        counter=record.counter,
        strategy=record.strategy,
        picks=tuple(picks),
        decisions=decide(record.head, picks, shown, _costs(shown), dict.fromkeys(gone, "erased")),
        tools=tuple(tools),
        tools_tokens=record.tools_tokens,
        overhead=record.tokens - record.tools_tokens - sum(pick.tokens for pick in picks),
        response_format=response_format,
        manifest=json.loads(turn.manifest),
        cache_note="made again from the turn's record",
    )


def _pick(record: JSON) -> Pick:
    seqs = tuple(seq for low, high in record["spans"] for seq in range(low, high + 1))  # type: ignore[attr-defined]  # a list of pairs
    return Pick(
        seqs,
        record["tokens"],  # type: ignore[arg-type]
        record["reason"],  # type: ignore[arg-type]
        record.get("score"),  # type: ignore[arg-type]
        record["kind"],  # type: ignore[arg-type]
        record.get("text"),  # type: ignore[arg-type]
        said_us=record.get("said_us", 0),  # type: ignore[arg-type]
    )


def _costs(shown: Mapping[int, Shown]) -> dict[int, int]:
    return {seq: _cost(one) for seq, one in shown.items()}


def _cost(shown: Shown) -> int:
    if shown.keep is None:
        return shown.entry.tokens
    return cleared_tokens(shown.entry) if shown.keep == CLEARED else shown.entry.shown_tokens
