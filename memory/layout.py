"""The order of a request: instructions, summaries, entries by time, and what is recalled directly before the live user message."""

from collections.abc import Iterator, Mapping, Sequence

from threadkeep.memory.context import Pick
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Entry, Head
from threadkeep.memory.message import Message
from threadkeep.memory.pieces import Piece, Shown
from threadkeep.memory.repair import in_shape, missing_results

INSTRUCTIONS, MADE = 0, -1
"""`Piece.seq` of the instructions that are no entry, and of messages made here."""


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
        pieces.append(Piece(Message.system("Summary of what was said before:\n" + "\n".join(summaries)), None, seq=MADE))
    excerpts = [pick.text for pick in sorted(picks, key=lambda pick: pick.seqs) if pick.kind == "excerpt" and pick.text]
    recalled = Message.system("Said earlier in this conversation:\n" + "\n".join(excerpts)) if excerpts else None
    for piece in _with_results([Piece.of(shown[seq], profile) for seq in sorted(shown)], profile):
        if recalled is not None and piece.seq >= head.turn_seq:
            pieces.append(Piece(recalled, None, seq=MADE))
            recalled = None
        pieces.append(piece)
    if recalled is not None:
        pieces.append(Piece(recalled, None, seq=MADE))
    return pieces, in_shape(pieces, profile)


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
