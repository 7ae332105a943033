"""What is asked of a strategy: one method.

`pick` chooses among a session's entries within what the budget leaves, and returns its choice in the order of importance: when the whole
is counted and does not fit, the last picks are given up first, and of one pick its oldest entries. It does no I/O but through the
history. It cannot break a promise: must-keeps are added and groups completed whatever it returns. An exception it raises goes to the
caller; picks of what the history does not hold raise `StrategyError`.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.history import History


@runtime_checkable
class Strategy(Protocol):
    """Chooses what goes into a context. Its `repr` names it and its settings, in explanations and manifests."""

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        """What to keep.

        `budget.room` is what the whole log may take, stable from turn to turn; `budget.left` is what remains of it beside the
        live turn; both in tokens. Called only when the whole log does not fit.
        """
