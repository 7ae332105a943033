"""Random strategies: each one that there is, with settings that make things happen in small logs, wrapped and composed.

Strategies of hypothesis, in its sense of the word.
"""

from hypothesis import strategies as st

from threadkeep.memory.index import ROLES
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.clear_tool_results import ClearToolResults
from threadkeep.strategies.compose import Compose
from threadkeep.strategies.recall import Recall
from threadkeep.strategies.rolling_summary import RollingSummary
from threadkeep.strategies.selective import Selective
from threadkeep.strategies.sliding_window import SlidingWindow
from threadkeep.strategies.summary_tree import SummaryTree

grids = st.sampled_from((0.05, 0.25, 0.5, 1))
windows = st.builds(SlidingWindow, grids)
selections = st.one_of(
    st.builds(Selective, st.lists(st.sampled_from(ROLES), min_size=1, max_size=2, unique=True).map(tuple), step=grids),
    st.builds(Selective, tags=st.sampled_from((("fact",), ("fact", "home"))), importance=st.sampled_from((None, 0.5)), step=grids),
)
recalls = st.builds(Recall, st.sampled_from((1, 3, 200)), floor=st.sampled_from((0, 0.33)))
trees = st.builds(
    SummaryTree, span=st.sampled_from((1, 40, 300)), fan=st.just(2), tokens=st.just(30), recent=st.sampled_from((0, 100)), step=grids
)
rolling = st.builds(RollingSummary, span=st.sampled_from((1, 40, 300)), tokens=st.just(40), recent=st.sampled_from((0, 100)), step=grids)
single: st.SearchStrategy[Strategy] = st.one_of(windows, selections, recalls, trees, rolling)


def clearing(inner: st.SearchStrategy[Strategy]) -> st.SearchStrategy[Strategy]:
    """Tool results cleared for another one."""
    return st.builds(ClearToolResults, inner, st.sampled_from((0, 1, 3)), st.sampled_from((0, 100)), grids)


@st.composite
def composed(draw: st.DrawFn, part: st.SearchStrategy[Strategy]) -> Strategy:
    """Up to three parts, with shares that leave something or nothing."""
    parts = draw(st.lists(part, min_size=1, max_size=3))
    weights = draw(st.lists(st.integers(1, 5), min_size=len(parts), max_size=len(parts)))
    whole = sum(weights) + draw(st.sampled_from((0, 0, 2)))
    return Compose(*parts, shares=[weight / whole for weight in weights])


wrapped = st.one_of(single, clearing(single))
nested = st.one_of(wrapped, clearing(composed(wrapped)), composed(wrapped))
compositions = st.one_of(composed(wrapped), composed(nested), clearing(composed(wrapped)))
