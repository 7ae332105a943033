"""The newest entries that fit, cut on a grid so that consecutive turns share their beginning."""

from collections.abc import Sequence
from dataclasses import dataclass

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import History


@dataclass(frozen=True)
class SlidingWindow:
    """The newest entries that fit.

    The cut, counted in tokens from the log's beginning, is what no longer fits, rounded up to a multiple of a step. So it is a pure
    function of the log: it moves once in many turns, the same in every process, and a model's prefix cache stays warm between.

    Args:
        step: the grid, as a share of the budget's room, above 0 and at most 1. A larger step moves more seldom and fills less: on
            average the window is full but for half a step.
    """

    step: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise InvalidSetting(f"SlidingWindow(step={self.step!r}): a share of the budget above 0 and at most 1")

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        total = history.head.shown_tokens
        step = max(1, int(budget.room * self.step))
        cut = -(-max(0, total - budget.room) // step) * step
        entries = history.tail(total - cut)
        return [Pick.of(entries, "in the window", step=step)] if entries else []
