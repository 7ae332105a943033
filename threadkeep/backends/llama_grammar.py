"""The grammar that a reply is held to: calls of tools, JSON, or free text that is not the beginning of a call.

Grammars are llguidance's: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from threadkeep.backends.llama_schema import compiled, refusal
from threadkeep.backends.llama_tools import CallForm
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON

MOST_CALLS = 8
"""Calls in one reply."""
Speech: TypeAlias = Literal["text", "json", "none"]
"""What a reply may be where it calls no tool."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a reply is held to."""

    grammar: str
    speech: Speech
    form: CallForm
    names: tuple[str, ...]
    """Tools that it may call; empty where it may call none."""
    bare: bool
    """Whether a reply that begins as a call without its marks is one."""


def held_to(
    form: CallForm,
    tools: Sequence[JSON],
    choice: str | JSON | None,
    response_format: JSON | None,
    room: int,
    *,
    answered: bool = False,
) -> Held | None:
    """What a reply of `room` tokens is held to; None where anything may be said.

    `answered`: the result of a call was said last. Then a call needs its marks, where the form has any: a small model that leaves them
    out would call for ever, and never speak.

    Raises:
        InvalidSetting: a tool, the choice of one, or the response format is none that can be honoured; with the reason.
    """
    functions = dict(_function(tool, f"tools[{place}]") for place, tool in enumerate(tools))
    may_speak, names = _chosen(choice, tuple(functions))
    answer = _answer(response_format, room)
    if not tools and answer is None:
        return None
    arguments = tuple((name, compiled(functions[name], room, f"the parameters of the tool {name!r}")) for name in names)
    speech: Speech = "none" if not may_speak else "text" if answer is None else "json"
    once = isinstance(choice, Mapping)
    bare = bool(names) and speech == "text" and not (answered and form.mark)
    return Held(_grammar(form, arguments, speech, answer, bare, 1 if once else MOST_CALLS), speech, form, names, bare)


def _function(tool: JSON, place: str) -> tuple[str, JSON]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidSetting(f"{place} is a function with a name, for a model on this machine, not {tool!r:.80}")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise InvalidSetting(f"{place}: the parameters are a JSON schema, a dict, not {parameters!r:.40}")
    if parameters.get("type", "object") != "object":
        raise InvalidSetting(f"{place}: the parameters are of type 'object', not {parameters['type']!r}")
    return str(function["name"]), {**parameters, "type": "object"}


def _chosen(choice: str | JSON | None, names: tuple[str, ...]) -> tuple[bool, tuple[str, ...]]:
    """Whether the reply may be other than calls, and which tools it may call."""
    if choice in (None, "auto"):
        return True, names
    if choice == "none":
        return True, ()
    if choice == "required" and names:
        return False, names
    named = choice.get("function") if isinstance(choice, Mapping) else None
    name = named.get("name") if isinstance(named, Mapping) else None
    if name in names:
        return False, (str(name),)
    known = f"a tool by {{'type': 'function', 'function': {{'name': …}}}} ({', '.join(names)})" if names else "no tool: none are given"
    raise InvalidSetting(f"tool_choice={choice!r:.120}: 'auto', 'none', 'required', or {known}")


def _answer(response_format: JSON | None, room: int) -> str | None:
    """The schema of an answer; None for text."""
    if response_format is None or response_format.get("type") == "text":
        return None
    if response_format.get("type") == "json_object":
        return compiled({"type": "object"}, room, "response_format")
    described = response_format.get("json_schema")
    if response_format.get("type") != "json_schema" or not isinstance(described, Mapping) or "schema" not in described:
        raise InvalidSetting(
            "response_format is {'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', 'json_schema': {'schema': …}}, "
            f"not {response_format!r:.120}"
        )
    return compiled(described["schema"], room, "response_format's schema")


@lru_cache(maxsize=256)
def _grammar(form: CallForm, tools: tuple[tuple[str, str], ...], speech: Speech, answer: str | None, bare: bool, most: int) -> str:
    start, lines = [], ["%llguidance {}"]
    if speech == "text":
        start.append("TEXT")
        lines.append("TEXT: /(?s:.+)/" + _no_call(form, bare=bare))
    elif speech == "json":
        start.append("answer")
        lines.append(f"answer: %json {answer}")
    if tools:
        before = "/(?s:.*)/" + _no_call(form, bare=bare) if speech == "text" and form.mark else '""'
        more = f"{{0,{most - 1}}}"
        start.append("OPEN call " + (f"(BETWEEN call){more}" if most > 1 else "") + (" END" if form.end else ""))
        lines += [f"BEFORE: {before}", f"OPEN: BEFORE {_quoted(form.begin + '{')}", f"BETWEEN: {_quoted(form.between + '{')}"]
        lines += [f"END: {_quoted(form.end)}"] if form.end else []
        lines.append("call: " + " | ".join(f"call_{at}" for at in range(len(tools))))
        name, arguments = json.dumps(form.name), json.dumps(form.arguments)
        for at, (tool, schema) in enumerate(tools):
            lines += [
                f"call_{at}: {_quoted(f'{name}: {json.dumps(tool)}, {arguments}: ')} arguments_{at} {_quoted('}')}",
                f"arguments_{at}: %json {schema}",
            ]
        if bare:
            start.append(f"FIRST bare (NEXT bare){more} LAST")
            lines += [
                f"FIRST: /{_fence}\\{{\\s{{0,8}}{name}\\s{{0,8}}:\\s{{0,8}}/",
                f"NEXT: /\\s{{0,8}}\\}}[\\s,]{{0,4}}\\{{\\s{{0,8}}{name}\\s{{0,8}}:\\s{{0,8}}/",
            ]
            lines += [r"LAST: /\s{0,8}\}\}?(\s{0,4}```)?/", f"THEN: /\\s{{0,8}},\\s{{0,8}}{arguments}\\s{{0,8}}:\\s{{0,8}}/"]
            lines.append("bare: " + " | ".join(f"{_quoted(json.dumps(tool))} THEN arguments_{at}" for at, (tool, _) in enumerate(tools)))
    made = "\n".join([*lines[:1], "start: " + " | ".join(start), *lines[1:]])
    if (problem := refusal(made)) is not None:
        raise InvalidSetting(f"these tools and this response format make no grammar: {problem}")
    return made


_fence = r"\s{0,8}(```(json)?\s{0,8})?\{?"
"""Before a call that a model writes without its marks, as those trained on code do."""


def _no_call(form: CallForm, *, bare: bool) -> str:
    """What free text leaves out: the marks of calls and results, and a beginning as a call without marks.

    Where a call needs its marks it begins with no fence and no bracket: a model bent on calling would else spell the call otherwise.
    """
    marks = "|".join(re.escape(mark).replace("/", r"\/") for mark in dict.fromkeys((form.mark, "<tool_response>")) if mark)
    begins = r"(```(json)?\s*)?\{\{?\s*" + json.dumps(form.name) + r"\s*:" if bare else r"(```|[\{\[\(<>])"
    return rf" & ~/(?s:.*({marks}).*)/ & ~/(?s:\s*{begins}.*)/"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
