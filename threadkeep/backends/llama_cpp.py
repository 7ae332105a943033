"""A model run by llama.cpp inside this process."""

import hashlib
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args

from threadkeep.backends.base import Backend, Event, Finish, Profile, Usage
from threadkeep.backends.gguf import Tokenizer, read_tokenizer
from threadkeep.backends.llama_counter import LlamaCounter, check_tools
from threadkeep.backends.llama_engine import Engine, Settings, engine_for
from threadkeep.backends.llama_template import Template
from threadkeep.backends.llama_wire import Wire
from threadkeep.memory.context import Context
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON, ToolCall
from threadkeep.memory.money import FREE, Price
from threadkeep.models.fetch import check_name, locate
from threadkeep.models.registry import DEFAULT, MODELS


class LlamaCpp:
    """Answers with a model on this machine, by the registry's name or a GGUF file's path.

    The model is fetched and loaded when it is first needed. Objects with equal `model`, `window`, `parallel`, `threads` and
    `chat_template` share one engine; it ends with the last of them.

    Args:
        model: a name (`threadkeep models list`) or a path.
        window: tokens that one conversation may take, its reply included.
        parallel: conversations answered at once; others wait. Each takes memory for a whole window.
        temperature: 0 gives the likeliest reply, and the same one each time.
        seed: makes replies at other temperatures repeatable; None: another each time.
        stop: texts at which a reply ends.
        threads: None: one for each core.
        chat_template: in Jinja, in place of the model's own.
        cache: the folder of fetched models; None: the user's.

    Raises:
        InvalidSetting: an argument out of range.
        ModelUnavailable: no such name and no such file.
    """

    price: Price | None = FREE

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT,
        *,
        window: int = 8192,
        parallel: int = 4,
        temperature: float = 0.7,
        seed: int | None = None,
        stop: Sequence[str] = (),
        threads: int | None = None,
        chat_template: str | None = None,
        cache: Path | None = None,
    ) -> None:
        for name, number, least in (("window", window, 128), ("parallel", parallel, 1), ("threads", threads, 1), ("seed", seed, 0)):
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
                raise InvalidSetting(f"LlamaCpp({name}={number!r}): a whole number from {least}")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 10:
            raise InvalidSetting(f"LlamaCpp(temperature={temperature!r}): a number from 0 to 10")
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise InvalidSetting(f"LlamaCpp(stop={stop!r}): a sequence of texts")
        check_name(model)
        if (known := MODELS.get(os.fspath(model))) is not None and known.kind != "chat":
            raise InvalidSetting(f"LlamaCpp({known.name!r}): that is a model for {known.kind}, not for chat")
        self._model, self._cache = os.fspath(model), cache
        self._window, self._parallel, self._threads, self._chat_template = window, parallel, threads, chat_template
        self._sampling: dict[str, object] = {"temperature": temperature}
        if seed is not None:
            self._sampling["seed"] = seed
        if stop:
            self._sampling["stop"] = list(stop)
        self._loaded: Template | None = None

    @property
    def name(self) -> str:
        return self._model if self._model in MODELS else Path(self._model).stem

    @property
    def window(self) -> int:
        return self._window

    @property
    def profile(self) -> Profile:
        return self._template().profile

    @cached_property
    def counter(self) -> LlamaCounter:
        tokenizer = self._tokenizer
        template = tokenizer.template if self._chat_template is None else self._chat_template
        identity = hashlib.sha256(f"{tokenizer.identity} {template}".encode()).hexdigest()
        return LlamaCounter(self._template, f"llama.cpp:{identity[:16]}")

    def candidates(self, request: JSON) -> Sequence[Backend]:
        return [self]

    @property
    def busy(self) -> int:
        """How many conversations the engine is answering at this moment, for all who share it."""
        return self._template().engine.busy()

    def close(self) -> None:
        """Let go of the engine, which ends with the last who holds it; a later call starts it again."""
        self._loaded = None

    def stream(self, context: Context) -> Generator[Event, None, None]:
        """The reply, piece by piece; closing the iterator cancels it.

        Raises:
            BackendError: the engine refused or failed; with its words.
            InvalidSetting: the context has tools, and the model's template would drop them.
        """
        template = self._template()
        check_tools(template, context.tools)
        reading = _Reading()
        chunks = template.engine.answer(self._body(context, template))
        try:
            for chunk in chunks:
                yield Event() if chunk is None else reading.event(chunk)
        finally:
            chunks.close()
        yield reading.last()

    def _body(self, context: Context, template: Template) -> dict[str, object]:
        body = template.body(context.messages, context.tools, context.response_format) | self._sampling
        body |= {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, "cache_prompt": True}
        if context.max_tokens is not None:
            body["max_tokens"] = context.max_tokens
        return body

    @cached_property
    def _path(self) -> Path:
        return locate(self._model, cache=self._cache).resolve()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = read_tokenizer(self._path)
        if 0 < tokenizer.trained_window < self._window:
            raise InvalidSetting(
                f"LlamaCpp(window={self._window}): {self.name} was trained for {tokenizer.trained_window} tokens; give that or less"
            )
        return tokenizer

    def _template(self) -> Template:
        """The loaded model's; after a fork, of this process's own engine."""
        loaded = self._loaded
        if loaded is None or loaded.engine.pid != os.getpid():
            special = self._tokenizer.special
            loaded = self._loaded = Template(self._engine(), Wire(special), special)
        return loaded

    def _engine(self) -> Engine:
        return engine_for(Settings(self._path, self._window, self._parallel, self._threads, self._chat_template))


@dataclass
class _Reading:
    """What has been heard of one reply."""

    began: float = field(default_factory=time.perf_counter)
    first_token_ms: float | None = None
    finish: Finish = "stop"
    usage: Usage | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def event(self, chunk: JSON) -> Event:
        if (used := chunk.get("usage")) is not None:
            self._used(used)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return Event()
        if choices[0].get("finish_reason") in get_args(Finish):
            self.finish = choices[0]["finish_reason"]
        delta = choices[0].get("delta") or {}
        for call in delta.get("tool_calls") or ():
            self._call(call)
        text = delta.get("content") or ""
        if self.first_token_ms is None and (text or delta.get("tool_calls") or delta.get("reasoning_content")):
            self.first_token_ms = self._elapsed()
        return Event(text)

    def last(self) -> Event:
        calls = tuple(ToolCall(call["id"], call["name"], call["arguments"]) for _, call in sorted(self.calls.items()))
        return Event(tool_calls=calls, finish=self.finish, usage=self.usage)

    def _call(self, delta: JSON) -> None:
        """A call comes in pieces: its id and name first, its arguments bit by bit."""
        index, function = delta.get("index", 0), delta.get("function") or {}
        assert isinstance(index, int)
        assert isinstance(function, dict)
        call = self.calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] += str(delta.get("id") or "")
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def _used(self, used: object) -> None:
        assert isinstance(used, dict)
        self.usage = Usage(
            prompt_tokens=used["prompt_tokens"],
            completion_tokens=used["completion_tokens"],
            cached_tokens=(used.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            first_token_ms=self.first_token_ms,
            total_ms=self._elapsed(),
        )

    def _elapsed(self) -> float:
        return (time.perf_counter() - self.began) * 1000
