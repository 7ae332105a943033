"""Which plots a task gets, and what each says: cells in, titled drawings out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from threadkeep.experiments.report_figures import (
    ABOUT,
    MISSING,
    SHARES,
    compact,
    difference,
    dollars,
    milliseconds,
    percent,
    share_of,
    thousandfold,
    whole,
    words,
)
from threadkeep.experiments.report_plots import WIDTH, Line, Point, Row, bars, deciles, lines, rows
from threadkeep.experiments.report_shape import AGES, Cell, Comparison
from threadkeep.experiments.report_svg import Axis, Look, log_axis, log_ticks, ticks

Looks = Mapping[str, Look]
MOST_PAIRS = 10
"""More comparisons than these make a plot nobody reads: the rest stand in its table."""
DRAWN = ("evidence_recall", "answer_coverage", "prefix_reuse")
"""Shares drawn against the budget, the most telling first."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, what it is called and how it is read; and its figures as a table, where no other table has them."""

    title: str
    about: str
    drawings: Mapping[str, Element]
    """By name: one, or several between which the reader chooses."""
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def over_budgets(cells: Sequence[Cell], looks: Looks) -> Iterator[Chart]:
    """The plots that span all budgets; with one budget, a row for each strategy instead of a line."""
    drawn = [metric for metric in DRAWN if any(share_of(cell, metric) is not None for cell in cells)]
    several = len({cell.budget for cell in cells}) > 1
    for index, metric in enumerate(drawn):
        yield _against_budget(cells, metric, looks) if several else _one_budget(cells, metric, looks)
        if index == 0:
            yield from _against_cost(cells, metric, looks)


def per_budget(cells: Sequence[Cell], comparisons: Sequence[Comparison], looks: Looks) -> Iterator[Chart]:
    """The plots of one budget, whose cells these are."""
    for make in (_categories, _latency, _ages):
        chart = make(cells, looks)
        if chart:
            yield chart
    for metric in dict.fromkeys(one.metric for one in comparisons):
        yield _differences([one for one in comparisons if one.metric == metric])


def _against_budget(cells: Sequence[Cell], metric: str, looks: Looks) -> Chart:
    title = f"{words(metric).capitalize()} against budget"
    banded = metric == "evidence_recall" and any(cell.evidence_interval for cell in cells)
    about = ABOUT[metric] + (" The band is its bootstrap interval." if banded else "")
    series = _series(cells, metric, looks, lambda cell: float(cell.budget), lambda cell: f"{cell.budget:,} tokens of budget")
    budgets = sorted({float(cell.budget) for cell in cells})
    drawing = lines(title, series, x_ticks=budgets, x_label="budget, tokens (log scale)", x_text=compact, about=about)
    return Chart(title, about, {title: drawing})


def _one_budget(cells: Sequence[Cell], metric: str, looks: Looks) -> Chart:
    title = f"{words(metric).capitalize()} at {cells[0].budget:,} tokens"
    entries = []
    for cell in cells:
        share = share_of(cell, metric)
        low, high = (cell.evidence_interval if metric == "evidence_recall" else None) or (None, None)
        entries.append(Row(cell.strategy, _share_text(cell, share), looks[cell.strategy], share, low, high))
    axis = Axis(0, 1, 8, WIDTH - 10)
    drawing = rows(title, entries, axis, [0, 0.25, 0.5, 0.75, 1], lambda at: f"{at:.0%}", zero=0, about=ABOUT[metric])
    return Chart(title, ABOUT[metric], {title: drawing})


def _against_cost(cells: Sequence[Cell], metric: str, looks: Looks) -> Iterator[Chart]:
    """Tokens, and money where the run priced it."""
    title = f"{words(metric).capitalize()} against cost"
    about = f"Further up and to the left is better: more {words(metric)} for less. One point a budget."
    rated = [cell for cell in cells if share_of(cell, metric) is not None]
    if len(rated) < 2:
        return
    drawings = {}
    for cost in COSTS:
        if any(cost.of(cell) for cell in rated):
            series = _series(cells, metric, looks, cost.of, cost.said)
            drawings[cost.name] = lines(f"{title}, {cost.name}", series, x_ticks=None, x_label=cost.label, x_text=cost.tick, about=about)
    if drawings:
        yield Chart(title, about, drawings)


def _series(cells: Sequence[Cell], metric: str, looks: Looks, x: Callable[[Cell], float | None], said: Callable[[Cell], str]) -> list[Line]:
    series = []
    for strategy, look in looks.items():
        points = []
        for cell in sorted((cell for cell in cells if cell.strategy == strategy), key=lambda cell: cell.budget):
            at, share = x(cell), share_of(cell, metric)
            low, high = (cell.evidence_interval if metric == "evidence_recall" else None) or (None, None)
            told = f"{strategy}: {percent(share)}% with {said(cell)}"
            points.append(Point(at, share, told, low, high) if at and share is not None else None)
        series.append(Line(look, points))
    return series


def _categories(cells: Sequence[Cell], looks: Looks) -> Chart | None:
    names = list(dict.fromkeys(name for cell in cells for name in cell.categories))
    if len(names) < 2:
        return None
    of_evidence = any(one.evidence_recall is not None for cell in cells for one in cell.categories.values())
    groups: dict[str, list[Row]] = {}
    for name in names:
        asked = max((cell.categories[name].questions or 0 for cell in cells if name in cell.categories), default=0)
        group = []
        for cell in cells:
            one = cell.categories.get(name)
            share = (one.evidence_recall if of_evidence else one.answer_coverage) if one else None
            group.append(Row(cell.strategy, _share_text(cell, share), looks[cell.strategy], share))
        groups[f"{name or 'no category'} ({asked:,})"] = group
    if not any(row.value is not None for group in groups.values() for row in group):
        return None
    metric = "evidence_recall" if of_evidence else "answer_coverage"
    title = f"{words(metric).capitalize()} by category, at {cells[0].budget:,} tokens"
    about = "By kind of question, with how many there are. Few questions: wide uncertainty."
    table = [[cell.strategy, *(group[index].readout for group in groups.values())] for index, cell in enumerate(cells)]
    return Chart(title, about, {title: bars(title, groups, about=about)}, ["strategy", *groups], table)


def _latency(cells: Sequence[Cell], looks: Looks) -> Chart | None:
    times = [time for cell in cells for time in (cell.ms_median, cell.ms_p95) if time]
    if not times:
        return None
    title = f"Latency, at {cells[0].budget:,} tokens"
    about = "Milliseconds to assemble one context: the marker is the median, the stroke ends at the 95th percentile."
    entries = []
    for cell in cells:
        untimed = "failed" if cell.error else MISSING
        text = untimed if cell.ms_median is None else f"{milliseconds(cell.ms_median)} · {milliseconds(cell.ms_p95)} ms"
        low, high = (cell.ms_median, cell.ms_p95) if cell.ms_median and cell.ms_p95 else (None, None)
        entries.append(Row(cell.strategy, text, looks[cell.strategy], cell.ms_median or None, low, high))
    axis = log_axis(times, 10, WIDTH - 12)
    return Chart(title, about, {title: rows(title, entries, axis, log_ticks(axis, 6), _plain, zero=0, about=about)})


def _ages(cells: Sequence[Cell], looks: Looks) -> Chart | None:
    aged = [cell for cell in cells if any(total for _, total in cell.ages)]
    if not aged:
        return None
    title = f"Where the kept evidence lies, at {cells[0].budget:,} tokens"
    about = "The history in tenths, oldest first: of the gold messages that lie in each, the percentage that is kept."
    drawing = deciles(title, [(cell.strategy, looks[cell.strategy], cell.ages) for cell in aged], about=about)
    heads = ["strategy, kept of total", *(f"{age * 10}–{age * 10 + 10}%" for age in range(AGES))]
    table = [[cell.strategy, *(f"{kept} of {total}" for kept, total in cell.ages)] for cell in aged]
    return Chart(title, about, {title: drawing}, heads, table)


def _differences(comparisons: Sequence[Comparison]) -> Chart:
    metric = comparisons[0].metric
    title = f"Differences in {words(metric)}, at {comparisons[0].budget:,} tokens"
    unit = "in points, " if metric in SHARES else ""
    about = f"The first strategy less the second, {unit}with its paired bootstrap interval. Hollow: the interval holds 0."
    drawn = comparisons
    if len(comparisons) > MOST_PAIRS:
        ahead = Counter(one.a if one.difference > 0 else one.b for one in comparisons).most_common(1)[0][0]
        drawn = [one for one in comparisons if ahead in (one.a, one.b)][:MOST_PAIRS]
        about += f" Drawn are {len(drawn)} of the {len(comparisons)} pairs, those of the strategy most often ahead."
    levels = ticks(min(0.0, *(one.low for one in drawn)), max(0.0, *(one.high for one in drawn)), 6)
    axis = Axis(levels[0], levels[-1], 12, WIDTH - 14)
    entries = [Row(f"{one.a}\n− {one.b}", _told(one), None, one.difference, one.low, one.high, hollow=not one.clear) for one in drawn]
    factor = 100 if metric in SHARES else 1
    drawing = rows(title, entries, axis, levels, lambda level: f"{level * factor:+g}" if level else "0", zero=0, about=about)
    table = [[f"{one.a} − {one.b}", *difference(one)] for one in comparisons]
    return Chart(title, about, {title: drawing}, ["strategies", "difference", "interval"], table)


def _told(one: Comparison) -> str:
    middle, interval = difference(one)
    return f"{middle} ({interval})"


def _share_text(cell: Cell, share: float | None) -> str:
    return "failed" if cell.error and share is None else percent(share)


def _plain(number: float) -> str:
    return f"{number:,.10g}"


@dataclass(frozen=True, slots=True)
class _Cost:
    """One way to say what a context costs."""

    name: str
    unit: str
    label: str
    of: Callable[[Cell], float | None]
    text: Callable[[float | None], str]
    tick: Callable[[float], str]

    def said(self, cell: Cell) -> str:
        return f"{self.text(self.of(cell))} {self.unit} at a budget of {cell.budget:,}"


TOKENS = _Cost("tokens", "tokens", "tokens used, mean a question (log scale)", lambda cell: cell.tokens, whole, compact)
MONEY = _Cost("money", "US$ for 1,000 questions", "US$ for 1,000 questions (log scale)", thousandfold, dollars, _plain)
COSTS = (TOKENS, MONEY)
