"""What was said before about the question: the entries that rank best for it, as dated excerpts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import Entry, History, moment
from threadkeep.memory.index import Index, Scope
from threadkeep.memory.quotation import label
from threadkeep.strategies.excerpts import excerpt

if TYPE_CHECKING:
    from threadkeep.strategies.ranking import Ranking

LENGTH = 0.35
"""How much a longer message must say more: its score is divided by its tokens to this power."""
SHORT = 64
"""Tokens below which a message gains nothing by being shorter."""
LARGEST = 0.25
"""The share of what is left that one message may take; a longer one is excerpted."""
BLOCK_TOKENS, DATE_TOKENS, SPARED = 38, 13, 2
"""What the block in its fence and a date add, and what a line with its speaker costs less than its message (all of o200k_base)."""
MARGIN = 0.01
"""The share of the tokens that is kept free, as costs are estimates."""
LOOKED_AT = 4
"""Candidates for each message that may be recalled: what is too long for the end of the budget is passed over."""
LEAST = 16
"""Tokens: it is not worth while to read more for less."""


@dataclass(frozen=True)
class Recall:
    """The entries that rank best for the live user message, by words and meaning together, as excerpts with date and speaker.

    It spends tokens where they bring most: scores are weighed by length, and of a message that would take more than a quarter of what is
    left only its best sentences are shown. What the context shows already is left out. Without an embedder it ranks by words alone.

    Args:
        k: the most messages it recalls, from 1.
        scope: `session`, or `owner`: the owner's other sessions too, the 2,000 that were used last.
        floor: what the best entry must have in common with the question, from 0 (all) to 1, for anything to be recalled: two thirds
            the cosine, one third the share of the question's words that stand in or beside it.
        sitting_minutes: a longer silence ends a sitting; neighbours lift each other within one.
    """

    k: int = 200
    scope: Scope = "session"
    floor: float = 0.33
    sitting_minutes: float = 30

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise InvalidSetting(f"Recall(k={self.k!r}): a number of messages from 1")
        if self.scope not in ("session", "owner"):
            raise InvalidSetting(f"Recall(scope={self.scope!r}): 'session' or 'owner'")
        if not 0 <= self.floor <= 1:
            raise InvalidSetting(f"Recall(floor={self.floor!r}): a number from 0 to 1")
        if not self.sitting_minutes > 0:
            raise InvalidSetting(f"Recall(sitting_minutes={self.sitting_minutes!r}): minutes above 0")

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        live = history.live
        if live is None or not live.message.text.strip() or budget.left < LEAST:
            return []
        from threadkeep.strategies.ranking import rank  # numpy is slow to import

        index = history.index(self.scope)
        ranking = rank(index, live.message.text, live.created_at, sitting_minutes=self.sitting_minutes)
        if not len(index) or ranking.relevance < self.floor:
            return []
        taken = history.shown.union(entry.seq for entry in history.pinned())
        return _picks(_Spending(index, ranking, budget.left).spend(_order(index, ranking, taken, LOOKED_AT * self.k), self.k))


class _Line(NamedTuple):
    """A message that is recalled."""

    row: int
    entry: Entry
    session: str | None
    """Of another session: its name."""
    sitting: float
    text: str
    tokens: float
    reason: str
    score: float


def _order(index: Index, ranking: "Ranking", taken: frozenset[int], most: int) -> list[int]:
    """Rows that rank at all and are not in the context yet, those first that bring most for their tokens."""
    import numpy as np

    from threadkeep.strategies.ranking import best_of

    worth = np.round(ranking.scores / np.maximum(index.tokens, SHORT) ** LENGTH, 6)
    here = np.flatnonzero(index.session == 0)
    worth[here[np.isin(index.seqs[here], list(taken))]] = 0
    return [int(row) for row in best_of(worth, most)]


class _Spending:
    """Turns rows into lines until the tokens are spent."""

    def __init__(self, index: Index, ranking: "Ranking", tokens: int) -> None:
        self._index = index
        self._ranking = ranking
        self._left = (1 - MARGIN) * tokens - BLOCK_TOKENS
        self._largest = max(SHORT, LARGEST * self._left)
        self._lines: list[_Line] = []
        self._sittings: set[float] = set()

    def spend(self, order: Sequence[int], k: int) -> list[_Line]:
        """The lines, the most worth first. Messages are read some at a time, about as many as are shown."""
        at = 0
        while at < len(order) and len(self._lines) < k and self._left >= LEAST:
            rows, expected = list[int](), self._left
            while at < len(order) and len(rows) < k - len(self._lines) and expected >= LEAST:
                cost = min(float(self._index.tokens[order[at]]), self._largest)
                if cost <= expected or not rows:
                    rows.append(order[at])
                    expected -= cost
                at += 1
            for row, entry in zip(rows, self._index.lookup.entries(rows), strict=True):
                self._add(row, entry)
        return self._lines

    def _add(self, row: int, entry: Entry) -> None:
        text = entry.message.text.strip()
        sitting = float(self._ranking.sittings[row])
        label = 0 if sitting in self._sittings else DATE_TOKENS
        most = min(self._largest, self._left - label)
        each = entry.tokens / max(1, len(text))
        cost = float(entry.tokens - SPARED)
        if cost > most:
            text = excerpt(text, most, each, self._ranking.weights)
            cost = len(text) * each
        if not text:
            return
        session = int(self._index.session[row])
        name = self._index.sessions[session] if session else None
        line = _Line(row, entry, name, sitting, text, cost + label, self._reason(row), float(self._ranking.scores[row]))
        self._lines.append(line)
        self._sittings.add(sitting)
        self._left -= line.tokens

    def _reason(self, row: int) -> str:
        hit = self._ranking.hit(row)
        parts = {"words": hit.lexical, "meaning": hit.dense, "neighbours": hit.lift, "date": hit.date}
        return " + ".join(f"{name} {part:.2f}" for name, part in parts.items() if part >= 0.005)


def _picks(lines: Sequence[_Line]) -> list[Pick]:
    """The lines as picks, the most worth first; of one sitting the line that bears its date before those that lean on it."""
    place = {line.row: at for at, line in enumerate(lines)}
    ranked: list[tuple[int, int, Pick]] = []
    said_us, before, first = -1, None, 0
    for line in sorted(lines, key=lambda line: (line.entry.created_us, line.session or "", line.entry.seq)):
        said_us = max(said_us + 1, line.entry.created_us)  # of two moments that are equal too, one comes first
        opens = line.sitting != before
        if opens:
            first, before = len(ranked), line.sitting
        pick = Pick(
            () if line.session else (line.entry.seq,),
            round(line.tokens),
            line.reason,
            line.score,
            kind="excerpt",
            text=told(line.entry, line.text, dated=opens, session=line.session),
            said_us=said_us,
        )
        ranked.append((place[line.row], len(ranked), pick))
        at, number, opener = ranked[first]
        ranked[first] = (min(at, place[line.row]), number, opener)
    return [pick for _, _, pick in sorted(ranked, key=lambda one: one[:2])]


def told(entry: Entry, text: str, *, dated: bool = True, session: str | None = None) -> str:
    """One line of the recalled block: `[2023-05-20 14:03] user: text`, without the date where it follows a line of its sitting."""
    when = f"{moment(entry.created_us):%Y-%m-%d %H:%M}"
    head = f"[{when}, in {label(session)}] " if session else f"[{when}] "
    return f"{head if dated else ''}{entry.role}: {text}"
