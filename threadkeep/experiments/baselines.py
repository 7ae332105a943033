"""Strategies to compare with, as anybody would write them: ordinary plug-ins that read the whole log. None is meant for service."""

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import snowballstemmer

from threadkeep import Budget, Entry, History, InvalidSetting, Pick

STOP_WORDS = frozenset(
    (
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with"
    ).split()
)
"""Lucene's list for English."""
COMMON = 0.01
"""The least weight of a term: the formula's own would be below zero where over half of the texts hold it."""
_WORD = re.compile(r"\w+")
SITTING = timedelta(minutes=30)
"""A longer silence begins a new sitting."""


@dataclass(frozen=True)
class LastMessages:
    """The newest messages that fit."""

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return [Pick.of(history.tail(budget.room), "among the last")]


@dataclass(frozen=True)
class RandomMessages:
    """Messages drawn by chance, as many as fit."""

    seed: int = 0

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        entries = log(history)
        random.Random(f"{self.seed} {history.head.seq}").shuffle(entries)
        return fill([[entry] for entry in entries], budget, None, "by chance")


@dataclass(frozen=True)
class BM25Turns:
    """The messages that BM25 ranks first (Robertson and Zaragoza, 2009), as many as fit."""

    k1: float = 1.2
    b: float = 0.75
    neighbours: int = 0
    """How many messages on each side a hit brings along."""

    def __post_init__(self) -> None:
        _check(self.k1, self.b)
        if type(self.neighbours) is not int or self.neighbours < 0:
            raise InvalidSetting(f"neighbours={self.neighbours!r}: a whole number from 0")

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        entries = log(history)
        scores = _bm25([_terms(entry.message.text) for entry in entries], _question(history), self.k1, self.b)
        order = sorted(range(len(entries)), key=lambda at: (-scores[at], at))
        runs = [entries[max(0, at - self.neighbours) : at + self.neighbours + 1] for at in order]
        return fill(runs, budget, [scores[at] for at in order], "ranked by BM25")


@dataclass(frozen=True)
class BM25Sittings:
    """Whole sittings, those that BM25 ranks first."""

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        _check(self.k1, self.b)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        sittings = _sittings(log(history))
        texts = [_terms(" ".join(entry.message.text for entry in sitting)) for sitting in sittings]
        scores = _bm25(texts, _question(history), self.k1, self.b)
        order = sorted(range(len(sittings)), key=lambda at: (-scores[at], at))
        return fill([sittings[at] for at in order], budget, [scores[at] for at in order], "in a sitting ranked by BM25")


def _check(k1: float, b: float) -> None:
    if not k1 >= 0 or not 0 <= b <= 1:
        raise InvalidSetting(f"BM25 with k1={k1!r} and b={b!r}: k1 is 0 or more, b from 0 to 1")


def log(history: History) -> list[Entry]:
    """Every entry that may be chosen, oldest first: instructions, the live turn and late results apart."""
    head = history.head
    last = (head.turn_seq or head.seq + 1) - 1
    return [entry for entry in history.between(head.leading + 1, last) if entry.status not in ("late", "erased")]


def _question(history: History) -> Counter[str]:
    return _terms(history.live.message.text) if history.live else Counter()


@lru_cache(maxsize=50_000)
def _terms(text: str) -> Counter[str]:
    """Stemmed words without stop words. Not to be changed."""
    words = _WORD.findall(text.casefold())
    return Counter(_stem(word) for word in words if word not in STOP_WORDS)


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    return str(snowballstemmer.stemmer("english").stemWord(word))


def fill(runs: Sequence[Sequence[Entry]], budget: Budget, scores: Sequence[float] | None, reason: str) -> list[Pick]:
    """Runs in their order while there is room; one that no longer fits is passed over."""
    picks: list[Pick] = []
    taken: set[int] = set()
    left = budget.left
    for at, run in enumerate(runs):
        new = [entry for entry in run if entry.seq not in taken]
        cost = sum(entry.shown_tokens for entry in new)
        if new and cost <= left:
            picks.append(Pick.of(new, reason, score=None if scores is None else scores[at]))
            taken.update(entry.seq for entry in new)
            left -= cost
    return picks


def _sittings(entries: Sequence[Entry]) -> list[list[Entry]]:
    found: list[list[Entry]] = []
    for entry in entries:
        if not found or entry.created_at - found[-1][-1].created_at > SITTING:
            found.append([])
        found[-1].append(entry)
    return found


def _bm25(documents: Sequence[Counter[str]], question: Counter[str], k1: float, b: float) -> list[float]:
    mean = sum(document.total() for document in documents) / max(1, len(documents)) or 1.0
    scores = [0.0] * len(documents)
    for term in question:
        holding = [at for at, document in enumerate(documents) if term in document]
        weight = max(COMMON, math.log((len(documents) - len(holding) + 0.5) / (len(holding) + 0.5)))
        for at in holding:
            frequency, length = documents[at][term], documents[at].total()
            scores[at] += weight * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * length / mean))
    return scores
