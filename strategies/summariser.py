"""What is asked of a summariser: one method that makes a text shorter.

Upkeep calls it, between turns; it may take minutes. Where it fails it raises `SummariserError`: nothing is stored, and upkeep asks
again later. `checked` is what its answers have to pass.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from threadkeep.memory.errors import SummariserError

FAR_TOO_LONG = 2
"""How many times the tokens asked for an answer may take before it is refused."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a conversation, or a summary of some."""

    text: str
    speaker: str = ""
    """Who said it; empty for a summary, whose text names its speakers."""
    at: datetime | None = None
    """When, in UTC; None for a summary."""
    tokens: int = 0
    """What it costs in the log's own tokens, a message's share of the template included; 0: its text is not all that costs."""


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """What is to be summarised, and how short."""

    said: Sequence[Said] = field(repr=False)
    """Oldest first; at least one."""
    tokens: int
    """The most that the summary may take."""
    before: str | None = field(default=None, repr=False)
    """The summary so far, which the new one takes in and replaces."""

    @property
    def tokens_per_length(self) -> float:
        """What a text of `length` 1 costs: measured on what was said, what the template takes of each message apart."""
        spent = sum(one.tokens for one in self.said)
        lengths = sum(length(one.text) + (TEMPLATE_LENGTH if one.speaker else 0) for one in self.said if one.tokens)
        return min(1.0, spent / lengths) if spent and lengths else TOKENS_PER_LENGTH


TEMPLATE_LENGTH = 16
"""What a template puts around a message, about 4 tokens, as a length."""
TOKENS_PER_LENGTH = 0.2
"""Of English text."""
SIGN_LENGTH = 3
"""How many letters a digit or a sign costs as much as, about."""
_SIGN = re.compile(r"[^\w\s'’]|\d")


def length(text: str) -> int:
    """A text's characters, those weighed more that take more tokens: so that codes and dates are not taken for cheap."""
    return len(text) + (SIGN_LENGTH - 1) * len(_SIGN.findall(text))


@runtime_checkable
class Summariser(Protocol):
    """Makes a run of messages, or of summaries, shorter."""

    @property
    def name(self) -> str:
        """Names it and the settings that its answers depend on: summaries of different names never meet."""

    def summarise(self, request: SummaryRequest) -> str:
        """The summary.

        Raises:
            SummariserError: it failed, or gave nothing of use.
        """


def checked(text: object, request: SummaryRequest, source: str) -> str:
    """A summariser's answer, if it is one.

    Raises:
        SummariserError: it is no text, is empty, or is far longer than was asked for.
    """
    if not isinstance(text, str) or not text.strip():
        raise SummariserError(f"{source} gave {text!r:.80}: a summary is text")
    about = int(length(text) * request.tokens_per_length)
    if about > FAR_TOO_LONG * request.tokens:
        raise SummariserError(f"{source} was asked for {request.tokens} tokens and gave about {about}: the summary is not stored")
    return text.strip()
