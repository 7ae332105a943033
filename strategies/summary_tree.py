"""Summaries of summaries: the budget chooses how fine each part of the log is told, fine where it is recent, coarse where it is old."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import History, Summary
from threadkeep.strategies.sliding_window import SlidingWindow
from threadkeep.strategies.summarised_runs import (
    NOTHING,
    behind,
    check_numbers,
    check_share,
    checked_summariser,
    recipe_name,
    run_from,
    said_by,
    said_in,
    told,
    writing,
)
from threadkeep.strategies.summariser import Summariser, SummaryRequest
from threadkeep.strategies.summariser_extractive import ExtractiveSummariser

LEAST_TOKENS = 16
"""What a summary takes at least, about: no more of them are read than may be shown."""


@dataclass(frozen=True)
class SummaryTree:
    """Summaries of what is old, and the newest entries that fit beside them.

    A summary of level 1 covers a run of whole turns, one of level n + 1 a run of summaries of level n. Each is written once, by
    upkeep, so every message is summarised once a level. Before there are any, it is the sliding window.

    Args:
        summariser: writes them; by default sentences are chosen, without a model. One that fails is stood in for by that, run by run,
            until it has written its own.
        span: tokens that a run of level 1 takes at least.
        fan: how many summaries make one of the next level.
        tokens: the most that one summary takes.
        recent: tokens at the end of the log that need no summary yet. Less than the window shows, so that nothing falls between.
        share: of the budget's room, what summaries may take; 1: all of it.
        step: the window's grid, as for `SlidingWindow`.
    """

    summariser: Summariser = field(default_factory=ExtractiveSummariser)
    span: int = 1024
    fan: int = 4
    tokens: int = 256
    recent: int = 1024
    share: float = 0.3
    step: float = 0.25

    def __post_init__(self) -> None:
        checked_summariser(self.summariser, "SummaryTree")
        check_numbers("SummaryTree", 1, span=self.span, tokens=self.tokens)
        check_numbers("SummaryTree", 2, fan=self.fan)
        check_numbers("SummaryTree", 0, recent=self.recent)
        check_share("SummaryTree", "share", self.share)
        SlidingWindow(self.step)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("span", "fan", "tokens", "recent", "share", "step"))
        return f"SummaryTree({self.summariser.name!r}, {settings})"

    @property
    def recipes(self) -> Sequence[str]:
        """The summariser's; then, where that is a model's, what stands in for it."""
        own = recipe_name("tree", self.span, self.fan, self.tokens, self.summariser.name)
        stand_in = ExtractiveSummariser()
        return (own,) if self.summariser.name == stand_in.name else (own, recipe_name("tree", stand_in.name, "for", own))

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        if recipe not in self.recipes:
            raise InvalidSetting(f"{self!r} has the recipes {list(self.recipes)}, not {recipe!r}")
        own = recipe == self.recipes[0]
        summariser = self.summariser if own else ExtractiveSummariser()
        nodes = list(history.summaries(recipe)) if own else self._stored(history)
        levels = _by_level(nodes)
        for level in sorted(levels, reverse=True):
            for first, last in _gaps(levels.get(level + 1, []), history.head.leading + 1):
                group = _group(levels[level], first, last, self.fan)
                if group:
                    request = SummaryRequest(said_by(group), self.tokens)
                    return writing(summariser, request, level=level + 1, first=first, last=group[-1].last)
        for first, last in _gaps(levels.get(1, []), history.head.leading + 1):
            run = run_from(history, first, tokens=self.span, recent=self.recent, last=last)
            if run:
                return writing(summariser, SummaryRequest(said_in(run), self.tokens), level=1, first=first, last=run[-1].seq)
        return None

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        window = SlidingWindow(self.step)
        most = int(budget.room * self.share)
        nodes = self._stored(history, newest=most // LEAST_TOKENS + budget.room // self.span + self.fan)
        if not nodes:
            return window.pick(history, budget)
        picks = window.pick(history, budget.within(min(budget.reserved + most, budget.ceiling), budget.live))
        start = picks[0].seqs[0] if picks else history.head.turn_seq
        end = _end(nodes, start, history.shown)
        cut = _cut([node for node in nodes if node.last <= end], most)
        summaries = [told(node, f"in a summary of level {node.level}") for node in cut if node.text != NOTHING]
        return summaries + ([behind(history, pick, cut[-1].last) for pick in picks] if cut else list(picks))

    def _stored(self, history: History, newest: int | None = None) -> list[Summary]:
        """The summaries, those of the stand-in where the summariser's own are missing; of each level all, or the last so many."""
        nodes: list[Summary] = []
        for recipe in self.recipes:
            have = _by_level(nodes)
            stored = history.summaries(recipe) if newest is None else _newest(history, recipe, newest)
            nodes += [node for node in stored if not any(_meet(node, other) for other in have.get(node.level, ()))]
        return sorted(nodes, key=lambda node: (node.level, node.first))


def _newest(history: History, recipe: str, newest: int) -> Iterator[Summary]:
    for top in history.summaries(recipe, newest=1):
        for level in range(top.level, 0, -1):
            yield from history.summaries(recipe, level=level, newest=newest)


def _end(nodes: Sequence[Summary], start: int, shown: frozenset[int]) -> int:
    """Up to where summaries tell the log: where a window begins, or the summary ends that it begins in the middle of."""
    ends = [node.last for node in nodes if node.level == 1 and node.first < start and not {node.first, node.last} <= shown]
    return max(ends, default=0)


def _meet(one: Summary, other: Summary) -> bool:
    return one.first <= other.last and other.first <= one.last


def _by_level(nodes: Sequence[Summary]) -> dict[int, list[Summary]]:
    levels: dict[int, list[Summary]] = {}
    for node in nodes:
        levels.setdefault(node.level, []).append(node)
    return levels


def _gaps(covered: Sequence[Summary], first: int) -> Iterator[tuple[int, int | None]]:
    """What these leave uncovered, as first and last seq; the last gap has no end. Between two there is one where entries were erased."""
    for node in covered:
        if first < node.first:
            yield first, node.first - 1
        first = node.last + 1
    yield first, None


def _group(nodes: Sequence[Summary], first: int, last: int | None, fan: int) -> Sequence[Summary]:
    """The next so many summaries from `first` on, without a gap; fewer where they end at `last`; none while some are missing."""
    group: list[Summary] = []
    for node in nodes:
        if node.first == first and (last is None or node.last <= last):
            group.append(node)
            first = node.last + 1
            if len(group) == fan or node.last == last:
                return group
    return ()


def _cut(nodes: Sequence[Summary], most: int) -> list[Summary]:
    """The summaries to show in so many tokens, in the log's order.

    The coarsest that cover everything; then the newest is told finer, and the next, as long as that fits. Where the coarsest take too
    much, every level gives up its oldest, so that the beginning is told as well as what came last.
    """
    cut: list[Summary] = []
    for node in sorted(nodes, key=lambda node: -node.level):
        if not any(_meet(node, other) for other in cut):
            cut.append(node)
    while sum(node.tokens for node in cut) > most:
        levels = _by_level(sorted(cut, key=lambda node: -node.first))
        cut.remove(max(cut, key=lambda node: (levels[node.level].index(node), -node.level)))
    cut.sort(key=lambda node: node.first)
    while True:
        at = next((at for at in reversed(range(len(cut))) if cut[at].level > 1), None)
        if at is None:
            return cut
        children = [node for node in nodes if node.level == cut[at].level - 1 and _meet(node, cut[at])]
        finer = [*cut[:at], *children, *cut[at + 1 :]]
        if not children or children[0].first != cut[at].first or sum(node.tokens for node in finer) > most:
            return cut
        cut = finer
