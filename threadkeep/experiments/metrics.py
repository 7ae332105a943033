"""What a context is worth to a question: each figure by its definition in docs/experiments.md.

All of it is computed from the public `Context` alone; gold and answers are compared with it afterwards.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from threadkeep import Context
from threadkeep.experiments.answers import INSTRUCTIONS

RANKS = (1, 5, 10)
"""The k of recall@k; NDCG is taken at the largest."""
HALF = 0.5
"""A gold message counts when so much of it stands in the context."""
RUN = 5
"""Words in a row that must stand in the context for each of them to count: single words stand anywhere."""
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
"""Kana and Chinese characters, which are written without blanks: each counts as a word."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one question came to with one strategy at one budget. Lists run over the question's gold messages."""

    question: str
    category: str
    kept: tuple[bool, ...]
    """Which gold messages stand in the context."""
    ages: tuple[float, ...]
    """Where in the log each stood: 0 the oldest end, 1 the newest."""
    answered: bool | None
    """Whether an answer string stands in the context; None: the question has none."""
    ranks: tuple[int | None, ...] | None
    """The rank of each gold message, from 1, in a strategy's scored picks; None: it does not rank."""
    tokens: int
    ceiling: int
    milliseconds: float
    rows: int
    """Entries that the strategy read or that stand in the context."""
    cannot_fit: bool = False
    error: str | None = None
    answer_f1: float | None = None
    """How a model's answer scores, by `answers.py`; None, here and below: none was asked, or the question has no known answer."""
    answer_em: float | None = None
    answer_contains: float | None = None


def evidence(context: Context, question: str, gold: Sequence[tuple[int, str]], answers: Sequence[str]) -> tuple[bool, ...]:
    """Which gold messages, given as seq and text, stand in the context.

    One does that is kept whole; one that was clipped, excerpted or summarised does when at least half of its words stand there, in runs
    of at least five, or an answer out of it. The same words in a message beside it do not count, nor does the question.
    """
    said = [answer for answer in map(words, answers) if answer]
    kept = []
    for seq, text in gold:
        verdict = next((one.verdict for one in context.decisions if one.first <= seq <= one.last), "left out")
        told = words("\n".join(pick.text for pick in context.picks if pick.text and (seq in pick.seqs or not pick.seqs)))
        whole = words(text)
        standing = _standing(whole, words(_shown(context, question)) if verdict == "clipped" else told)
        half = sum(map(bool, standing)) >= HALF * len(whole) > 0
        out_of_it = any(_holds(whole, answer) and (_holds(standing, answer) or _holds(told, answer)) for answer in said)
        kept.append(verdict == "kept" or half or out_of_it)
    return tuple(kept)


def _standing(text: Sequence[str], place: Sequence[str]) -> list[str]:
    """The words of a text, those blanked that do not stand in a place in a run of `RUN` (of all its words, where it has fewer)."""
    length = min(RUN, len(text))
    there = {tuple(place[at : at + length]) for at in range(len(place) - length + 1)}
    standing = [""] * len(text)
    for at in range(len(text) - length + 1):
        if tuple(text[at : at + length]) in there:
            standing[at : at + length] = text[at : at + length]
    return standing


def answer_stands(context: Context | None, question: str, answers: Sequence[str]) -> bool | None:
    """Whether the words of an answer stand in a row in the context, the question apart; None where there are none to look for."""
    wanted = [answer for answer in map(words, answers) if answer]
    if not wanted:
        return None
    said = words(_shown(context, question)) if context else []
    return any(_holds(said, answer) for answer in wanted)


def _holds(place: Sequence[str], answer: Sequence[str]) -> bool:
    return f" {' '.join(answer)} " in f" {' '.join(place)} "


def gold_ranks(context: Context, seqs: Sequence[int]) -> tuple[int | None, ...] | None:
    """The rank of each gold message among the scored picks, best first; None where nothing is scored."""
    scored = sorted((pick for pick in context.picks if pick.score is not None), key=lambda pick: (-(pick.score or 0), pick.seqs))
    if not scored:
        return None
    order: dict[int, int] = {}
    for pick in scored:
        for seq in pick.seqs:
            order.setdefault(seq, len(order) + 1)
    return tuple(order.get(seq) for seq in seqs)


def recall_at(ranks: Sequence[int | None], k: int) -> float:
    """The share of gold messages among the first k."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def ndcg_at(ranks: Sequence[int | None], k: int) -> float:
    """Normalised discounted cumulative gain with binary relevance (Järvelin and Kekäläinen, 2002)."""
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank is not None and rank <= k)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(ranks), k) + 1))
    return gain / ideal


def words(text: str) -> list[str]:
    """A text's words as they are compared: NFKC, case folded, without signs."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _shown(context: Context, question: str) -> str:
    """All text of the context but what a run adds: its instructions, and the question at the end, even where it was joined with others."""
    *before, last = (message.text for message in context.typed_messages())
    return "\n".join([*before, last.removesuffix(question)]).replace(INSTRUCTIONS, "")
