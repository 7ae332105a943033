"""What a context is worth to a question: each figure by its definition in docs/experiments.md.

All of it is computed from the public `Context` alone; gold and answers are compared with it afterwards.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from threadkeep import Context

RANKS = (1, 5, 10)
"""The k of recall@k; NDCG is taken at the largest."""
HALF = 0.5
"""A gold message counts when so much of it stands in the context."""
_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+|\n+")


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
    cannot_fit: bool = False
    error: str | None = None


def evidence(context: Context, seqs: Sequence[int], texts: Sequence[str], answers: Sequence[str]) -> tuple[bool, ...]:
    """Which gold messages stand in the context: at least half of each, by characters of whole sentences, or the answer out of it."""
    verdicts = {seq: one.verdict for one in context.decisions for seq in seqs if one.first <= seq <= one.last}
    shown = _shown(context)
    return tuple(verdicts.get(seq) == "kept" or _stands(text, shown, answers) for seq, text in zip(seqs, texts, strict=True))


def _stands(text: str, shown: str, answers: Sequence[str]) -> bool:
    sentences = [sentence for sentence in (part.strip() for part in _SENTENCE.split(text)) if sentence]
    standing = [sentence for sentence in sentences if sentence in shown]
    if sum(map(len, standing)) >= HALF * sum(map(len, sentences)) > 0:
        return True
    said = folded(" ".join(standing))
    return any(folded(answer) in said for answer in answers if folded(answer))


def answer_stands(context: Context, answers: Sequence[str]) -> bool | None:
    """Whether an answer string stands in the context, the question itself apart; None where there is none to look for."""
    wanted = [folded(answer) for answer in answers if folded(answer)]
    if not wanted:
        return None
    said = folded(_shown(context))
    return any(answer in said for answer in wanted)


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


def folded(text: str) -> str:
    """Text as answers are compared: NFKC, case and blanks folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _shown(context: Context) -> str:
    """All text of the context but its last message, which is the question."""
    return "\n".join(message.text for message in context.typed_messages()[:-1])
