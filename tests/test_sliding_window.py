"""The sliding window: the contract of every strategy, and its grid."""

import pytest

from threadkeep import SlidingWindow
from threadkeep.testing import StrategyContract


class TestSlidingWindow(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SlidingWindow:
        return SlidingWindow()
