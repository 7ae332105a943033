"""The shape of results: what a run writes, checked and as values that a report can draw.

Only `task`, `strategy` and `budget` must stand in a cell: a cell that failed has no figures, and a task without gold has no recall.
What is missing is None everywhere, never 0. Keys this version does not know are left alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from threadkeep import ThreadkeepError

AGES = 10
"""Deciles of a history, oldest first."""
T = TypeVar("T")


class ResultsError(ThreadkeepError, ValueError):
    """These are not the results of an experiment: names the file and the field."""

    def __init__(self, path: str, field: str, problem: str) -> None:
        super().__init__(f"{path}: {field} {problem}" if field else f"{path}: {problem}")
        self.path = path
        self.field = field
        """The place, as a path: `cells[3].budget`; empty when it is the file itself."""
        self.problem = problem

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.field, self.problem)


@dataclass(frozen=True, slots=True)
class Category:
    """A cell's figures over the questions of one kind."""

    questions: int | None
    evidence_recall: float | None
    answer_coverage: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy at one budget on one task. Shares are from 0 to 1."""

    task: str
    strategy: str
    budget: int
    error: str | None
    questions: int | None
    evidence_recall: float | None
    evidence_interval: tuple[float, float] | None
    """Bootstrap interval of `evidence_recall`, where the run gives one."""
    all_evidence: float | None
    answer_coverage: float | None
    answer_f1: float | None
    answer_em: float | None
    answer_contains: float | None
    recall_at: Mapping[str, float]
    ndcg_at_10: float | None
    tokens: float | None
    fill: float | None
    over_budget: int | None
    cannot_fit: int | None
    failures: int | None
    rows_read: float | None
    prefix_reuse: float | None
    cost_usd: float | None
    ms_median: float | None
    ms_p95: float | None
    categories: Mapping[str, Category]
    ages: Sequence[tuple[int, int]]
    """(kept, total) gold messages by decile, oldest first; empty without gold."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """By how much strategy `a` is above strategy `b`, with a paired bootstrap interval."""

    task: str
    budget: int
    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """How large a task is, and what was odd in its files."""

    sizes: Mapping[str, int]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run. Tasks and strategies keep the order of their first cell."""

    made: Mapping[str, object]
    settings: Mapping[str, object]
    facts: Mapping[str, TaskFacts]
    cells: Sequence[Cell]
    comparisons: Sequence[Comparison]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys([*(cell.task for cell in self.cells), *self.facts]))

    @property
    def strategies(self) -> list[str]:
        return list(dict.fromkeys(cell.strategy for cell in self.cells))

    def of(self, task: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.task == task]


def results_from(data: object, path: str = "results") -> Results:
    """Check what a run came to.

    Raises:
        ResultsError: a field is missing or of another kind, or two cells are the same; `path` names the place in the message.
    """
    top = _Record(data, path, "")
    for name in ("made", "settings", "tasks", "cells"):
        if top.data.get(name) is None:
            raise top.wrong(name, "is missing: is this what `threadkeep experiment run` wrote?")
    results = Results(
        made=top.record("made").data,
        settings=top.record("settings").data,
        facts={name: _facts(facts) for name, facts in top.record("tasks").records()},
        cells=[_cell(cell) for cell in top.listed("cells")],
        comparisons=[_comparison(comparison) for comparison in top.listed("comparisons")],
    )
    seen: dict[tuple[str, str, int], int] = {}
    for index, cell in enumerate(results.cells):
        first = seen.setdefault((cell.task, cell.strategy, cell.budget), index)
        if first != index:
            raise ResultsError(path, f"cells[{index}]", f"is the same task, strategy and budget as cells[{first}]")
    return results


def _facts(record: "_Record") -> TaskFacts:
    sizes = {name: record.count(name) for name in ("conversations", "messages", "tokens", "questions")}
    return TaskFacts({name: size for name, size in sizes.items() if size is not None}, record.texts("notes"))


def _cell(record: "_Record") -> Cell:
    times = record.record("times")
    recall_at = record.record("recall_at")
    return Cell(
        task=record.text("task"),
        strategy=record.text("strategy"),
        budget=record.needed(record.count("budget", least=1), "budget"),
        error=record.text("error") if record.data.get("error") is not None else None,
        questions=record.count("questions"),
        evidence_recall=record.share("evidence_recall"),
        evidence_interval=record.interval("evidence_interval"),
        all_evidence=record.share("all_evidence"),
        answer_coverage=record.share("answer_coverage"),
        answer_f1=record.share("answer_f1"),
        answer_em=record.share("answer_em"),
        answer_contains=record.share("answer_contains"),
        recall_at={key: recall_at.needed(recall_at.share(key), key) for key in recall_at.data},
        ndcg_at_10=record.share("ndcg_at_10"),
        tokens=record.number("tokens"),
        fill=record.number("fill"),
        over_budget=record.count("over_budget"),
        cannot_fit=record.count("cannot_fit"),
        failures=record.count("failures"),
        rows_read=record.number("rows_read"),
        prefix_reuse=record.share("prefix_reuse"),
        cost_usd=record.money("cost_usd"),
        ms_median=times.number("ms_median"),
        ms_p95=times.number("ms_p95"),
        categories={
            name: Category(one.count("questions"), one.share("evidence_recall"), one.share("answer_coverage"))
            for name, one in record.record("categories").records()
        },
        ages=record.ages("ages"),
    )


def _comparison(record: "_Record") -> Comparison:
    numbers = {name: record.needed(record.number(name, least=-math.inf), name) for name in ("difference", "low", "high")}
    return Comparison(
        task=record.text("task"),
        budget=record.needed(record.count("budget", least=1), "budget"),
        a=record.text("a"),
        b=record.text("b"),
        metric=record.text("metric"),
        difference=numbers["difference"],
        low=numbers["low"],
        high=numbers["high"],
    )


class _Record:
    """A JSON object and where it stands, so that every complaint names its field."""

    def __init__(self, data: object, path: str, place: str) -> None:
        self.path = path
        self.place = place
        if not isinstance(data, Mapping):
            raise ResultsError(path, place, f"is an object, not {_kind(data)}")
        self.data: Mapping[str, object] = data

    def wrong(self, name: str, problem: str) -> ResultsError:
        return ResultsError(self.path, f"{self.place}.{name}" if self.place else name, problem)

    def needed(self, value: T | None, name: str) -> T:
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def text(self, name: str) -> str:
        value = self.needed(self.data.get(name), name)
        if not isinstance(value, str):
            raise self.wrong(name, f"is text, not {_kind(value)}")
        return value

    def texts(self, name: str) -> list[str]:
        values = self._list(name)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self.wrong(f"{name}[{index}]", f"is text, not {_kind(value)}")
        return [str(value) for value in values]

    def number(self, name: str, *, least: float = 0.0, most: float = math.inf) -> float | None:
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(name, f"is a finite number, not {_kind(value)}")
        if not least <= value <= most:
            raise self.wrong(name, f"is {value}: it lies between {least:g} and {most:g}")
        return float(value)

    def share(self, name: str) -> float | None:
        return self.number(name, most=1.0)

    def count(self, name: str, *, least: int = 0) -> int | None:
        number = self.number(name, least=least)
        if number is not None and number != int(number):
            raise self.wrong(name, f"is {number}: it is a whole number")
        return None if number is None else int(number)

    def money(self, name: str) -> float | None:
        """Given as text, so that no digit is lost."""
        value = self.data.get(name)
        if not isinstance(value, str):
            return self.number(name)
        try:
            amount = float(value)
        except ValueError:
            raise self.wrong(name, f"is an amount such as '0.00123', not {value!r}") from None
        return _Record({name: amount}, self.path, self.place).number(name)

    def interval(self, name: str) -> tuple[float, float] | None:
        if self.data.get(name) is None:
            return None
        ends = self._list(name)
        if len(ends) != 2:
            raise self.wrong(name, f"is [low, high], not a list of {len(ends)}")
        inside = _Record({"[0]": ends[0], "[1]": ends[1]}, self.path, f"{self.place}.{name}")
        return inside.needed(inside.share("[0]"), "[0]"), inside.needed(inside.share("[1]"), "[1]")

    def ages(self, name: str) -> list[tuple[int, int]]:
        pairs = self._list(name)
        if len(pairs) not in (0, AGES):
            raise self.wrong(name, f"is a list of {AGES} pairs, not of {len(pairs)}")
        read = []
        for index, pair in enumerate(pairs):
            place = f"{name}[{index}]"
            if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
                raise self.wrong(place, f"is [kept, total], not {_kind(pair)}")
            counts = _Record({"kept": pair[0], "total": pair[1]}, self.path, f"{self.place}.{place}")
            kept, total = counts.needed(counts.count("kept"), "kept"), counts.needed(counts.count("total"), "total")
            if kept > total:
                raise self.wrong(place, f"keeps {kept} of {total}")
            read.append((kept, total))
        return read

    def record(self, name: str) -> "_Record":
        """An empty one where it is missing or null."""
        value = self.data.get(name)
        return _Record({} if value is None else value, self.path, f"{self.place}.{name}" if self.place else name)

    def records(self) -> Iterator[tuple[str, "_Record"]]:
        for name, value in self.data.items():
            yield name, _Record(value, self.path, f"{self.place}.{name}")

    def listed(self, name: str) -> Iterator["_Record"]:
        for index, value in enumerate(self._list(name)):
            yield _Record(value, self.path, f"{name}[{index}]")

    def _list(self, name: str) -> Sequence[object]:
        value = self.data.get(name)
        if value is None:
            return []
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise self.wrong(name, f"is a list, not {_kind(value)}")
        return value


def _kind(value: object) -> str:
    return "null" if value is None else f"{type(value).__name__} {value!r:.40}"
