"""A model behind a URL that speaks OpenAI's chat completions: OpenAI itself, OpenRouter, vLLM, llama-server, and others."""

import os
import threading
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from threadkeep.backends.base import Backend, Event, Profile
from threadkeep.backends.estimating_counter import EstimatingCounter
from threadkeep.backends.openai_calls import Call, Line, Patience
from threadkeep.backends.openai_wire import Wire
from threadkeep.backends.profiles import is_publisher, profile_for
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, InvalidSetting, MissingExtra
from threadkeep.memory.fitting import THOUGHT
from threadkeep.memory.message import JSON, Message, ToolCall
from threadkeep.memory.tokens import TokenCounter

if TYPE_CHECKING:
    from openai import AsyncOpenAI

HEARTBEAT = 0.5
"""Seconds without news after which a listener hears that the call goes on."""
NO_KEY = "none"
"""Sent as the key where none is given: servers of one's own ask for none, and OpenAI's key is not for them."""
RESERVED = ("model", "messages", "tools", "tool_choice", "response_format", "stream")
"""What each request has of its own."""


class OpenAIBackend:
    """Answers with a model behind an OpenAI-compatible URL, streamed.

    A request is sent again, after a growing pause or the one that the server asks for, while it gets 429, 5xx or no connection. Once the
    server has begun to answer, it is never sent again: what fails then is a `BackendError`, and what was said is stored as interrupted.
    Closing the stream, at any moment, closes the connection. Where a server tells no usage, it is counted by `counter`.

    Args:
        model: as the server calls it.
        base_url: where the API begins, most often ending in `/v1`; None: OpenAI itself.
        api_key: None: for OpenAI itself what the `openai` package finds in OPENAI_API_KEY, for another base none.
        window: tokens of a request and its reply together; None: what `genai-prices` knows of the model.
        counter: None: tiktoken's where it knows the model, otherwise an estimate with a margin (`EstimatingCounter`).
        profile: what the model accepts; None: by the rules of `profile_for`.
        connect_timeout: seconds to connect.
        first_token_timeout: seconds from the request to the first token, for each try; reasoning counts as tokens.
        next_token_timeout: seconds between two tokens.
        retries: how often a request is sent again.
        options: more for the body of each request, such as `{"temperature": 0}` or `{"reasoning_effort": "low"}`.
        client: makes the `openai.AsyncOpenAI` to use, or a kind of it such as `AsyncAzureOpenAI`, in place of `base_url` and `api_key`;
            it is used on the backend's own thread, and closed with it.

    Raises:
        InvalidSetting: an argument out of range; no key for OpenAI; a window that is not known.
        MissingExtra: the `openai` package is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        window: int | None = None,
        counter: TokenCounter | None = None,
        profile: Profile | None = None,
        connect_timeout: float = 10.0,
        first_token_timeout: float = 300.0,
        next_token_timeout: float = 60.0,
        retries: int = 2,
        options: JSON | None = None,
        client: "Callable[[], AsyncOpenAI] | None" = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidSetting(f"OpenAIBackend({model!r}): a model's name")
        if base_url is not None and urlsplit(base_url).scheme not in ("http", "https"):
            raise InvalidSetting(f"OpenAIBackend(base_url={base_url!r}): a URL that begins with http:// or https://")
        if client is not None and (base_url is not None or api_key is not None):
            raise InvalidSetting("OpenAIBackend(client=…): base_url and api_key are then the client's own")
        _check_numbers(window, retries)
        times = {"connect_timeout": connect_timeout, "first_token_timeout": first_token_timeout, "next_token_timeout": next_token_timeout}
        for name, seconds in times.items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
                raise InvalidSetting(f"OpenAIBackend({name}={seconds!r}): a number of seconds above 0")
        if options is not None and (not isinstance(options, Mapping) or any(key in RESERVED for key in options)):
            raise InvalidSetting(
                f"OpenAIBackend(options={options!r:.80}): a dict of what a request's body has beside {', '.join(RESERVED)}"
            )
        self._connect = _connecting(base_url, api_key) if client is None else client
        self.name = model
        self.base_url = base = _base(self._connect)
        """Where it is asked; by this and the name its price is found."""
        self.profile = profile or profile_for(base, model)
        self.window = window or _known_window(model, base)
        self.counter: TokenCounter = counter or _counter(model)
        self._wire = Wire(model, self.profile, options or {}, publisher=is_publisher(base))
        self._who = f"{model} at {urlsplit(base).hostname}"
        self._patience = Patience(connect_timeout, first_token_timeout, next_token_timeout, retries)
        self._learnt: set[str] = set()
        self._lock = threading.Lock()
        self._open: tuple[Line, weakref.finalize[[], OpenAIBackend]] | None = None

    def __repr__(self) -> str:
        return f"OpenAIBackend({self.name!r})"

    def candidates(self, request: JSON) -> Sequence[Backend]:
        return [self]

    def stream(self, context: Context) -> Generator[Event, None, None]:
        """The reply, piece by piece; closing the iterator closes the connection.

        Raises:
            BackendError: it could not be reached, refused, failed, or was too slow; with its words.
        """
        news: SimpleQueue[str | BaseException | None] = SimpleQueue()
        call = Call(self._who, self._wire.body(context), self._patience, self._learnt, news.put)
        line = self._line()
        going = line.start(call.run(line.client))
        try:
            while True:
                try:
                    said = news.get(timeout=HEARTBEAT)
                except Empty:
                    if going.done() and news.empty():  # the backend was closed before the call had begun
                        raise BackendError(f"{self._who}: the backend was closed while it answered") from None
                    yield Event()
                    continue
                if isinstance(said, BaseException):
                    raise said
                if said is None:
                    break
                yield Event(said)
        finally:
            going.cancel()
        keeps = bool(context.tools) and THOUGHT in self.profile.keys
        yield call.reading.last(lambda text, calls: (context.tokens, self._counted(text, calls)), thought=keeps)

    def close(self) -> None:
        """Leave all calls and close the connections; a later call opens them again."""
        with self._lock:
            held, self._open = self._open, None
        if held is not None:
            held[1]()

    def _line(self) -> Line:
        """The connections of this process."""
        with self._lock:
            if self._open is None or self._open[0].pid != os.getpid():
                line = Line(self._connect)
                self._open = line, weakref.finalize(self, line.close)
            return self._open[0]

    def _counted(self, text: str, calls: tuple[ToolCall, ...]) -> int:
        said = self.counter.count(Message.assistant(text, tool_calls=calls)).tokens
        return said - self.counter.count(Message.assistant("")).tokens


def _check_numbers(window: int | None, retries: int) -> None:
    for name, number, least in (("window", window, 1), ("retries", retries, 0)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
            raise InvalidSetting(f"OpenAIBackend({name}={number!r}): a whole number from {least}")


def _connecting(base_url: str | None, api_key: str | None) -> "Callable[[], AsyncOpenAI]":
    def connect() -> "AsyncOpenAI":
        from openai import AsyncOpenAI

        key = api_key if api_key is not None or base_url is None else NO_KEY
        return AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)

    return connect


def _base(connect: "Callable[[], AsyncOpenAI]") -> str:
    """The base that a client asks; made once only to see that it can be."""
    try:
        from openai import OpenAIError
    except ImportError as error:
        raise MissingExtra("openai", "openai") from error
    try:
        return str(connect().base_url)
    except OpenAIError as error:
        raise InvalidSetting(f"OpenAIBackend(api_key=…): {error}") from error


def _counter(model: str) -> TokenCounter:
    """That of tiktoken for OpenAI's models, under a router's name for them too (`openai/gpt-4.1`)."""
    try:
        return TiktokenCounter(model.removeprefix("openai/"))
    except InvalidSetting:
        return EstimatingCounter()


def _known_window(model: str, base_url: str) -> int:
    """What genai-prices knows, offline.

    Raises:
        InvalidSetting: nothing.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot

        _, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except (ImportError, LookupError):
        found = None
    if found is None or not found.context_window:
        raise InvalidSetting(f"OpenAIBackend({model!r}): the window of this model at {base_url} is not known: give window=…, in tokens")
    return found.context_window
