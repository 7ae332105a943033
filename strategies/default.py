"""The strategy of a `Memory` that was given none."""

from threadkeep.strategies.base import Strategy
from threadkeep.strategies.compose import Compose
from threadkeep.strategies.recall import Recall
from threadkeep.strategies.sliding_window import SlidingWindow


def default_strategy() -> Strategy:
    """What was just said, and what was said before about the question: a window, and recall in what the window leaves.

    The shares and the window's step were measured; the figures stand in docs/compose.md. A smaller window would recall a little more
    and be read anew more often.
    """
    return Compose(SlidingWindow(step=0.5), Recall(), shares=(0.3, 0.7))
