"""Messages and tools as the llama.cpp engine takes them: control tokens neutralised, nothing that it would choke on.

Counting and sending use this alike, so that what is counted is what is sent. The context's own messages stay as they are.
"""

import json
import re
from collections.abc import Mapping, Sequence

from threadkeep.backends.wire_text import BREAK, each_text, without_surrogates
from threadkeep.memory.message import JSON


class Wire:
    """Writes requests for a model with these special tokens."""

    def __init__(self, special: Sequence[str]) -> None:
        longest_first = sorted((token for token in special if BREAK not in token), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def neutral(self, text: str) -> str:
        """The text, in which nothing is a special token; a lone surrogate, which UTF-8 cannot carry, becomes the replacement sign."""
        text = without_surrogates(text)
        while self._special.search(text):
            text = self._special.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)
        return text

    def messages(self, given: Sequence[JSON]) -> list[dict[str, object]]:
        """Messages in OpenAI's format, as the engine takes them."""
        return [self._message(message) for message in given]

    def tools(self, given: Sequence[JSON]) -> list[object]:
        """Tools in OpenAI's format, as the engine takes them."""
        return [self._deep(tool) for tool in given]

    def _message(self, given: JSON) -> dict[str, object]:
        role = given.get("role")
        made: dict[str, object] = {"role": "system" if role == "developer" else role, "content": self._content(given.get("content"))}
        calls = given.get("tool_calls")
        if isinstance(calls, Sequence) and calls:
            made["tool_calls"] = [self._call(call) for call in calls]
        for key in ("tool_call_id", "name"):
            if given.get(key) is not None:
                made[key] = self._deep(given[key])
        return made

    def _content(self, content: object) -> str:
        """Text; a part of another kind, which no model without a projector can take, leaves its kind's name."""
        if isinstance(content, str):
            return self.neutral(content)
        parts = content if isinstance(content, Sequence) else ()
        return self.neutral("\n\n".join(_words(part) for part in parts if isinstance(part, Mapping)))

    def _call(self, call: object) -> dict[str, object]:
        left = call if isinstance(call, Mapping) else {}
        kind = str(left.get("type", "function"))
        called = left.get(kind)
        called = called if isinstance(called, Mapping) else {}
        arguments = called.get("arguments", called.get("input", ""))
        return {
            "id": self._deep(left.get("id")),
            "type": "function",
            "function": {"name": self._deep(called.get("name")), "arguments": self._arguments(arguments)},
        }

    def _arguments(self, arguments: object) -> str:
        """As JSON, which the engine insists on: what a model wrote that is none goes as a JSON string."""
        read = arguments
        if isinstance(arguments, str):
            try:
                read = json.loads(arguments)
            except (ValueError, RecursionError):
                read = arguments
            text = self.neutral(arguments)
            if read is not arguments and text == arguments and self._deep(read) == read:
                return arguments
        return json.dumps(self._deep(read), ensure_ascii=False)

    def _deep(self, value: object) -> object:
        return each_text(value, self.neutral)


def _words(part: JSON) -> str:
    kind = str(part.get("type"))
    text = part.get("text", part.get(kind))
    return text if isinstance(text, str) and kind in ("text", "refusal", "input_text", "output_text") else f"[{kind.removesuffix('_url')}]"
