"""The best whole sentences of a long text, as many as a number of tokens allows."""

from collections.abc import Mapping
from functools import lru_cache

from threadkeep.memory.analysis import terms
from threadkeep.strategies.sentences import sentences

CUT = "…"
"""Stands for what was left out."""
SHORT = 20
"""Tokens below which a sentence gains nothing by being shorter."""
LENGTH = 0.35
"""How much a longer sentence must say more: its weight is divided by its tokens to this power."""


def excerpt(text: str, tokens: float, tokens_per_character: float, weights: Mapping[str, float]) -> str:
    """The sentences that hold most of the question's terms, in their order; of those that hold none, the first. Empty: none fits.

    Args:
        text: a message's.
        tokens: the most it may take, by an estimate.
        tokens_per_character: the estimate.
        weights: of the question's terms.
    """
    said = _sentences(text)
    costs = [len(sentence) * tokens_per_character + 1 for sentence, _ in said]
    worth = [
        sum(weight for term, weight in weights.items() if term in held) / max(SHORT, cost) ** LENGTH  # in one order: sums are of floats
        for (_, held), cost in zip(said, costs, strict=True)
    ]
    chosen = []
    for at in sorted(range(len(said)), key=lambda at: (-round(worth[at], 6), at)):
        if costs[at] <= tokens:
            chosen.append(at)
            tokens -= costs[at]
    parts, before = [], -1
    for at in sorted(chosen):
        if at != before + 1:
            parts.append(CUT)
        parts.append(said[at][0])
        before = at
    if parts and before < len(said) - 1:
        parts.append(CUT)
    return " ".join(parts)


@lru_cache(maxsize=256)
def _sentences(text: str) -> list[tuple[str, frozenset[str]]]:
    """Each sentence with its terms. Not to be changed."""
    return [(sentence, frozenset(terms(sentence))) for sentence in sentences(text)]
