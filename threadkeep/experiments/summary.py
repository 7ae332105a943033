"""Finished cells made into results: means, rates, intervals. What a report shows and a JSON file keeps."""

import platform
import statistics
from collections.abc import Iterable, Sequence
from decimal import Decimal
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from genai_prices import Usage, calc_price

from threadkeep import TiktokenCounter
from threadkeep.experiments.base import ORACLE
from threadkeep.experiments.cells import Cell, release
from threadkeep.experiments.metrics import RANKS, Outcome, ndcg_at, recall_at
from threadkeep.experiments.run import Plan, Ran

PRICED_AS = "gpt-4.1-nano"
"""The model whose prices a context's cost is given in."""
RESAMPLES = 2000
DECILES = 10


def summarise(plan: Plan, ran: Sequence[Ran]) -> dict[str, object]:
    """The results of a run, as JSON. Only what stands under `times` differs between two runs of equal settings."""
    return {
        "made": {
            "threadkeep": release(),
            "python": platform.python_version(),
            "tiktoken": version("tiktoken"),
            "genai-prices": version("genai-prices"),
            "counter": TiktokenCounter("o200k_base").name,
            "priced as": PRICED_AS,
            "seed": plan.seed,
        },
        "settings": {
            "tasks": {task.name: None if path is None else Path(path).name for task, path in plan.tasks},
            "strategies": [row.name for row in plan.strategies],
            "budgets": list(plan.budgets),
            "oracle": plan.oracle,
            "answers": plan.answers.name if plan.answers else None,
            "embedder": plan.embedder.name if plan.embedder else None,
        },
        "tasks": {each.task.name: _task(each) for each in ran},
        "cells": [_cell(each, row, budget, plan.seed) for each in ran for row in _rows(plan) for budget in plan.budgets],
        "comparisons": [made for each in ran for made in _comparisons(plan, each)],
    }


def _rows(plan: Plan) -> list[str]:
    return [*(row.name for row in plan.strategies), *([ORACLE] if plan.oracle else [])]


def _task(ran: Ran) -> dict[str, object]:
    data = ran.dataset
    return {
        "conversations": len(data.conversations),
        "messages": sum(len(conversation.said) for conversation in data.conversations.values()),
        "questions": len(data.questions),
        "notes": list(data.notes),
    }


def _outcomes(ran: Ran, strategy: str, budget: int) -> list[Outcome]:
    names = ran.dataset.conversations
    return [one for name in names for one in ran.cells.outcomes(Cell(ran.task.name, name, strategy, budget))]


def _cell(ran: Ran, strategy: str, budget: int, seed: int) -> dict[str, object]:
    outcomes = _outcomes(ran, strategy, budget)
    errors = [one.error for one in outcomes if one.error]
    judged = [] if errors else outcomes  # a part of the questions would pass for all
    answered = [one for one in judged if not one.cannot_fit]
    ranked = [one.ranks for one in judged if one.ranks]
    reuse = None if errors else _reuse(ran, strategy, budget)
    tokens = _mean(one.tokens for one in answered)
    times = [one.milliseconds for one in answered]
    return {
        "task": ran.task.name,
        "strategy": strategy,
        "budget": budget,
        "questions": len(outcomes),
        "error": errors[0] if errors else None,
        **_quality(judged),
        "evidence_interval": _interval_of(judged, seed),
        "recall_at": {str(k): _mean(recall_at(ranks, k) for ranks in ranked) for k in RANKS} if ranked else None,
        "ndcg_at_10": _mean(ndcg_at(ranks, max(RANKS)) for ranks in ranked),
        "tokens": tokens,
        "fill": _mean(one.tokens / one.ceiling for one in answered),
        "over_budget": sum(one.tokens > one.ceiling for one in answered),
        "cannot_fit": sum(one.cannot_fit for one in outcomes),
        "failures": len(errors),
        "rows_read": _mean(one.rows for one in answered),
        "prefix_reuse": reuse,
        "cost_usd": None if tokens is None else str(_price(tokens, reuse or 0.0)),
        "categories": {name: {"questions": len(group), **_quality(group)} for name, group in _by_category(judged)},
        "ages": _ages(judged),
        "times": {"ms_median": _quantile(times, 0.5), "ms_p95": _quantile(times, 0.95)},
    }


def _quality(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    judged = [one for one in outcomes if one.kept]
    return {
        "evidence_recall": _mean(_share(one) for one in judged),
        "all_evidence": _mean(all(one.kept) for one in judged),
        "answer_coverage": _mean(one.answered for one in outcomes if one.answered is not None),
        "answer_f1": _mean(one.answer_f1 for one in outcomes if one.answer_f1 is not None),
        "answer_em": _mean(one.answer_em for one in outcomes if one.answer_em is not None),
        "answer_contains": _mean(one.answer_contains for one in outcomes if one.answer_contains is not None),
    }


def _interval_of(outcomes: Sequence[Outcome], seed: int) -> list[float] | None:
    shares = [_share(one) for one in outcomes if one.kept]
    return list(interval(np.array(shares), seed)) if shares else None


def _share(outcome: Outcome) -> float:
    return sum(outcome.kept) / len(outcome.kept)


def _by_category(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    names = sorted({one.category for one in outcomes if one.category})
    return [(name, [one for one in outcomes if one.category == name]) for name in names]


def _ages(outcomes: Sequence[Outcome]) -> list[list[int]]:
    """Kept and all gold messages, by tenths of the log, the oldest first."""
    counts = [[0, 0] for _ in range(DECILES)]
    for outcome in outcomes:
        for kept, age in zip(outcome.kept, outcome.ages, strict=True):
            tenth = counts[min(DECILES - 1, int(age * DECILES))]
            tenth[0] += kept
            tenth[1] += 1
    return counts


def _reuse(ran: Ran, strategy: str, budget: int) -> float | None:
    pairs = [ran.cells.reuse(Cell(ran.task.name, name, strategy, budget)) for name in ran.dataset.conversations]
    shared = sum(pair[0] for pair in pairs if pair)
    total = sum(pair[1] for pair in pairs if pair)
    return round(shared / total, 6) if total else None


def _price(tokens: float, reuse: float) -> Decimal:
    """What a provider charges for one context's prompt, the reused beginning at the price of cached tokens."""
    whole = round(tokens)
    usage = Usage(input_tokens=whole, cache_read_tokens=round(whole * reuse), output_tokens=0)
    return calc_price(usage, model_ref=PRICED_AS).total_price


def _comparisons(plan: Plan, ran: Ran) -> list[dict[str, object]]:
    """The difference of any two strategies in evidence recall, with a paired bootstrap interval (Efron and Tibshirani, 1993)."""
    made = []
    for budget in plan.budgets:
        found = {row.name: _outcomes(ran, row.name, budget) for row in plan.strategies}
        scores = {name: _scores(outcomes) for name, outcomes in found.items() if not any(one.error for one in outcomes)}
        for a, b in combinations([name for name, shares in scores.items() if shares], 2):
            differences = np.array([share - scores[b][question] for question, share in sorted(scores[a].items())])
            low, high = interval(differences, plan.seed)
            difference = round(float(differences.mean()), 6)
            names = {"task": ran.task.name, "budget": budget, "a": a, "b": b, "metric": "evidence_recall"}
            made.append({**names, "difference": difference, "low": low, "high": high})
    return made


def _scores(outcomes: Iterable[Outcome]) -> dict[str, float]:
    return {one.question: _share(one) for one in outcomes if one.kept}


def interval(differences: "np.ndarray[tuple[int], np.dtype[np.float64]]", seed: int) -> tuple[float, float]:
    """The 95% percentile interval of a mean over `differences`, shape (questions,), by resampling the questions."""
    draws = np.random.default_rng(seed).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    return round(float(low), 6), round(float(high), 6)


def _mean(values: Iterable[float | bool]) -> float | None:
    found = [float(value) for value in values]
    return round(statistics.fmean(found), 6) if found else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(float(np.quantile(values, share)), 3) if values else None
