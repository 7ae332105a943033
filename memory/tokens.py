"""What is asked of a token counter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from threadkeep.memory.message import JSON, Message


@dataclass(frozen=True, slots=True)
class Count:
    """A number of tokens, and whether it is the model's own or an estimate."""

    tokens: int
    exact: bool = True


@runtime_checkable
class TokenCounter(Protocol):
    """Counts tokens as one model would."""

    @property
    def name(self) -> str:
        """Identifies tokenizer and template: equal names count alike. Stored with each session."""

    @property
    def additive(self) -> bool:
        """Whether a request costs the sum of its messages' counts plus what does not depend on their text."""

    def count(self, message: Message) -> Count:
        """What one message adds to a request, its share of the template included. Called once a message, at its append."""

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        """What a whole request costs as prompt tokens, tools and template included.

        `counts`: what `count` gave for each of the messages, where the caller has it. A counter whose template is
        additive adds these up and does not read the text again; any other ignores them. With `counts`, `exact` speaks of what is
        added to them; whether each of them was exact, the caller knows.
        """
