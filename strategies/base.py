"""What is asked of a strategy: one method.

`pick` chooses among a session's entries within what the budget leaves, and returns its choice in the order of importance: when the whole
is counted and does not fit, excerpts are given up first, then the last picks, and of one pick its oldest entries. It does no I/O but
through the history. It cannot break a promise: must-keeps are added and groups completed whatever it returns. An exception it raises goes
to the caller; picks of what the history does not hold raise `StrategyError`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.history import History, Summary


@runtime_checkable
class Strategy(Protocol):
    """Chooses what goes into a context. Its `repr` names it and its settings, in explanations and manifests."""

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        """What to keep.

        `budget.room` is what the whole log may take, stable from turn to turn; `budget.left` is what remains of it beside the
        live turn; both in tokens. Called only when the whole log does not fit, or when the strategy has an attribute `scope` that is
        `"owner"`: then it reads the owner's other sessions too (`history.index("owner")`), and where the log fits whole, all of it
        stands in `history.shown`, and nothing but excerpts without seqs, which are what other sessions said, is taken of its picks.
        """


@runtime_checkable
class Summarising(Strategy, Protocol):
    """A strategy whose summaries upkeep writes, between turns."""

    @property
    def recipes(self) -> Sequence[str]:
        """Names of what makes the summaries, settings included: summaries of different recipes never meet."""

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        """The next summary to write under this recipe; None: nothing is due.

        All reading is done before it returns. What it returns calls the summariser, without the history, and may take minutes; its
        summary is then stored, once, and `due` is asked again.
        """
