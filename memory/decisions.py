"""What became of each entry of the log, as runs of one fate."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from threadkeep.memory.context import Decision, Pick, Verdict
from threadkeep.memory.pieces import Shown

Fate: TypeAlias = tuple[Verdict, str, float | None]

_OF_STATUS: dict[str, tuple[Verdict, str]] = {
    "late": ("late", "came after its group had closed"),
    "erased": ("erased", "its content was erased"),
}
_SAID_OTHERWISE: dict[str, Verdict] = {"excerpt": "recalled", "summary": "summarised"}


def decide(
    head: int,
    picks: Sequence[Pick],
    shown: Mapping[int, Shown],
    tokens: Mapping[int, int],
    unshown: Mapping[int, str],
) -> tuple[Decision, ...]:
    """One decision for every seq from 1 to `head`: the first that applies of kept, clipped, recalled, summarised, left out, late, erased.

    `unshown`: why an entry that was read does not stand in the context: its status, or what replaces it.
    """
    fates: dict[int, Fate] = {}
    for kinds in (("instructions", "entries"), ("excerpt",), ("summary",)):
        for pick in picks:
            if pick.kind in kinds:
                said_otherwise = _SAID_OTHERWISE.get(pick.kind)
                fate: Fate = (said_otherwise or "kept", pick.reason, pick.score)
                if_clipped: Fate = (said_otherwise or "clipped", pick.reason, pick.score)
                for seq in pick.seqs:
                    fates.setdefault(seq, if_clipped if seq in shown and shown[seq].keep is not None else fate)
    for seq, why in unshown.items():
        fates.setdefault(seq, (*(_OF_STATUS.get(why) or ("left out", why)), None))
    return tuple(_runs(head, fates, tokens))


def _runs(head: int, fates: Mapping[int, Fate], tokens: Mapping[int, int]) -> Iterator[Decision]:
    """Neighbours of one fate together, and what nobody chose between them."""
    next_seq = 1
    known = sorted(seq for seq in fates if 1 <= seq <= head)
    for _, run in groupby(enumerate(known), key=lambda at: (at[1] - at[0], fates[at[1]])):
        seqs = [seq for _, seq in run]
        if seqs[0] > next_seq:
            yield Decision(next_seq, seqs[0] - 1, "left out", 0, "not chosen")
        verdict, reason, score = fates[seqs[0]]
        yield Decision(seqs[0], seqs[-1], verdict, sum(tokens.get(seq, 0) for seq in seqs), reason, score)
        next_seq = seqs[-1] + 1
    if next_seq <= head:
        yield Decision(next_seq, head, "left out", 0, "not chosen")
