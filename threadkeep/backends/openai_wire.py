"""Requests and replies as OpenAI-compatible servers speak them; knows nothing of connections.

Servers bend the format: what is read here is what llama-server, vLLM, OpenRouter, Mistral and Gemini were seen to send.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from threadkeep.backends.base import Event, Finish, Usage
from threadkeep.backends.wire_text import BREAK, each_text, without_surrogates
from threadkeep.memory.context import Context
from threadkeep.memory.fitting import KEYS, THOUGHT, Profile, matching_id
from threadkeep.memory.message import JSON, ToolCall

NINE = r"[a-zA-Z0-9]{9}"
"""Ids that every provider takes."""
UNSIGNED: JSON = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""What Gemini takes for a call that another model made (ai.google.dev/gemini-api/docs/thought-signatures)."""
EMPTY = "[empty]"
"""Stands for no words where a provider takes no empty message."""
NO_THOUGHT = " "
"""The least that DeepSeek takes for what it thought, where nothing was kept of it (BerriAI/litellm#28057)."""
_CONTROL = re.compile(
    r"<(?=\|[^|<>\s]{1,40}\|>|｜[^｜<>]{1,40}｜>|/?s>|(?:start|end)_of_turn>|(?:bos|eos|unk|pad)>|</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|TOOL_CONTENT|ARGS|THINK)\])"
)
"""What templates of open models use as control tokens, their first sign: ChatML and Llama 3, DeepSeek, Llama 2, Gemma, Mistral."""
_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_FINISHES: Mapping[str, Finish] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""What servers say of the end; anything else is a `stop`, but for what failed."""
_FAILED = ("error", "abort", "cancelled", "failed")


class BadChunk(ValueError):
    """A piece of a stream that is none of a chat completion's, or the server's word that it failed."""


class Wire:
    """Writes requests for one model at one base.

    Args:
        model: as the server calls it.
        profile: what it accepts.
        options: more for each request's body.
        publisher: whether the provider keeps text apart from its models' control tokens itself; elsewhere it is done here.
    """

    def __init__(self, model: str, profile: Profile, options: JSON, *, publisher: bool) -> None:
        self._model, self._profile, self._options, self._publisher = model, profile, dict(options), publisher
        self._call_keys = profile.keys - KEYS

    def body(self, context: Context) -> dict[str, object]:
        """The request for a context. The context stays as it is."""
        asked = context.request
        made: dict[str, object] = {"model": self._model, "messages": self._messages(context.messages)}
        made |= {key: self._deep(asked[key]) for key in ("tools", "response_format", "max_tokens") if key in asked}
        if (choice := asked.get("tool_choice")) is not None:
            by_name = isinstance(choice, str) and choice not in ("auto", "none", "required")
            made["tool_choice"] = {"type": "function", "function": {"name": choice}} if by_name else choice
        return made | {"stream": True, "stream_options": {"include_usage": True}} | self._options

    def _messages(self, given: Sequence[JSON]) -> list[dict[str, object]]:
        """Each tool call gets an id of its own: the same id in two turns is refused by Claude ("`tool_use` ids must be unique")."""
        used: set[str] = set()
        renamed: dict[object, str] = {}
        made = []
        for place, message in enumerate(given):
            one = {key: self._deep(value) for key, value in message.items() if key != "tool_calls"}
            if isinstance(name := one.get("name"), str):
                one["name"] = _NAME.sub("_", name)[:64]
            calls = message.get("tool_calls")
            if isinstance(calls, Sequence) and calls:
                renamed = {call["id"]: matching_id(f"{call['id']} {place}", NINE) for call in calls if call["id"] in used}
                used.update(str(call["id"]) for call in calls)
                one["tool_calls"] = [self._call(call, renamed) for call in calls]
            elif one.get("content") is None or not (self._profile.empty or _has_content(one["content"])):
                one["content"] = "" if self._profile.empty else EMPTY
            if THOUGHT in self._profile.keys and one.get("role") == "assistant":
                one.setdefault(THOUGHT, NO_THOUGHT)
            if (answered := message.get("tool_call_id")) in renamed:
                one["tool_call_id"] = renamed[answered]
            made.append(one)
        return made

    def _call(self, call: JSON, renamed: Mapping[object, str]) -> dict[str, object]:
        kind = str(call.get("type", "function"))
        made: dict[str, object] = {"id": renamed.get(call["id"], self._deep(call["id"])), "type": kind, kind: self._deep(call.get(kind))}
        made |= {key: call[key] for key in self._call_keys if key in call}
        if "extra_content" in self._call_keys:
            made.setdefault("extra_content", UNSIGNED)
        return made

    def _deep(self, value: object) -> object:
        return each_text(value, self._text)

    def _text(self, text: str) -> str:
        """Without lone surrogates, which UTF-8 cannot carry; and where the server would read control tokens in it, without these."""
        text = without_surrogates(text)
        return text if self._publisher else _CONTROL.sub(_broken, text)


@dataclass
class _Call:
    """A call as it comes, piece by piece."""

    id: str = ""
    name: str = ""
    kind: str = "function"
    arguments: str = ""
    extra: dict[str, object] = field(default_factory=dict)

    def take(self, delta: JSON) -> None:
        self.id = self.id or str(delta.get("id") or "")
        self.kind = str(delta.get("type") or self.kind)
        called = delta.get(self.kind)
        if isinstance(called, Mapping):
            self.name = self.name or str(called.get("name") or "")
            more = called.get("arguments", called.get("input"))
            self.arguments += more if isinstance(more, str) else "" if more is None else json.dumps(more)
        self.extra |= {key: value for key, value in delta.items() if key not in ("index", "id", "type", self.kind) and value is not None}

    @property
    def whole(self) -> bool:
        try:
            return self.kind != "function" or json.loads(self.arguments or "{}") is not None
        except ValueError:
            return False

    def made(self) -> ToolCall:
        return ToolCall(self.id or f"call_{secrets.token_hex(8)}", self.name, self.arguments or "{}", self.kind, self.extra)


@dataclass
class Reading:
    """What has been heard of one reply."""

    began: float = field(default_factory=time.perf_counter)
    first_token_ms: float | None = None
    total_ms: float | None = None
    finish: Finish | None = None
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    _calls: dict[object, _Call] = field(default_factory=dict)
    _usage: JSON | None = None
    _refused: bool = False

    def take(self, chunk: object) -> str:
        """One chunk of the stream; the text that it adds.

        Raises:
            BadChunk: it is none, or says that the server failed.
        """
        if not isinstance(chunk, Mapping):
            raise BadChunk(f"a piece of the stream is no JSON object: {chunk!r:.200}")
        if chunk.get("object") == "error" or chunk.get("error"):
            raise BadChunk(words(chunk))
        if isinstance(used := chunk.get("usage"), Mapping):
            self._usage = used
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, Sequence) and choices else {}
        delta = choice.get("delta") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(delta, Mapping | None):
            raise BadChunk(f"a piece of the stream is no chat completion's: {chunk!r:.200}")
        text = self._delta(delta or {})
        self._end(choice.get("finish_reason"))
        return text

    def _delta(self, delta: JSON) -> str:
        refusal, calls = delta.get("refusal"), delta.get("tool_calls")
        text = _plain(delta.get("content")) + (refusal if isinstance(refusal, str) else "")
        self._refused = self._refused or bool(refusal)
        for call in calls if isinstance(calls, Sequence) else ():
            if isinstance(call, Mapping):
                self._call(call)
        if self.first_token_ms is None and (
            text or calls or delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
        ):
            self.first_token_ms = self._elapsed()
        if text:
            self.texts.append(text)
        if isinstance(thought := delta.get(THOUGHT), str):
            self.thoughts.append(thought)
        return text

    def _call(self, delta: JSON) -> None:
        """By its index; some servers send whole calls without one, or all with the same, each under an id of its own."""
        index = delta.get("index", len(self._calls))
        known = self._calls.get(index)
        if known is not None and delta.get("id") and known.id and delta["id"] != known.id:
            index = next((place for place, call in self._calls.items() if call.id == delta["id"]), f"{index} {delta['id']}")
        self._calls.setdefault(index, _Call()).take(delta)

    def _end(self, reason: object) -> None:
        if reason in _FAILED:
            raise BadChunk(f"the stream ended with {reason!r}")
        if isinstance(reason, str) and reason:
            self.finish = _FINISHES.get(reason, "stop")

    def over(self) -> None:
        """Nothing more comes."""
        self.total_ms = self._elapsed()

    def last(self, estimated: Callable[[str, tuple[ToolCall, ...]], tuple[int, int]], *, thought: bool = False) -> Event:
        """The event that ends it. A call that was cut is not given.

        Args:
            estimated: gives prompt and reply tokens, where the server told none.
            thought: whether what the model thought goes along.
        """
        cut = self.finish in ("length", "content_filter")
        kept = [call for call in self._calls.values() if call.name and (call.whole or not cut)]
        calls = tuple(call.made() for call in kept)
        finish = self.finish or "stop"
        if calls and finish == "stop":
            finish = "tool_calls"
        elif self._refused and finish == "stop":
            finish = "content_filter"
        return Event(tool_calls=calls, finish=finish, usage=self._used(estimated, calls), thought="".join(self.thoughts) if thought else "")

    def _used(self, estimated: Callable[[str, tuple[ToolCall, ...]], tuple[int, int]], calls: tuple[ToolCall, ...]) -> Usage:
        told = self._usage or {}
        prompt, completion = _number(told.get("prompt_tokens")), _number(told.get("completion_tokens"))
        if prompt is None or completion is None:
            guessed = estimated("".join(self.texts), calls)
            prompt, completion = guessed[0] if prompt is None else prompt, guessed[1] if completion is None else completion
        details = told.get("prompt_tokens_details")
        cached = _number(details.get("cached_tokens") if isinstance(details, Mapping) else None)
        if cached is None:
            cached = _number(told.get("prompt_cache_hit_tokens")) or 0  # DeepSeek's name for it
        return Usage(prompt, completion, min(cached, prompt), self.first_token_ms, self.total_ms, _cost(told.get("cost")))

    def _elapsed(self) -> float:
        return (time.perf_counter() - self.began) * 1000


def words(said: object) -> str:
    """A server's own words in an error that it sent."""
    if isinstance(said, Sequence) and not isinstance(said, str) and said:  # Gemini wraps it in a list
        return words(said[0])
    if not isinstance(said, Mapping):
        return f"{said or 'without a word of why'}"[:500]
    inner = said.get("error") or said.get("message") or said.get("detail") or said
    if not isinstance(inner, str) and inner is not said:
        return words(inner)
    metadata = said.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None  # OpenRouter: what the provider behind it said
    return f"{inner}{f' ({raw})' if raw else ''}"[:500]


def _has_content(content: object) -> bool:
    """Whether a message says or shows anything."""
    if isinstance(content, str):
        return bool(content.strip())
    parts = content if isinstance(content, Sequence) else ()
    return any(isinstance(part, Mapping) and (part.get("type") != "text" or str(part.get("text")).strip()) for part in parts)


def _broken(found: re.Match[str]) -> str:
    return found[0] + BREAK


def _plain(content: object) -> str:
    """Text of a delta; Mistral's reasoning models send parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping) and part.get("type") == "text")


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _cost(value: object) -> Decimal | None:
    """US dollars as OpenRouter reports them: its credits are dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    cost = Decimal(str(value))
    return cost if cost.is_finite() and cost >= 0 else None
