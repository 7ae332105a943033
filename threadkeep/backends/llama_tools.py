"""How a model writes the calls of tools, and what it is told of them: as its template does, or as we do where the template cannot.

A template's own way is found by having it write two calls of a probe. Where it shows no tools, or writes calls otherwise than as JSON
objects with a name and arguments, the tools stand in the system message, calls in the assistant's text, results in the user's.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from threadkeep.memory.message import JSON

TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>")
"""Marks of calls and results: no text of a message, a tool or a result may hold one."""
TELLING = 1
"""Changes whenever a template's text of tools, calls or results would: counts of before are not those of after."""
SECTION = """You may call functions. Each of these lines describes one: its name, what it does, and the JSON schema of its arguments.
<tools>
{tools}
</tools>
To call a function, write the call and nothing else, like this:
<tool_call>
{{"name": "the function's name", "arguments": {{"an argument's name": "its value"}}}}
</tool_call>
What the function gives comes back between <tool_response> and </tool_response>. Call one only where the answer needs it."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """What stands around the calls in an assistant's reply; each is a JSON object with the two keys, in this order."""

    begin: str
    between: str
    end: str
    name: str = "name"
    arguments: str = "arguments"

    @property
    def mark(self) -> str:
        """What a reply holds only where calls begin; empty where they begin with the JSON itself."""
        return self.begin.split("\n")[0].strip(" {[") if self.begin.strip(" {[\n") else ""


OURS = CallForm("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>")


def read_form(written: str, name: str, arguments: JSON) -> CallForm | None:
    """The form in which a template wrote two equal calls; None where they are no such objects."""
    spots = [match.start() for match in re.finditer(r"\{", written)]
    found: list[tuple[int, int, list[str]]] = []
    for spot in spots:
        if found and spot < found[-1][1]:
            continue
        try:
            value, size = json.JSONDecoder().raw_decode(written[spot:])
        except ValueError:
            continue
        if isinstance(value, dict) and list(value.values()) == [name, arguments]:
            found.append((spot, spot + size, list(value)))
    if len(found) != 2:
        return None
    (first, first_end, keys), (second, second_end, _) = found
    return CallForm(written[:first], written[first_end:second], written[second_end:], *keys)


def as_text(messages: Sequence[JSON], tools: Sequence[object], *, alternating: bool, leads: bool) -> list[dict[str, object]]:
    """Messages, neutral already, as a template takes them that knows nothing of tools.

    Args:
        messages: as the wire made them.
        tools: neutral too.
        alternating: whether messages of one role, one after another, must become one.
        leads: whether the template shows a system message; otherwise the tools stand in the first message.
    """
    told = [_told(message) for message in messages]
    if tools:
        section = SECTION.format(tools="\n".join(json.dumps(_function(tool), ensure_ascii=False) for tool in tools))
        if not told or (leads and told[0]["role"] != "system"):
            told.insert(0, {"role": "system" if leads else "user", "content": section})
        else:
            before, after = (told[0]["content"], section) if leads else (section, told[0]["content"])
            told[0] = told[0] | {"content": f"{before}\n\n{after}" if before else after}
    return _merged(told) if alternating else told


def _function(tool: object) -> object:
    return tool.get(str(tool.get("type")), tool) if isinstance(tool, Mapping) else tool


def _told(message: JSON) -> dict[str, object]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return dict(message)
    written = [
        f'{{"name": {json.dumps(call["function"]["name"], ensure_ascii=False)}, "arguments": {call["function"]["arguments"]}}}'
        for call in calls
    ]
    text = OURS.begin + OURS.between.join(written) + OURS.end
    return {"role": "assistant", "content": f"{message['content']}\n{text}" if message["content"] else text}


def _merged(messages: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    made: list[dict[str, object]] = []
    for message in messages:
        if made and made[-1]["role"] == message["role"] and message["role"] != "system":
            made[-1] = made[-1] | {"content": f"{made[-1]['content']}\n\n{message['content']}"}
        else:
            made.append(message)
    return made
