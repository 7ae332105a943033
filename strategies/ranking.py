"""How the entries of an index rank for a question: words and meaning together, lifted by what was said beside them.

lexical  BM25 over an entry with its neighbours, a term counting 1/2, 1/4, 1/8 and 1/16 one to four entries away in the same sitting
         (BM25F, Robertson, Zaragoza and Taylor, 2004, with the neighbours as weaker fields); 1 for the best entry
dense    how far the cosine stands above the index's mean and half a standard deviation; 1 for the best; neighbours lift it alike
score    0.6 lexical + 0.4 dense, and a quarter more for what was said at a time that the question names

`relevance` is what the best entry has in common with the question at all, on no scale of the index's own, so that it can say "nothing
here": (2 x cosine + coverage) / 3, coverage being the share of the question's weight in words that stand in or beside the entry.
Without vectors: (known + 2 x coverage) / 3, known being the share that stands anywhere in the index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from threadkeep.memory.analysis import terms
from threadkeep.memory.history import EPOCH, moment
from threadkeep.memory.index import Index
from threadkeep.strategies.dates import spans_of

if TYPE_CHECKING:
    Numbers: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"
    Flags: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    Rows: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int64]]"

K1, B = 1.2, 0.75
"""BM25's saturation and its share of length, as in Lucene; an entry's length is its tokens."""
NEIGHBOURS = (0.5, 0.25, 0.125, 0.0625)
"""What an entry counts beside the one, two, three, four before or after it."""
DENSE = 0.4
"""The share of meaning in the score; words have the rest."""
CHANCE = 0.5
"""Standard deviations above the index's mean cosine below which meaning says nothing."""
DATED = 0.25
"""What a time that the question names adds, as a share of the score."""
MOST_TERMS = 32
"""The rarest terms of a long question are enough."""
MANY = 16
"""One row in so many: from here on it is faster to look at all."""
COSINE_DIGITS, SCORE_DIGITS = 5, 6
"""Rounding: sums of float32 differ in their last digits from one machine's threads to another's."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry with its score and what it is made of; the four parts add up to it."""

    row: int
    """Of the index."""
    score: float
    lexical: float
    dense: float
    lift: float
    """From its neighbours."""
    date: float


@dataclass(frozen=True, eq=False)
class Ranking:
    """Scores of all rows of an index, each array of shape (rows,)."""

    scores: "Numbers"
    """0: no better than chance."""
    lexical: "Numbers"
    dense: "Numbers"
    dated: "Flags"
    relevance: float
    """What the best row has in common with the question, from 0 to 1."""
    weights: Mapping[str, float]
    """What each term of the question weighs (its inverse document frequency), the rarest first."""
    sittings: "Numbers"
    """The number of each row's sitting."""

    def best(self, k: int) -> list[Hit]:
        """The first `k` by score, of equal ones the older first."""
        return [self.hit(int(row)) for row in best_of(self.scores, k)]

    def hit(self, row: int) -> Hit:
        """A row's score in its parts."""
        score, lexical, dense = (float(part[row]) for part in (self.scores, self.lexical, self.dense))
        date = score - score / (1 + DATED) if self.dated[row] else 0.0
        return Hit(row, score, lexical, dense, max(0.0, score - date - lexical - dense), date)


def rank(index: Index, question: str, asked: datetime, *, sitting_minutes: float = 30) -> Ranking:
    """Score every row of an index for a question, whose vector is the index's `query`.

    Args:
        index: what is ranked.
        question: its words.
        asked: when, for what the question says of times.
        sitting_minutes: a longer silence begins a new sitting.
    """
    sittings = _sittings(index, sitting_minutes)
    near = _Neighbours(sittings)
    words = _Words(index, question, near)
    own, lifted, cosine = _meaning(index, near)
    dated = _said_at(index, question, asked)
    scores: Numbers = ((1 - DENSE) * words.lifted + DENSE * lifted) * (1 + DATED * dated)
    scores = scores.round(SCORE_DIGITS)
    common = (words.known + 2 * words.coverage) / 3 if cosine is None else (2 * cosine + words.coverage) / 3
    relevance = round(max(0.0, float(common.max())), SCORE_DIGITS) if len(index) else 0.0
    return Ranking(scores, (1 - DENSE) * words.own, DENSE * own, dated, relevance, words.weights, sittings)


def best_of(values: "Numbers", k: int) -> "Rows":
    """The rows of the `k` largest values above 0, largest first, of equal ones the smaller row first."""
    rows = np.flatnonzero(values > 0)
    if k < len(rows):
        least = np.partition(values[rows], len(rows) - k)[len(rows) - k]
        rows = rows[values[rows] >= least]
    return rows[np.argsort(-values[rows], kind="stable")][:k]


def _sittings(index: Index, minutes: float) -> "Numbers":
    if not len(index):
        return np.zeros(0)
    new = np.diff(index.created_us) > minutes * 60_000_000
    new |= np.diff(index.session) != 0
    return np.concatenate(([0.0], np.cumsum(new, dtype=np.float64)))


class _Neighbours:
    """Who stands beside whom in a sitting."""

    def __init__(self, sittings: "Numbers") -> None:
        self._rows = len(sittings)
        distances = range(1, min(len(NEIGHBOURS) + 1, self._rows))
        self._together = [np.concatenate((sittings[away:] == sittings[:-away], np.zeros(away, bool))) for away in distances]
        """By distance, from 1: whether a row and the one so far behind it are of one sitting."""
        self._weights = [share * together[:-away] for away, share, together in zip(distances, NEIGHBOURS, self._together, strict=False)]
        """The same as what each takes of the other."""

    def lifted(self, rows: "Rows", values: "Numbers") -> "Numbers":
        """What stands in these rows, and its shares in the rows beside them; shape (all rows,)."""
        if len(rows) * MANY > self._rows:
            return self._lifted_everywhere(rows, values)
        places, parts = [rows], [values]
        for away, (share, together) in enumerate(zip(NEIGHBOURS, self._together, strict=False), 1):
            behind = together[rows]
            before = (rows >= away) & together[rows - away]  # a negative place is read, and not used
            places += [rows[behind] + away, rows[before] - away]
            parts += [share * values[behind], share * values[before]]
        return np.bincount(np.concatenate(places), np.concatenate(parts), self._rows).astype(np.float64, copy=False)

    def _lifted_everywhere(self, rows: "Rows", values: "Numbers") -> "Numbers":
        """The same, faster where the rows are many."""
        alone = np.zeros(self._rows)
        alone[rows] = values
        made = alone.copy()
        shares = np.empty(self._rows)
        for away, weights in enumerate(self._weights, 1):
            made[away:] += np.multiply(weights, alone[:-away], out=shares[away:])
            made[:-away] += np.multiply(weights, alone[away:], out=shares[away:])
        return made


class _Words:
    """What the question's terms say."""

    def __init__(self, index: Index, question: str, near: _Neighbours) -> None:
        rows = len(index)
        self.own, self.lifted, self.coverage, self.known = np.zeros(rows), np.zeros(rows), np.zeros(rows), 0.0
        found = index.lookup.postings(sorted(terms(question))) if rows else {}
        wanted = [
            term for term in sorted(terms(question)) if term not in found or len(found[term].rows)
        ]  # what stands everywhere says nothing
        found = {term: found[term] for term in wanted if term in found}
        rarest = sorted(wanted, key=lambda term: (len(found[term].rows) if term in found else 0, term))
        self.weights = {term: _idf(rows, len(found[term].rows) if term in found else 0) for term in rarest}
        lengths = near.lifted(np.arange(rows), index.tokens.astype(np.float64)) if found else np.zeros(rows)
        damping = K1 * (1 - B + B * lengths / max(1.0, float(lengths.mean()))) if found else lengths
        for term in [term for term in rarest if term in found][:MOST_TERMS]:
            posting, weight = found[term], self.weights[term]
            beside = near.lifted(posting.rows, posting.frequencies.astype(np.float64))
            touched = np.flatnonzero(beside)
            said = beside[touched]
            self.lifted[touched] += weight * said * (K1 + 1) / (said + damping[touched])
            self.coverage[touched] += weight * np.minimum(1.0, said)
            frequencies = posting.frequencies
            self.own[posting.rows] += weight * frequencies * (K1 + 1) / (frequencies + damping[posting.rows])
        best = float(self.lifted.max()) if found else 0.0
        if best > 0:
            self.lifted /= best
            self.own /= best
            weight = sum(self.weights.values())
            self.coverage /= weight
            self.known = sum(self.weights[term] for term in rarest if term in found) / weight


def _idf(rows: int, holding: int) -> float:
    """As Lucene has it: never below zero."""
    return float(np.log1p((rows - holding + 0.5) / (holding + 0.5)))


def _meaning(index: Index, near: _Neighbours) -> tuple["Numbers", "Numbers", "Numbers | None"]:
    """How far each row stands above chance, alone and with its neighbours; and the cosines, the mean where a row has no vector."""
    nothing = np.zeros(len(index))
    products = index.cosines() if len(index) else None
    if products is None:
        return nothing, nothing, None
    has = products != 0  # so is the product of what has no vector
    if not has.any():
        return nothing, nothing, None
    cosine = products.astype(np.float64).round(COSINE_DIGITS)
    known = cosine[has]
    chance, best = float(known.mean() + CHANCE * known.std()), float(known.max())
    own = np.where(has, np.clip(cosine - chance, 0, None) / (best - chance), 0.0) if best > chance else nothing
    rows = np.flatnonzero(own)
    return own, near.lifted(rows, own[rows]), np.where(has, cosine, known.mean())


def _said_at(index: Index, question: str, asked: datetime) -> "Flags":
    """Which rows were said at a time that the question names."""
    dated = np.zeros(len(index), dtype=bool)
    if len(index):
        for begin, end in spans_of(question, asked, moment(int(index.created_us.min()))):
            dated |= (index.created_us >= _microseconds(begin)) & (index.created_us < _microseconds(end))
    return dated


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
