"""What is heard of one reply: its text as it comes, its calls when they are whole, and what it took."""

import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import get_args

from threadkeep.backends.base import Event, Finish, Usage
from threadkeep.backends.llama_grammar import Held
from threadkeep.memory.errors import BackendError
from threadkeep.memory.fitting import matching_id
from threadkeep.memory.message import JSON, ToolCall


class Splitting:
    """Parts the text of a reply from its calls. What may yet become a call is kept back."""

    def __init__(self, held: Held, tool_ids: str | None) -> None:
        self._held = held
        self._tool_ids = tool_ids
        self._kept = ""
        self._began = False
        """Whether something was said that is not the beginning of a call."""
        self._calling = held.speech == "none"
        self.circling = False
        """Whether the model has made a call a second time: a small one may go on so until it is cut off."""

    def text(self, piece: str) -> str:
        """What of the reply is surely text, now that this piece came."""
        if not self._held.names:
            return piece
        self._kept += piece
        if self._calling and "}" in piece:
            calls = self._calls()
            self.circling = len(set(calls)) < len(calls)
        if self._held.speech == "json":
            return self._json()
        if not self._calling:
            self._calling = not self._began and self._is_bare()
        if self._calling or (not self._began and self._may_be_bare()):
            return ""
        mark = self._held.form.mark
        before, found, _ = self._kept.partition(mark) if mark else (self._kept, "", "")
        self._calling = bool(found)
        said = (before if found else before[: len(before) - _overlap(before, mark)]).rstrip()
        self._kept = self._kept[len(before if found else said) :]
        self._began = self._began or bool(said.strip())
        return said

    def _json(self) -> str:
        """What is surely the answer: a reply in JSON is that, or calls, from its first character on."""
        mark = self._held.form.mark or self._held.form.begin + "{" + f'"{self._held.form.name}": "'
        self._calling = self._calling or (not self._began and self._kept.startswith(mark))
        if self._calling or (not self._began and mark.startswith(self._kept)):
            return ""
        self._began, said, self._kept = True, self._kept, ""
        return said

    def rest(self, finish: Finish, *, cut: bool) -> tuple[str, tuple[ToolCall, ...], Finish]:
        """What is left when the reply is over: text, calls, and why it ended.

        Calls that are whole count, though the one after them was cut off; the same call twice in a reply is a model going in circles,
        and counts once.

        Args:
            finish: why the engine ended it.
            cut: whether a stop text may have ended it.

        Raises:
            BackendError: the engine did not hold the model to the grammar.
        """
        if not self._calling:
            return ("" if finish == "length" else self._kept), (), finish
        calls = self._calls()
        if calls and all(name in self._held.names for name, _ in calls):
            return "", tuple(ToolCall(self._id(), *call) for call in dict.fromkeys(calls)), "tool_calls"
        if finish != "length" and not cut:
            raise BackendError(f"the engine let the model leave the grammar of tool calls: {self._kept:.200}")
        return "", (), "length"

    def _calls(self) -> list[tuple[str, str]]:
        """The whole calls, each a name and its arguments as they were written."""
        form, decoder = self._held.form, json.JSONDecoder()
        head, middle = re.compile(rf'\{{\s*"{form.name}"\s*:\s*'), re.compile(rf'\s*,\s*"{form.arguments}"\s*:\s*')
        made: list[tuple[str, str]] = []
        at = 0
        while (opening := head.search(self._kept, at)) is not None:
            try:
                name, at = decoder.raw_decode(self._kept, opening.end())
                then = middle.match(self._kept, at)
                if then is None:
                    return made
                _, at = decoder.raw_decode(self._kept, then.end())
            except ValueError:
                return made
            if not self._kept[at:].lstrip().startswith("}"):
                return made
            made.append((str(name), self._kept[then.end() : at]))
        return made

    def _id(self) -> str:
        identity = uuid.uuid4().hex
        return f"call_{identity[:24]}" if self._tool_ids is None else matching_id(identity, self._tool_ids)

    def _bare_heads(self) -> tuple[str, ...]:
        """How calls without marks begin, white space aside."""
        if not self._held.bare:
            return ()
        name = f'{{"{self._held.form.name}":'
        return tuple(fence + brace + name for fence in ("", "```", "```json") for brace in ("", "{"))

    def _is_bare(self) -> bool:
        return "".join(self._kept.split()).startswith(self._bare_heads())

    def _may_be_bare(self) -> bool:
        squeezed = "".join(self._kept.split())
        return any(head.startswith(squeezed) for head in self._bare_heads())


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text may be the beginning of the mark."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)


@dataclass
class Hearing:
    """The chunks of one reply, one after another."""

    splitting: Splitting | None = None
    """None where calls are not asked for."""
    cuts: bool = False
    """Whether texts may end it that know nothing of calls."""
    began: float = field(default_factory=time.perf_counter)
    first_token_ms: float | None = None
    finish: Finish = "stop"
    usage: Usage | None = None

    @property
    def circling(self) -> bool:
        """Whether there is no use in hearing on; what was taken until now is the usage."""
        return self.splitting is not None and self.splitting.circling

    def event(self, chunk: JSON) -> Event:
        if isinstance(used := chunk.get("usage"), dict):
            self._used(used["prompt_tokens"], (used.get("prompt_tokens_details") or {}).get("cached_tokens", 0), used["completion_tokens"])
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return Event()
        if choices[0].get("finish_reason") in get_args(Finish):
            self.finish = choices[0]["finish_reason"]
        delta = choices[0].get("delta") or {}
        text = delta.get("content") or ""
        if self.first_token_ms is None and (text or delta.get("reasoning_content")):
            self.first_token_ms = self._elapsed()
        event = Event(text if self.splitting is None else self.splitting.text(text))
        if self.circling and isinstance(timed := chunk.get("timings"), dict):
            self._used(timed["cache_n"] + timed["prompt_n"], timed["cache_n"], timed["predicted_n"])
        return event

    def last(self) -> tuple[Event, ...]:
        """What remains to be said, and the end.

        Raises:
            BackendError: the engine did not hold the model to the grammar.
        """
        if self.splitting is None:
            return (Event(finish=self.finish, usage=self.usage),)
        text, calls, finish = self.splitting.rest(self.finish, cut=self.cuts)
        end = Event(tool_calls=calls, finish=finish, usage=self.usage)
        return (Event(text), end) if text else (end,)

    def _used(self, prompt: int, cached: int, completion: int) -> None:
        self.usage = Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
            first_token_ms=self.first_token_ms,
            total_ms=self._elapsed(),
        )

    def _elapsed(self) -> float:
        return (time.perf_counter() - self.began) * 1000
