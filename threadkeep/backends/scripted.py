"""A backend that answers from a script: for tests and examples, where no model should run."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from threadkeep.backends.base import Backend, Event, Profile, Usage
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, InvalidSetting
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.money import FREE, Price
from threadkeep.memory.tokens import TokenCounter

Replies: TypeAlias = Sequence[str | Message | Exception] | Callable[[Context], str | Message]

SILENCE = 0.5
"""Seconds after which a backend that waits says that it is still at work."""
_WORD = re.compile(r"\S+\s*|\s+")


class ScriptedBackend:
    """Answers with the next of `replies`, or with what a function makes of the context; word by word.

    An exception among the replies is raised in its place. Several threads may ask at once: each gets the next reply.

    Args:
        replies: texts, assistant messages (with tool calls, if wanted) and exceptions; or a function.
        counter: counts the usage it reports; by default as OpenAI's newer models do.
        window: the context window it claims, in tokens.
        profile: what it claims to accept.
        delay: seconds it waits before each piece, the first included.
        chunk: words in a piece.

    Raises:
        InvalidSetting: a reply is none of these, or a number is out of range.

    Example:
        >>> backend = ScriptedBackend(["Good morning.", "Good night."])
        >>> backend.name
        'scripted'
    """

    name = "scripted"
    price: Price | None = FREE

    def __init__(
        self,
        replies: Replies,
        *,
        counter: TokenCounter | None = None,
        window: int = 8192,
        profile: Profile | None = None,
        delay: float = 0.0,
        chunk: int = 1,
    ) -> None:
        if delay < 0:
            raise InvalidSetting(f"delay is a number of seconds from 0, not {delay!r}")
        if chunk < 1:
            raise InvalidSetting(f"chunk is a number of words from 1, not {chunk!r}")
        if window < 1:
            raise InvalidSetting(f"window is a number of tokens from 1, not {window!r}")
        if not callable(replies):
            if isinstance(replies, str) or not isinstance(replies, Sequence):
                raise InvalidSetting(f"replies is a list or a function, not {type(replies).__name__}: put a single reply into a list")
            for place, reply in enumerate(replies):
                _check(reply, f"replies[{place}]")
        self.counter: TokenCounter = counter or TiktokenCounter("o200k_base")
        self.window = window
        self.profile = profile or Profile(name="scripted")
        self.seen: list[Context] = []
        """Every context it was given, in order."""
        self._replies = replies if callable(replies) else tuple(replies)
        self._used = 0
        self._delay = delay
        self._chunk = chunk
        self._lock = threading.Lock()

    def stream(self, context: Context) -> Iterator[Event]:
        """The next reply.

        Raises:
            BackendError: the replies are used up, or the function gave neither text nor an assistant's message.
        """
        began = time.perf_counter()
        reply = self._next(context)
        if isinstance(reply, Exception):
            raise reply
        message = Message.assistant(reply) if isinstance(reply, str) else reply
        words = _WORD.findall(message.text)
        first = None
        for place in range(0, len(words), self._chunk):
            yield from self._wait()
            first = first if first is not None else _since(began)
            yield Event("".join(words[place : place + self._chunk]))
        usage = Usage(self._prompt_tokens(context), self._completion_tokens(message), 0, first, _since(began))
        yield Event(tool_calls=message.tool_calls, finish="tool_calls" if message.tool_calls else "stop", usage=usage)

    def candidates(self, request: JSON) -> Sequence[Backend]:
        """Itself, whatever the request."""
        return (self,)

    def close(self) -> None:
        """Holds nothing that must be freed."""

    def _next(self, context: Context) -> str | Message | Exception:
        with self._lock:
            self.seen.append(context)
            self._used += 1
            used = self._used
        if not callable(self._replies):
            if used > len(self._replies):
                raise BackendError(f"the script has {len(self._replies)} replies and was asked for number {used}: give it more")
            return self._replies[used - 1]
        reply = self._replies(context)
        try:
            _check(reply, "the function's reply", exceptions=False)
        except InvalidSetting as error:
            raise BackendError(str(error)) from None
        return reply

    def _wait(self) -> Iterator[Event]:
        """Sleep for the delay, with a sign of life where it is long."""
        left = self._delay
        while left > SILENCE:
            time.sleep(SILENCE)
            left -= SILENCE
            yield Event()
        if left > 0:
            time.sleep(left)

    def _prompt_tokens(self, context: Context) -> int:
        return self.counter.count_request(context.typed_messages(), tools=context.tools, response_format=context.response_format).tokens

    def _completion_tokens(self, message: Message) -> int:
        """What the reply says, without the template around it."""
        return self.counter.count(message).tokens - self.counter.count(Message.assistant("")).tokens


def _check(reply: object, place: str, *, exceptions: bool = True) -> None:
    wanted = "text, an assistant's message or an exception" if exceptions else "text or an assistant's message"
    if isinstance(reply, Message):
        if reply.role != "assistant":
            raise InvalidSetting(f"{place} is {wanted}, not a message of the role {reply.role}")
    elif not isinstance(reply, (str, Exception) if exceptions else str):
        raise InvalidSetting(f"{place} is {wanted}, not {type(reply).__name__}")


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
