"""A model run by llama.cpp inside this process."""

import hashlib
import os
from collections.abc import Generator, Sequence
from functools import cached_property
from pathlib import Path

from threadkeep.backends.base import Backend, Event, Profile
from threadkeep.backends.gguf import Tokenizer, read_tokenizer
from threadkeep.backends.llama_counter import LlamaCounter
from threadkeep.backends.llama_engine import Engine, Settings, engine_for
from threadkeep.backends.llama_grammar import Held, held_to
from threadkeep.backends.llama_reply import Hearing, Splitting
from threadkeep.backends.llama_template import Template
from threadkeep.backends.llama_tools import TAGS, TELLING
from threadkeep.backends.llama_wire import Wire
from threadkeep.memory.context import Context
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON
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
        identity = hashlib.sha256(f"{tokenizer.identity} {template} {TELLING}".encode()).hexdigest()
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
            InvalidSetting: a tool, the choice of one or the response format cannot be honoured; before the model is asked.
        """
        template = self._template()
        held = self._held(context, template)
        hearing = Hearing(None if held is None else Splitting(held, template.profile.tool_ids), cuts="stop" in self._sampling)
        chunks = template.engine.answer(self._body(context, template, held))
        try:
            for chunk in chunks:
                yield Event() if chunk is None else hearing.event(chunk)
                if hearing.circling:
                    break
        finally:
            chunks.close()
        yield from hearing.last()

    def _held(self, context: Context, template: Template) -> Held | None:
        if not (context.tools or context.response_format or context.tool_choice):
            return None
        room = context.max_tokens or self._window // 4
        answered = bool(context.messages) and context.messages[-1]["role"] == "tool"
        return held_to(template.form, context.tools, context.tool_choice, context.response_format, room, answered=answered)

    def _body(self, context: Context, template: Template, held: Held | None) -> dict[str, object]:
        body = template.body(context.messages, context.tools) | self._sampling
        body |= {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, "cache_prompt": True}
        if held is not None:
            body["grammar"] = held.grammar
            body["timings_per_token"] = True  # what a reply took that is left before its end
            if held.speech != "text":
                body.pop("stop", None)  # a stop text ends what is said; within JSON it would only break it
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
            loaded = self._loaded = Template(self._engine(), Wire((*special, *TAGS)), special)
        return loaded

    def _engine(self) -> Engine:
        return engine_for(Settings(self._path, self._window, self._parallel, self._threads, self._chat_template))
