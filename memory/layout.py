"""The order of a request: instructions, summaries, entries by time, and what is recalled directly before the live user message."""

import re
from collections.abc import Iterator, Mapping, Sequence

from threadkeep.memory.context import Pick
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Entry, Head
from threadkeep.memory.message import Message, TextPart
from threadkeep.memory.pieces import Piece, Shown
from threadkeep.memory.repair import in_shape, missing_results

INSTRUCTIONS, SUMMARISED, RECALLED_BLOCK = 0, -1, -2
"""`Piece.seq` of what is no entry: the instructions, the message of all summaries, and that of all excerpts."""
RECALLED = "Earlier messages that may matter for the user's next message. Use what is relevant and ignore the rest:"
"""What opens the recalled block, of this conversation or of others; why these words: docs/recall_block.md."""
BREAK = "\u200b"
"""Has no width: what it parts looks as it was and is no fence."""
_FENCE = re.compile(r"(?<=<)(?=/?recalled>)", re.IGNORECASE)


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
        pieces.append(Piece(Message.system("Summary of what was said before:\n" + "\n".join(summaries)), None, seq=SUMMARISED))
    recalled = _recalled(picks)
    placed = recalled is None
    for piece in _with_results([Piece.of(shown[seq], profile) for seq in sorted(shown)], profile):
        if recalled is not None and not placed and piece.seq >= head.turn_seq:
            pieces.append(recalled)
            placed = True
        pieces.append(piece)
    if recalled is not None and not placed:
        pieces.append(recalled)
    fenced = recalled is not None and profile.system == "first"
    return pieces, in_shape(list(_fenced(pieces, recalled)) if fenced else pieces, profile)


def _recalled(picks: Sequence[Pick]) -> Piece | None:
    """The block of all excerpts, oldest first."""
    excerpts = sorted((pick for pick in picks if pick.kind == "excerpt" and pick.text), key=lambda pick: (pick.said_us, pick.seqs))
    if not excerpts:
        return None
    return Piece(Message.system("\n".join([RECALLED, *(str(pick.text) for pick in excerpts)])), None, seq=RECALLED_BLOCK)


def _fenced(pieces: Sequence[Piece], recalled: Piece | None) -> Iterator[Piece]:
    """The block as the head of the user message behind it, in a fence that nothing recalled can close."""
    fence: str | None = None
    for piece in pieces:
        if piece is recalled:
            fence = f"<recalled>\n{_FENCE.sub(BREAK, piece.message.text)}\n</recalled>"
        elif fence is None:
            yield piece
        elif piece.role == "user":
            told = piece.message.content
            content = f"{fence}\n\n{told}" if isinstance(told, str) else (TextPart(f"{fence}\n\n"), *piece.message.parts)
            yield Piece(piece.message.with_content(content), None, seq=piece.seq)
            fence = None
        else:
            yield from (Piece(Message.user(fence), None, seq=RECALLED_BLOCK), piece)
            fence = None
    if fence is not None:
        yield Piece(Message.user(fence), None, seq=RECALLED_BLOCK)


def _with_results(pieces: Sequence[Piece], profile: Profile) -> Iterator[Piece]:
    """The entries, with a made result behind each group for every call that has none."""
    asked: Piece | None = None
    results: list[Message] = []
    for piece in pieces:
        if asked is not None and piece.role != "tool":
            yield from _missing(asked, results)
            asked = None
        if profile.tools and piece.calls_tools:
            asked, results = piece, []
        elif asked is not None:
            results.append(piece.message)
        yield piece
    if asked is not None:
        yield from _missing(asked, results)


def _missing(asked: Piece, results: Sequence[Message]) -> Iterator[Piece]:
    for message in missing_results(asked.message, results):
        yield Piece(message, None, seq=asked.seq)
