"""One summary of all that is old, written anew from itself and what was said since."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import History, Summary
from threadkeep.strategies.sliding_window import SlidingWindow
from threadkeep.strategies.summarised_runs import behind, check_numbers, checked_summariser, recipe_name, run_from, said_in, told, writing
from threadkeep.strategies.summariser import Summariser, SummaryRequest
from threadkeep.strategies.summariser_extractive import ExtractiveSummariser


@dataclass(frozen=True)
class RollingSummary:
    """A summary of what is old, and the newest entries that fit beside it.

    Each summary is made of the one before and of a run of whole turns. It is stored as one level above the one before, from the log's
    first entry on, since it holds what that held: so erasing an entry takes all summaries with it that may tell of it, and no others.
    Before there is one, it is the sliding window.

    Args:
        summariser: writes them; by default sentences are chosen, without a model. One that fails is stood in for by that, until it has
            written its own.
        span: tokens that are taken in at a time, at least.
        tokens: the most that the summary takes; so much of the budget's room is kept for it, at most half.
        recent: tokens at the end of the log that are not taken in yet. Less than the window shows, so that nothing falls between.
        step: the window's grid, as for `SlidingWindow`.
    """

    summariser: Summariser = field(default_factory=ExtractiveSummariser)
    span: int = 1024
    tokens: int = 512
    recent: int = 1024
    step: float = 0.25

    def __post_init__(self) -> None:
        checked_summariser(self.summariser, "RollingSummary")
        check_numbers("RollingSummary", 1, span=self.span, tokens=self.tokens)
        check_numbers("RollingSummary", 0, recent=self.recent)
        SlidingWindow(self.step)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("span", "tokens", "recent", "step"))
        return f"RollingSummary({self.summariser.name!r}, {settings})"

    @property
    def recipes(self) -> Sequence[str]:
        """The summariser's; then, where that is a model's, what stands in for it."""
        own = recipe_name("rolling", self.span, self.tokens, self.summariser.name)
        stand_in = ExtractiveSummariser()
        return (own,) if self.summariser.name == stand_in.name else (own, recipe_name("rolling", stand_in.name, "for", own))

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        if recipe not in self.recipes:
            raise InvalidSetting(f"{self!r} has the recipes {list(self.recipes)}, not {recipe!r}")
        own = recipe == self.recipes[0]
        written = history.summaries(recipe, newest=1) if own else self._stored(history, 1)
        newest = max(written, key=lambda one: one.last, default=None)
        start = history.head.leading + 1
        run = run_from(history, newest.last + 1 if newest else start, tokens=self.span, recent=self.recent)
        if not run:
            return None
        request = SummaryRequest(said_in(run), self.tokens, before=newest.text if newest else None)
        level = newest.level + 1 if newest else 1
        return writing(self.summariser if own else ExtractiveSummariser(), request, level=level, first=start, last=run[-1].seq)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        window = SlidingWindow(self.step)
        written = self._stored(history, budget.room // self.span + 2)
        if not written:
            return window.pick(history, budget)
        most = min(self.tokens, budget.room // 2)
        picks = window.pick(history, budget.within(min(budget.reserved + most, budget.ceiling), budget.live))
        start = picks[0].seqs[0] if picks else history.head.turn_seq
        # The one that reaches the window, however many were written since: so it changes when the cut moves, and not before.
        chosen = next((one for one in written if one.last >= start - 1), written[-1])
        return [told(chosen, "in the summary"), *(behind(history, pick, chosen.last) for pick in picks)]

    def _stored(self, history: History, newest: int) -> list[Summary]:
        """The last so many summaries, in the order they were written; of two up to the same entry, the summariser's own."""
        by_last: dict[int, Summary] = {}
        for recipe in self.recipes:
            for one in history.summaries(recipe, newest=newest):
                by_last.setdefault(one.last, one)
        return [by_last[last] for last in sorted(by_last)]
