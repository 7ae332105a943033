"""A model's answer to a question, asked with a context, and how it is scored against the answers that are known.

The scores are SQuAD's (Rajpurkar et al., 2016, and its published evaluation script): texts are compared in lower case, without ASCII
punctuation, without the articles a, an and the, blanks folded. LoCoMo (Maharana et al., 2024) scores with the same token F1, and by
category: the comma-separated parts of a multi-hop answer each for themselves, an open-domain answer up to its first semicolon. That is
followed here. Two things of its script are not: it stems words, and takes `and` for an article, which gives somewhat higher figures.
Its adversarial questions have no right answer to compare with, and are not asked.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from threadkeep import Backend, Context
from threadkeep.experiments.base import Question

INSTRUCTIONS = "Answer the user's last question from this conversation, in as few words as possible and not as a whole sentence."
"""Given with every question that a model is to answer; the known answers are short."""
MOST_TOKENS = 64
"""What a reply may take."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Scores:
    """What a reply is worth, from 0 to 1."""

    f1: float
    exact: float
    contains: float


def answered_by(backend: Backend, context: Context, max_tokens: int) -> str:
    """The reply to a context, of at most so many tokens.

    Raises:
        BackendError: the model failed.
    """
    budget = replace(context.budget, window=context.budget.ceiling + max_tokens, reply=max_tokens)
    return "".join(event.text for event in backend.stream(replace(context, budget=budget)))


def scored(question: Question, reply: str) -> Scores:
    """A reply to a question that has answers."""
    answers = question.answers
    if question.category == "multi-hop":
        f1 = max(parts_f1(reply, answer) for answer in answers)
    elif question.category == "open-domain":
        f1 = token_f1(reply, [answer.split(";")[0] for answer in answers])
    else:
        f1 = token_f1(reply, answers)
    return Scores(f1, float(exact_match(reply, answers)), float(contains_answer(reply, answers)))


def token_f1(reply: str, answers: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over the words that reply and answer share; of the best answer.

    Where either has no words left, 1 if both have none, else 0 (as in SQuAD 2.0).
    """
    return max(_f1(normalised(reply).split(), normalised(answer).split()) for answer in answers)


def parts_f1(reply: str, answer: str) -> float:
    """LoCoMo's F1 of an answer in parts: of each, separated by commas, the F1 with the reply's best part; their mean."""
    wanted = [part for part in answer.split(",") if normalised(part)]
    said = reply.split(",")
    if not wanted:
        return token_f1(reply, [answer])
    return sum(max(token_f1(part, [each]) for part in said) for each in wanted) / len(wanted)


def exact_match(reply: str, answers: Sequence[str]) -> bool:
    """Whether the reply is one of the answers, both normalised."""
    return normalised(reply) in [normalised(answer) for answer in answers]


def contains_answer(reply: str, answers: Sequence[str]) -> bool:
    """Whether the words of one of the answers stand in the reply, in a row, both normalised."""
    said = f" {normalised(reply)} "
    return any(f" {normalised(answer)} " in said for answer in answers)


def normalised(text: str) -> str:
    """Text as SQuAD compares it: lower case, no punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted))
