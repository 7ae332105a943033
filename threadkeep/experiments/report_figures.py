"""What a cell's figures are called, and how each is written; a missing one is a dash, never 0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from threadkeep.experiments.base import ORACLE
from threadkeep.experiments.report_shape import Cell, Comparison

MISSING = "–"
SHARES = {
    "evidence_recall": "evidence recall",
    "all_evidence": "all evidence",
    "answer_coverage": "answer coverage",
    "answer_f1": "answer F1",
    "answer_em": "exact match",
    "answer_contains": "answer contained",
    "ndcg_at_10": "NDCG@10",
    "prefix_reuse": "prefix reuse",
    "fill": "fill",
}
"""Metrics from 0 to 1, and their names in words."""
ABOUT = {
    "evidence_recall": "Of a question's gold messages, the share that stands in the context; mean over questions.",
    "all_evidence": "The share of questions whose gold messages all stand in the context.",
    "answer_coverage": "The share of questions with an answer string that stands in the context, word for word.",
    "answer_f1": "F1 of the words that a model's reply and a known answer share; mean over questions. Only where a model was asked.",
    "answer_em": "The share of replies that are a known answer, but for case, punctuation and articles.",
    "answer_contains": "The share of replies in which a known answer stands, compared likewise.",
    "recall@k": "The share of gold messages among the first k that the strategy ranked; only where it ranks.",
    "ndcg_at_10": "Normalised discounted cumulative gain of the first ten ranked.",
    "tokens": "Mean tokens of a context, by the counter named below.",
    "fill": "Tokens used, as a share of the budget.",
    "prefix_reuse": "Of a context's tokens, the share that the turn before had at the same place: what a prompt cache can serve.",
    "cost_usd": "What a provider would charge for 1,000 questions, prices for cached tokens and the memory's own model calls included.",
    "rows_read": "Mean rows read from the database for a context.",
    "ms_median, ms_p95": "Milliseconds to assemble one context, on the machine of the run.",
}
"""What each figure means, in a sentence."""


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{share * 100:.1f}"


def whole(number: float | None) -> str:
    return MISSING if number is None else f"{number:,.0f}"


def milliseconds(time: float | None) -> str:
    if time is None:
        return MISSING
    return f"{time:,.0f}" if time >= 100 else f"{time:.1f}" if time >= 1 else f"{time:.2g}"


def dollars(amount: float | None) -> str:
    return MISSING if amount is None else f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.3g}"


def compact(number: float) -> str:
    """1024 -> 1k, 1500 -> 1.5k: for an axis."""
    for size, sign in ((1 << 20, "M"), (1 << 10, "k")):
        if number >= size and number % size == 0:
            return f"{number // size:,.0f}{sign}"
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{sign}"
    return f"{number:.3g}"


def difference(one: Comparison) -> tuple[str, str]:
    """The difference and its interval; of shares in points of a hundred."""
    factor, digits = (100, 1) if one.metric in SHARES else (1, 3)
    low, middle, high = (f"{value * factor:+,.{digits}f}".replace("-", "−") for value in (one.low, one.difference, one.high))
    return middle, f"{low} to {high}"


def thousandfold(cell: Cell) -> float | None:
    """What a thousand questions cost: one alone is a number nobody can read."""
    return None if cell.cost_usd is None else cell.cost_usd * 1000


def words(metric: str) -> str:
    return SHARES.get(metric, metric.replace("_", " "))


def share_of(cell: Cell, metric: str) -> float | None:
    """One of the shares that are drawn against the budget."""
    drawn = {"evidence_recall": cell.evidence_recall, "answer_coverage": cell.answer_coverage, "prefix_reuse": cell.prefix_reuse}
    return drawn[metric]


def flags(cell: Cell) -> list[str]:
    """What a reader must not overlook in this cell."""
    counted = ((cell.over_budget, "over budget"), (cell.cannot_fit, "cannot fit"), (cell.failures, "failed"))
    return [f"{count:,} {name}" for count, name in counted if count]


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of the tables."""

    head: str
    unit: str
    value: Callable[[Cell], float | None]
    text: Callable[[float | None], str]
    best: bool = False
    """Whether the highest of a budget is marked."""
    brief: bool = True
    """Whether the terminal shows it too."""


def figures(cells: Sequence[Cell]) -> list[Figure]:
    """The columns that these cells fill."""
    ranks = sorted({key for cell in cells for key in cell.recall_at}, key=lambda key: (len(key), key))
    columns = [
        Figure("evidence", "%", lambda cell: cell.evidence_recall, percent, best=True),
        Figure("all", "%", lambda cell: cell.all_evidence, percent, brief=False),
        Figure("answers", "%", lambda cell: cell.answer_coverage, percent, best=True),
        Figure("answer F1", "%", lambda cell: cell.answer_f1, percent, best=True),
        Figure("exact", "%", lambda cell: cell.answer_em, percent, brief=False),
        Figure("contained", "%", lambda cell: cell.answer_contains, percent, brief=False),
        *(_recall_at(key) for key in ranks),
        Figure("NDCG@10", "%", lambda cell: cell.ndcg_at_10, percent, brief=False),
        Figure("tokens", "", lambda cell: cell.tokens, whole),
        Figure("fill", "%", lambda cell: cell.fill, percent, brief=False),
        Figure("reuse", "%", lambda cell: cell.prefix_reuse, percent),
        Figure("cost", "US$/1k", thousandfold, dollars),
        Figure("median", "ms", lambda cell: cell.ms_median, milliseconds),
        Figure("p95", "ms", lambda cell: cell.ms_p95, milliseconds),
        Figure("rows read", "", lambda cell: cell.rows_read, whole, brief=False),
        Figure("over budget", "", lambda cell: cell.over_budget, whole, brief=False),
        Figure("cannot fit", "", lambda cell: cell.cannot_fit, whole, brief=False),
        Figure("failures", "", lambda cell: cell.failures, whole, brief=False),
    ]
    return [column for column in columns if any(column.value(cell) is not None for cell in cells)]


def highest(figure: Figure, cells: Sequence[Cell]) -> set[tuple[str, int]]:
    """Strategy and budget of the cells of one task with the highest figure as it is written; none where a budget has one strategy."""
    best: set[tuple[str, int]] = set()
    for budget in {cell.budget for cell in cells}:
        values = ((cell.strategy, figure.value(cell)) for cell in cells if cell.budget == budget and cell.strategy != ORACLE)
        rated = [(strategy, float(figure.text(value))) for strategy, value in values if value is not None]
        top = max((written for _, written in rated), default=0.0)
        if len(rated) > 1 and top > 0:
            best.update((strategy, budget) for strategy, written in rated if written == top)
    return best


def _recall_at(key: str) -> Figure:
    return Figure(f"recall@{key}", "%", lambda cell: cell.recall_at.get(key), percent, brief=False)
