"""What stands in a context while it is put together, and what of it is given up first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from threadkeep.memory.context import Pick
from threadkeep.memory.pieces import Shown


@dataclass
class Selection:
    """What stands in the context so far: entries by seq with the pick that brought each, and what is said in other words."""

    shown: dict[int, Shown] = field(default_factory=dict)
    picks: list[Pick] = field(default_factory=list)
    """In the order of importance: must-keeps first."""

    def add(self, pick: Pick, shown: Iterable[Shown]) -> None:
        """A pick with the entries that it brings first."""
        new = {one.entry.seq: one for one in shown if one.entry.seq not in self.shown}
        self.shown.update(new)
        if new or pick.kind != "entries":
            self.picks.append(replace(pick, seqs=tuple(sorted(new)) if pick.kind == "entries" else pick.seqs, clearing=None))

    def leave_out_what_is_said_twice(self) -> None:
        """Excerpts of entries that stand whole; an entry of another session has no seq here."""
        whole = {seq for seq, one in self.shown.items() if one.keep is None}
        self.picks = [pick for pick in self.picks if pick.kind != "excerpt" or not pick.seqs or not whole.issuperset(pick.seqs)]

    def give_up(self, over: int, costs: Mapping[int, int]) -> None:
        """Let go of what matters least, for `over` tokens too many: the last excerpt, else the beginning of the last pick.

        Excerpts change with every turn and stand last, so a model's prefix cache loses nothing by them.
        """
        excerpts = [at for at, pick in enumerate(self.picks) if pick.kind == "excerpt"]
        at = excerpts[-1] if excerpts else len(self.picks) - 1
        pick = self.picks[at]
        kept = () if pick.kind != "entries" else self._without_oldest(pick, over, costs)
        for seq in pick.seqs if pick.kind == "entries" else ():
            if seq not in kept:
                del self.shown[seq]
        if kept:
            self.picks[at] = replace(pick, seqs=kept)
        else:
            del self.picks[at]

    def _without_oldest(self, pick: Pick, over: int, costs: Mapping[int, int]) -> tuple[int, ...]:
        """What stays of a pick when its beginning goes: one whole step, or as many groups as free `over` tokens."""
        entries = [self.shown[seq].entry for seq in pick.seqs]
        if pick.step:
            line = (entries[0].start // pick.step + 1) * pick.step
            first = next((entry.seq for entry in entries if entry.start >= line and entry.group_seq == entry.seq), None)
            return () if first is None else tuple(seq for seq in pick.seqs if seq >= first)
        freed = 0
        for group_seq, members in groupby(entries, key=lambda entry: entry.group_seq):
            if freed >= over:
                return tuple(entry.seq for entry in entries if entry.group_seq >= group_seq)
            freed += sum(costs.get(entry.seq, 0) for entry in members)
        return ()
