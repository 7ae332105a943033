"""What became of each entry of the log, as runs of one fate."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from threadkeep.memory.clipping import CLEARED
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
                if_cleared: Fate = (said_otherwise or "clipped", f"{pick.reason}, the tool's result cleared", pick.score)
                for seq in pick.seqs:
                    keep = shown[seq].keep if seq in shown else None
                    fates.setdefault(seq, fate if keep is None else if_cleared if keep == CLEARED else if_clipped)
    for seq, why in unshown.items():
        fates.setdefault(seq, (*(_OF_STATUS.get(why) or ("left out", why)), None))
    spent = dict(tokens)
    for pick in picks:
        if pick.kind not in _SAID_OTHERWISE:
            continue
        first = next((seq for seq in pick.seqs if fates[seq][0] in _SAID_OTHERWISE.values()), None)
        if first is not None:
            spent[first] = spent.get(first, 0) + pick.tokens
    return tuple(_runs(head, fates, spent))


def _runs(head: int, fates: Mapping[int, Fate], tokens: Mapping[int, int]) -> Iterator[Decision]:
    """Neighbours of one fate together, and what nobody chose between them."""
    known = sorted(seq for seq in fates if 1 <= seq <= head)
    at, next_seq = 0, 1
    while at < len(known):
        first = last = known[at]
        fate, spent = fates[first], tokens.get(first, 0)
        at += 1
        while at < len(known) and known[at] == last + 1 and fates[known[at]] == fate:
            last = known[at]
            spent += tokens.get(last, 0)
            at += 1
        if first > next_seq:
            yield Decision(next_seq, first - 1, "left out", 0, "not chosen")
        verdict, reason, score = fate
        yield Decision(first, last, verdict, spent, reason, score)
        next_seq = last + 1
    if next_seq <= head:
        yield Decision(next_seq, head, "left out", 0, "not chosen")
