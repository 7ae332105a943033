"""What is asked of a backend: it streams a model's reply to an assembled context.

An implementation gives its model's `counter`, `window` and `profile`, and one method. `stream` yields pieces of the reply as they
come and ends with one event that has `finish` and `usage`. It yields at least about once a second (an empty `Event` while a prompt is
read), so that whoever listens can leave; when its iterator is closed, or an exception goes through it, the model stops. It may raise
`BackendError` and its kin, before the first token or after.

A backend may have a `price`, a `Price` or None, for what its calls cost; where it has none, what its `name` is published at counts, and
its `base_url`, where it has one, says by whom.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from threadkeep.memory.context import Context
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.fitting import Profile
from threadkeep.memory.message import JSON, Message, ToolCall
from threadkeep.memory.money import dollars
from threadkeep.memory.tokens import TokenCounter

__all__ = ["Backend", "Event", "Finish", "Profile", "Reply", "Usage"]

Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one model call took, in tokens and milliseconds.

    Raises:
        InvalidSetting: a number is none from 0, or the cost is no exact amount.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt's tokens, those the model had kept from before."""
    first_token_ms: float | None = None
    total_ms: float | None = None
    cost: Decimal | None = None
    """In US dollars, exact; 0 for a model on this machine, None where no price is known."""

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
            tokens = getattr(self, name)
            if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
                raise InvalidSetting(f"Usage({name}={tokens!r:.40}): a number of tokens from 0")
        for name in ("first_token_ms", "total_ms"):
            ms = getattr(self, name)
            if ms is not None and (not isinstance(ms, int | float) or not 0 <= ms < float("inf")):
                raise InvalidSetting(f"Usage({name}={ms!r:.40}): milliseconds from 0, or None")
        if self.cost is not None:
            object.__setattr__(self, "cost", dollars(self.cost, "Usage(cost=…)"))


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of a reply. An empty one says only that the model is at work."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Whole calls, once each."""
    finish: Finish | None = None
    """Why the reply ended; on the last event only."""
    usage: Usage | None = None
    """On the last event, where the model says it."""
    thought: str = ""
    """What the model thought before it said this, whole, on the last event: only where its provider wants it back with the message."""
    tool_result: Message | None = None
    """A tool's result, once it is stored; told by a session's stream, never by a backend."""


@dataclass(frozen=True)
class Reply:
    """What a turn came to."""

    message: Message
    seq: int
    """Its place in the session; the last one's where tools were called on the way."""
    status: Literal["complete", "interrupted"]
    usage: Usage | None = None
    """Of the call that gave it; `session.calls()` lists all calls of the turn."""
    finish: Finish | None = None
    parsed: object = None
    """The value that a `response_format` asked for: what the JSON says, or the pydantic model made of it."""
    route: str | None = None
    """Which backend answered, and why it was chosen."""

    @property
    def text(self) -> str:
        return self.message.text


@runtime_checkable
class Backend(Protocol):
    """Streams a model's replies."""

    @property
    def name(self) -> str:
        """The model, as the ledger shows it."""

    @property
    def counter(self) -> TokenCounter: ...

    @property
    def window(self) -> int:
        """The model's context window, in tokens."""

    @property
    def profile(self) -> Profile: ...

    def stream(self, context: Context) -> Iterator[Event]:
        """The reply to a context, piece by piece."""

    def candidates(self, request: JSON) -> Sequence["Backend"]:
        """The backends to try for a request (its new message, tools and response format, in OpenAI's format), in order.

        Itself; a router gives several, and a context is assembled for each.
        """

    def close(self) -> None:
        """Free what it holds. Calling it twice is fine."""
