"""The order of a request: instructions, summaries, entries by time, and what is recalled directly before the live user message."""

from collections.abc import Iterator, Mapping, Sequence

from threadkeep.memory.context import Pick
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Entry, Head
from threadkeep.memory.message import Message, TextPart
from threadkeep.memory.pieces import Piece, Shown
from threadkeep.memory.quotation import recalled, summarised
from threadkeep.memory.repair import in_shape, missing_results

INSTRUCTIONS, SUMMARISED, RECALLED_BLOCK = 0, -1, -2
"""`Piece.seq` of what is no entry: the instructions, the message of all summaries, and that of all excerpts."""


def lay_out(
    instructions: str | None,
    leading: Sequence[Entry],
    shown: Mapping[int, Shown],
    picks: Sequence[Pick],
    head: Head,
    profile: Profile,
) -> tuple[list[Piece], list[Piece]]:
    """The pieces in order, each with its own cost, and the same in the profile's shape, as they are sent."""
    pieces: list[Piece] = []
    if instructions:
        pieces.append(Piece(Message.system(instructions), None, seq=INSTRUCTIONS))
    pieces.extend(Piece.of(Shown(entry), profile) for entry in leading)
    summaries = [pick.text for pick in picks if pick.kind == "summary" and pick.text]
    if summaries:
        pieces.append(Piece(Message.system(summarised(summaries)), None, seq=SUMMARISED))
    entries = [Piece.of(shown[seq], profile) for seq in sorted(shown)]
    if profile.tools and any(piece.calls_tools for piece in entries):
        entries = list(_with_results(entries))
    block = _block(picks)
    if block is not None:
        entries.insert(next((at for at, piece in enumerate(entries) if piece.seq >= head.turn_seq), len(entries)), block)
    pieces.extend(entries)
    told_by_user = block is not None and profile.system == "first"
    return pieces, in_shape(list(_told_by_user(pieces, block)) if told_by_user else pieces, profile)


def _block(picks: Sequence[Pick]) -> Piece | None:
    """The block of all excerpts, oldest first."""
    excerpts = sorted((pick for pick in picks if pick.kind == "excerpt" and pick.text), key=lambda pick: (pick.said_us, pick.seqs))
    if not excerpts:
        return None
    return Piece(Message.system(recalled(str(pick.text) for pick in excerpts)), None, seq=RECALLED_BLOCK)


def _told_by_user(pieces: Sequence[Piece], block: Piece | None) -> Iterator[Piece]:
    """The block as the head of the user message behind it."""
    quoted: str | None = None
    for piece in pieces:
        if piece is block:
            quoted = piece.message.text
        elif quoted is None:
            yield piece
        elif piece.role == "user":
            told = piece.message.content
            content = f"{quoted}\n\n{told}" if isinstance(told, str) else (TextPart(f"{quoted}\n\n"), *piece.message.parts)
            yield Piece(piece.message.with_content(content), None, seq=piece.seq)
            quoted = None
        else:
            yield from (Piece(Message.user(quoted), None, seq=RECALLED_BLOCK), piece)
            quoted = None
    if quoted is not None:
        yield Piece(Message.user(quoted), None, seq=RECALLED_BLOCK)


def _with_results(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The entries, with a made result behind each group for every call that has none."""
    asked: Piece | None = None
    results: list[Message] = []
    for piece in pieces:
        if asked is not None and piece.role != "tool":
            yield from _missing(asked, results)
            asked = None
        if piece.calls_tools:
            asked, results = piece, []
        elif asked is not None:
            results.append(piece.message)
        yield piece
    if asked is not None:
        yield from _missing(asked, results)


def _missing(asked: Piece, results: Sequence[Message]) -> Iterator[Piece]:
    for message in missing_results(asked.message, results):
        yield Piece(message, None, seq=asked.seq)
