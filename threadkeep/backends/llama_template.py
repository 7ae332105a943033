"""What a model's chat template does, found by rendering probes: which roles it shows, and whether its messages add up.

A template's messages add up where each is written by itself, whatever stands before it, and begins with a control token, so that the
tokenizer never joins the text of two. This is tried for each pair of kinds of message, and then by counting awkward texts.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from threadkeep.backends.base import Profile
from threadkeep.backends.llama_engine import Engine
from threadkeep.backends.llama_tools import OURS, CallForm, as_text, read_form
from threadkeep.backends.llama_wire import Wire
from threadkeep.memory.errors import BackendError
from threadkeep.memory.message import JSON, Message

Kind: TypeAlias = Literal["system", "user", "assistant", "calls", "tool"]
PLAIN: tuple[Kind, ...] = ("system", "user", "assistant")
AWKWARD = [
    "",
    " ",
    "\n",
    "\n\nx\n\n",
    "  a \n",
    "123",
    "é🙂",
    "</think>x",
    "<think>\nq\n</think>\n\nz",
    "<tool_response>",
    '{"a": 1}',
    "x" * 50,
    "?!\n",
]
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "qzlookup",
        "description": "qzdescribed",
        "parameters": {"type": "object", "properties": {"qzkey": {"type": "string"}}},
    },
}


HEADS = 256
"""Measured heads kept: one for each set of instructions and tools in use."""


def kind_of(message: Message) -> Kind:
    """What the template may tell apart."""
    if message.role == "assistant":
        return "calls" if message.tool_calls else "assistant"
    return "system" if message.role == "developer" else message.role


def probe(kind: Kind, word: str = "qzword", *, id: str = "call_qz1") -> dict[str, object]:  # noqa: A002 - the field's own name
    """A message of a kind."""
    if kind == "calls":
        call = {"id": id, "type": "function", "function": {"name": "qzlookup", "arguments": f'{{"qzkey": "{word}"}}'}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if kind == "tool":
        return {"role": "tool", "content": word, "tool_call_id": id}
    return {"role": kind, "content": word}


@dataclass(frozen=True)
class Template:
    """One model's template in one engine."""

    engine: Engine
    wire: Wire
    special: tuple[str, ...]
    _starts: dict[Kind, int] = field(default_factory=dict)
    _alone: dict[Kind, str] = field(default_factory=dict)
    _around: dict[Kind, tuple[str, str] | None] = field(default_factory=dict)
    _heads: dict[tuple[str | None, str], int | None] = field(default_factory=dict)

    def tokens(self, messages: Sequence[JSON], tools: Sequence[JSON] | None = None) -> int:
        """What the engine takes for these messages, by its own word.

        Raises:
            BackendError: the template refuses them.
        """
        said = self.engine.ask("/v1/chat/completions/input_tokens", self.body(messages, tools))
        count = said.get("input_tokens")
        if not isinstance(count, int):
            raise BackendError(f"the engine did not count: {said!r:.200}")
        return count

    def rendered(self, messages: Sequence[JSON], tools: Sequence[JSON] | None = None, *, open_reply: bool = True) -> str | None:
        """The prompt as text; None where the template refuses the messages."""
        return self._rendered(self.body(messages, tools), open_reply=open_reply)

    def _rendered(self, body: dict[str, object], *, open_reply: bool = True) -> str | None:
        try:
            return str(self.engine.ask("/apply-template", body | {"add_generation_prompt": open_reply})["prompt"])
        except BackendError:
            return None

    def body(self, messages: Sequence[JSON], tools: Sequence[JSON] | None) -> dict[str, object]:
        """The part of a request that the template reads; with tools as it knows them, or as text where it does not."""
        wired, shown = self.wire.messages(messages), self.wire.tools(tools or ())
        if not shown and not any(message["role"] == "tool" or "tool_calls" in message for message in wired):
            return {"messages": wired}
        if self._own_form is None:
            return {"messages": as_text(wired, shown, alternating=self._alternates, leads=self._leads)}
        return self._with_tools(wired, shown)

    def _with_tools(self, messages: Sequence[JSON], tools: Sequence[object]) -> dict[str, object]:
        """Tools reach the template past the engine, which would else not take a grammar of ours."""
        return {"messages": messages, **({"chat_template_kwargs": {"tools": tools}} if tools else {})}

    @cached_property
    def profile(self) -> Profile:
        """What the template accepts and shows."""
        late = [probe("system", "qza"), probe("user", "qzb"), probe("assistant", "qzc"), probe("system", "qzd"), probe("user", "qze")]
        two = [probe("system", "qza"), probe("system", "qzb"), probe("user", "qzc")]
        named = probe("user", "qzb") | {"name": "qza"}
        keys = {"role", "content", "tool_calls", "tool_call_id"}
        return Profile(
            name="llama.cpp",
            system="anywhere" if self._shows(late, ["qza", "qzb", "qzc", "qzd", "qze"]) and self._shows(two, ["qza", "qzb"]) else "first",
            developer=False,
            alternation=self._alternates,
            tools=True,
            images=False,
            tool_ids=None if self._id == "call_qz1" else "[a-zA-Z0-9]{9}",
            keys=frozenset(keys | ({"name"} if self._shows([named], ["qza"]) else set())),
        )

    @cached_property
    def form(self) -> CallForm:
        """How calls stand in a reply."""
        return self._own_form or OURS

    @cached_property
    def _own_form(self) -> CallForm | None:
        """The template's own way to write calls; None where it shows no tools, or writes them in a way that is not known here."""
        called = probe("calls", "qzarg", id=self._id)
        twice = called | {"tool_calls": [*called["tool_calls"], *called["tool_calls"]]}  # type: ignore[misc]
        asked, answered = [probe("user", "qza")], [probe("user", "qza"), called, probe("tool", "qzresult", id=self._id)]
        opened, written = self._probed(asked), self._probed([*asked, twice], open_reply=False)
        whole, plain = self._probed(answered), self._probed([*asked, probe("assistant")], open_reply=False)
        if opened is None or written is None or whole is None or plain is None:
            return None
        shown = all(word in whole for word in ("qza", "qzlookup", "qzdescribed", "qzarg", "qzresult"))
        if not shown or not written.startswith(opened) or not plain.startswith(opened):
            return None
        closing = plain[len(opened) :].partition("qzword")[2]
        return read_form(written[len(opened) :].removesuffix(closing), "qzlookup", {"qzkey": "qzarg"})

    @cached_property
    def _id(self) -> str:
        """A tool call's id that the template takes; Mistral's insist on nine letters and digits."""
        short = "qzcall001"

        def taken(identity: str) -> bool:
            asked = [probe("user", "qza"), probe("calls", "qzarg", id=identity), probe("tool", "qzresult", id=identity)]
            return self._probed(asked) is not None

        return short if not taken("call_qz1") and taken(short) else "call_qz1"

    def _probed(self, messages: Sequence[JSON], *, open_reply: bool = True) -> str | None:
        return self._rendered(self._with_tools(self.wire.messages(messages), [PROBE_TOOL]), open_reply=open_reply)

    @cached_property
    def _alternates(self) -> bool:
        two = [probe("user", "qza"), probe("user", "qzb")], [probe("assistant", "qza"), probe("user", "qzb")]
        return not all(self._shows(messages, ["qza", "qzb"]) for messages in two)

    @cached_property
    def _leads(self) -> bool:
        """Whether a system message at the head is shown."""
        return self._shows([probe("system", "qza"), probe("user", "qzb")], ["qza", "qzb"])

    def _shows(self, messages: Sequence[JSON], words: Sequence[str]) -> bool:
        text = self.rendered(messages)
        return text is not None and all(word in text for word in words)

    # ---- whether messages add up ----

    @cached_property
    def pairs(self) -> frozenset[tuple[Kind, Kind]]:
        """Which kinds may follow each other in a request whose messages add up; empty when they do not."""
        kinds: tuple[Kind, ...] = (*PLAIN, "calls", "tool")
        found = frozenset(
            (first, second)
            for first in kinds
            for second in kinds
            if self._follows([*self._before(first), probe(first, id=self._id)], second)
        )
        return found if {("user", "assistant"), ("assistant", "user")} <= found and self._adds_up(found) else frozenset()

    def head(self, system: str | None, tools: Sequence[JSON] | None) -> int | None:
        """What opens and closes a request, in tokens: its leading system message, tools, and the template's own.

        None where the messages after it do not add up.
        """
        key = (system, json.dumps(list(tools)) if tools else "")
        if key not in self._heads:
            if len(self._heads) >= HEADS:
                self._heads.clear()
            self._heads[key] = self._measured_head([] if system is None else [probe("system", system)], tools)
        return self._heads[key]

    def _measured_head(self, lead: list[JSON], tools: Sequence[JSON] | None) -> int | None:
        user, assistant = probe("user"), probe("assistant")
        sound = self._follows([*lead, user], "assistant", tools) and self._follows([*lead, user, assistant], "user", tools)
        if lead:
            sound = sound and self._follows(lead, "user", tools)
        sound = sound and self._follows([*lead, user, probe("calls", id=self._id)], "tool", tools)
        return self.tokens([*lead, user], tools) - self.added(user, "user") if sound else None

    def _follows(self, messages: Sequence[JSON], kind: Kind, tools: Sequence[JSON] | None = None) -> bool:
        """Whether one more message writes what it always does, and leaves what stands before it alone."""
        alone = self._alone.get(kind)
        if alone is None:
            alone = self._alone[kind] = self._fragment(self._before(kind), kind, None) or ""
        return bool(alone) and self._fragment(messages, kind, tools) == alone

    def _fragment(self, messages: Sequence[JSON], kind: Kind, tools: Sequence[JSON] | None) -> str | None:
        """What one more message writes at the end, where that begins with a control token."""
        more = [*messages, probe(kind, id=self._id)]
        shorter = self.rendered(messages, tools, open_reply=False)
        longer = self.rendered(more, tools, open_reply=False)
        opened = self.rendered(more, tools)
        if shorter is None or longer is None or opened is None or not longer.startswith(shorter) or not opened.startswith(longer):
            return None
        written, opening = longer[len(shorter) :], opened[len(longer) :]
        return written if written.startswith(self.special) and (not opening or opening.startswith(self.special)) else None

    def _adds_up(self, pairs: frozenset[tuple[Kind, Kind]]) -> bool:
        """Whether awkward texts, one after another, cost what each costs alone."""
        late_system = {("user", "system"), ("system", "assistant")} <= pairs
        roles: tuple[Kind, ...] = ("user", "system", "assistant") if late_system else ("user", "assistant")
        texts = AWKWARD[: len(AWKWARD) // len(roles) * len(roles)]
        messages = [(role, probe(role, text)) for role, text in zip(itertools.cycle(roles), texts, strict=False)]
        start = [probe("user"), probe("assistant")]
        try:
            together = self.tokens([*start, *(message for _, message in messages)])
            return together == self.tokens(start) + sum(self._added(message, role) for role, message in messages)
        except BackendError:
            return False

    def added(self, message: JSON, kind: Kind) -> int:
        """What one message adds to a request, in tokens: all of it where messages add up, about that where they do not.

        Raises:
            BackendError: the template refuses it.
        """
        written = self.wire.messages([message])[0]
        around = self._written_around(kind) if self.pairs and written.keys() == {"role", "content"} else None
        if around is None:
            return self._added(message, kind)
        return self._tokenized(around[0] + str(written["content"]) + around[1])

    def _written_around(self, kind: Kind) -> tuple[str, str] | None:
        """What stands before and after a message's text, where the template writes the text as it is; None elsewhere.

        To tokenize that asks a quarter of the time of having the whole written by the template.
        """
        if kind not in self._around:
            before, word, after = (self._fragment(self._before(kind), kind, None) or "").partition("qzword")
            sound = bool(word) and kind in PLAIN and bool(self._before(kind))
            literal = sound and all(self._counts_alike(kind, before, text, after) for text in AWKWARD)
            self._around[kind] = (before, after) if literal else None
        return self._around[kind]

    def _counts_alike(self, kind: Kind, before: str, text: str, after: str) -> bool:
        return self._tokenized(before + self.wire.neutral(text) + after) == self._added(probe(kind, text), kind)

    def _added(self, message: JSON, kind: Kind) -> int:
        start = self._before(kind)
        if not start:  # a system message that must come first, with a user's after it
            return self.tokens([message, probe("user")]) - self.tokens([probe("user")])
        if kind not in self._starts:
            self._starts[kind] = self.tokens(start)
        return self.tokens([*start, message]) - self._starts[kind]

    def words(self, text: str) -> int:
        """Tokens of a text alone, outside of any template."""
        return self._tokenized(self.wire.neutral(text))

    def _tokenized(self, text: str) -> int:
        tokens = self.engine.ask("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return len(tokens) if isinstance(tokens, list) else 0

    def _before(self, kind: Kind) -> list[JSON]:
        """A beginning after which a message of this kind may stand."""
        if kind == "system":
            return [probe("user"), probe("assistant")] if self.profile.system == "anywhere" else []
        if kind == "tool":
            return [probe("user"), probe("calls", id=self._id)]
        return [probe("user"), probe("assistant")] if kind == "user" else [probe("user")]
