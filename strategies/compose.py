"""Several strategies as one, each with a share of the budget."""

from collections.abc import Callable, Sequence

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting, StrategyError
from threadkeep.memory.history import History, Summary
from threadkeep.memory.index import Scope
from threadkeep.strategies.base import Strategy, Summarising
from threadkeep.strategies.view import WithShown


class Compose:
    """Asks its parts in order, and returns what all of them chose.

    Each part has its share of the room, fixed, and of what is left beside the live turn; what the parts before it left unspent comes
    on top of that. So what is to stay in place from turn to turn comes first (a window, summaries), and what follows the question last
    (recall), with all that is spare. Each part sees in `history.shown` what the parts before it picked. When the whole does not fit,
    excerpts go first, then the last part's picks.

    Args:
        *parts: the strategies, a `Compose` among them where wanted.
        shares: each part's share of the budget, above 0, together at most 1. What they leave of it goes to nobody.
    """

    def __init__(self, *parts: Strategy, shares: Sequence[float]) -> None:
        self.parts = parts
        self.shares = tuple(shares) if isinstance(shares, Sequence) else ()
        if not parts:
            raise InvalidSetting(
                "Compose() has no part: give the strategies that it asks, for example Compose(SlidingWindow(), shares=(1,))"
            )
        for part in parts:
            if not isinstance(part, Strategy):
                raise InvalidSetting(f"Compose({part!r:.80}): a part is a strategy, an object with a method pick(history, budget)")
        if len(self.shares) != len(parts):
            raise InvalidSetting(f"Compose(shares={shares!r:.80}): {len(parts)} parts have {len(parts)} shares, one after the other")
        if not all(isinstance(share, int | float) and share > 0 for share in self.shares) or sum(self.shares) > 1 + 1e-9:
            raise InvalidSetting(f"Compose(shares={self.shares!r:.80}): each is above 0, and their sum is at most 1")

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.parts))}, shares={self.shares!r})"

    @property
    def scope(self) -> Scope:
        """`owner` if a part asks the owner's other sessions."""
        return "owner" if any(getattr(part, "scope", "session") == "owner" for part in self.parts) else "session"

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        live = range(history.head.turn_seq or history.head.seq + 1, history.head.seq + 1)
        standing = {entry.seq for entry in history.pinned()} | history.shown
        picks: list[Pick] = []
        unspent = 0
        for part, share in zip(self.parts, self.shares, strict=True):
            own = budget.part(share, unspent)
            chosen = part.pick(WithShown(history, frozenset(standing)), own)
            if not isinstance(chosen, Sequence) or not all(isinstance(pick, Pick) for pick in chosen):
                raise StrategyError(f"{part!r} returned {chosen!r:.80}: pick() returns a list of Picks")
            spent = 0
            for pick in chosen:
                spent += pick.tokens
                if pick.kind == "entries":
                    again = [seq for seq in pick.seqs if seq in standing or seq in live]
                    spent -= sum(entry.shown_tokens for entry in history.entries(again))
                    standing.update(pick.seqs)
            picks.extend(chosen)
            unspent = max(0, own.left - max(0, spent))
        return picks

    @property
    def recipes(self) -> Sequence[str]:
        return tuple(dict.fromkeys(recipe for part in self._summarising for recipe in part.recipes))

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        return next((part.due(history, recipe) for part in self._summarising if recipe in part.recipes), None)

    @property
    def _summarising(self) -> list[Summarising]:
        return [part for part in self.parts if isinstance(part, Summarising)]
