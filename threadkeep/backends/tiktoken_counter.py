"""Counts tokens as OpenAI's chat models do, by the rules that OpenAI has published.

The rules: "How to count tokens with tiktoken" in OpenAI's cookbook (messages, names, functions) and "Images and vision" in its guide.
They were published for gpt-3.5, gpt-4, gpt-4o and gpt-4o-mini, and are taken for the later models too.
"""

import json
import re
from collections.abc import Mapping, Sequence

from threadkeep.backends.vocabulary import encoding_name, vocabulary
from threadkeep.memory.blob import json_length
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.fitting import THOUGHT
from threadkeep.memory.message import JSON, ImagePart, Message, TextPart, ToolCall
from threadkeep.memory.tokens import Count

PER_MESSAGE = 3
PER_NAME = 1
REPLY_PRIMER = 3
FUNCTION = {"o200k_base": 7, "cl100k_base": 10}
"""What opens a function, by encoding. The next five are the same for both."""
PROPERTIES, PROPERTY, ENUM, ENUM_ITEM, FUNCTIONS_END = 3, 3, -3, 3, 12
PER_CALL = 4
"""No rule is published for tool calls in messages; with the call's id counted as well this is above what is billed."""
SENT_KEYS = ("refusal", "audio", "function_call", THOUGHT)
"""Keys beside the usual ones that OpenAI's API reads in a message, or another that is like it."""

IMAGES = (
    ("gpt-4o-mini", 2_833, 2_833 + 8 * 5_667),
    ("gpt-4.1-nano", 3_779, 3_779),
    ("gpt-4.1-mini", 2_489, 2_489),
    ("gpt-5-nano", 3_779, 3_779),
    ("gpt-5-mini", 2_489, 2_489),
    ("o4-mini", 2_642, 2_642),
    ("", 85, 85 + 8 * 170),
)
"""Models by their names' beginning; tokens of a picture at detail `low`, and the most it takes at any other.

A picture's size is not known here. Tiles: at most 8 of them, when it is scaled to 768 x 2048 pixels. Patches (the nano and mini models
of 4.1 and 5, and o4-mini): at most 1,536, times 1.62 (mini), 2.46 (nano) or 1.72 (o4-mini).
"""

PIECE = 32_768
"""Characters that tiktoken gets at once: from about a million spaces in a row on it panics, and long runs grow slower than linearly."""
_BETWEEN_TOKENS = re.compile(r"(?<=[^\W_])(?=[\s,.;:!?)。，、！？…])")
"""Where the text may be cut without changing its tokens: no token of these vocabularies joins a letter or digit to what follows here."""


class TiktokenCounter:
    """Counts for an OpenAI model, or for an encoding by name (`"o200k_base"`, `"cl100k_base"`).

    Exact, by the published rules: messages of one text with role and name, and functions whose properties have a type, a description
    and maybe an enum. Estimated, on the high side: tool calls and their results, pictures, other parts, several parts in one message,
    other tools and nested schemas, response formats, and a text with over 32,768 characters in which no word ends.

    The vocabulary is loaded when first needed, once a process: from tiktoken's cache, from OpenAI, or from the models' registry.

    Raises:
        InvalidSetting: tiktoken knows no chat model of this name.
    """

    additive = True

    def __init__(self, model: str = "gpt-4.1-nano") -> None:
        self._encoding = encoding_name(model)
        family, self._low_image, self._high_image = next(rule for rule in IMAGES if model.startswith(rule[0]))
        self.name = f"tiktoken/{self._encoding}" + (f"+{family}" if family else "")
        self.model = model

    def __repr__(self) -> str:
        return f"TiktokenCounter({self.model!r})"

    def count(self, message: Message) -> Count:
        """What one message adds to a request: its share of the template, role, name, text, calls and parts.

        Raises:
            ModelUnavailable: the vocabulary is not here and could not be fetched.
        """
        content = message.content
        tokens = PER_MESSAGE + 1  # every role is one token
        if isinstance(content, str):
            tokens += self._text(content)
        elif content:
            for part in content:
                if isinstance(part, TextPart):
                    tokens += self._text(part.text)
                elif isinstance(part, ImagePart):
                    tokens += self._low_image if part.detail == "low" else self._high_image
                else:
                    tokens += _estimate(json_length(part.raw))
        if message.name is not None:
            tokens += PER_NAME + self._text(message.name)
        for call in message.tool_calls:
            tokens += self._call(call)
        if message.tool_call_id is not None:
            tokens += self._text(message.tool_call_id)
        for key in SENT_KEYS if message.extra else ():
            if (value := message.extra.get(key)) is not None:
                tokens += self._text(value) if isinstance(value, str) else _json_estimate(value)
        return Count(tokens, _is_exact(message))

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        """What a whole request costs: its messages' counts, what opens the reply, tools and response format.

        Raises:
            InvalidSetting: there are not as many counts as messages.
            ModelUnavailable: the vocabulary is not here and could not be fetched.
        """
        exact = True
        if counts is None:
            made = [self.count(message) for message in messages]
            counts, exact = [count.tokens for count in made], all(count.exact for count in made)
        elif len(counts) != len(messages):
            raise InvalidSetting(f"counts has {len(counts)} numbers for {len(messages)} messages: give one for each, or none")
        tokens = REPLY_PRIMER + sum(counts)
        if tools:
            tool_counts = [self._tool(tool) for tool in tools]
            tokens += FUNCTIONS_END + sum(count.tokens for count in tool_counts)
            exact = exact and all(count.exact for count in tool_counts)
        if response_format is not None:
            tokens += _json_estimate(response_format)
            exact = False
        return Count(tokens, exact)

    def _text(self, text: str) -> int:
        encode = vocabulary(self._encoding).encode_ordinary
        if len(text) <= PIECE:
            return len(encode(text))
        return sum(len(encode(text[start:end])) for start, end, _ in _pieces(text))

    def _call(self, call: ToolCall) -> int:
        return PER_CALL + self._text(call.id) + self._text(call.name) + self._text(call.arguments)

    def _tool(self, tool: JSON) -> Count:
        """One function; any other tool, and what the published rule does not cover of a schema, by the length of its JSON."""
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return Count(FUNCTION[self._encoding] + _json_estimate(tool), exact=False)
        parameters = function.get("parameters") or {}
        properties = parameters.get("properties") or {} if isinstance(parameters, Mapping) else {}
        if not isinstance(properties, Mapping):
            return Count(FUNCTION[self._encoding] + _json_estimate(tool), exact=False)
        tokens = FUNCTION[self._encoding] + self._text(f"{function['name']}:{_described(function)}")
        exact = isinstance(function.get("description"), str)
        if not isinstance(parameters, Mapping):
            tokens, exact = tokens + _json_estimate(parameters), False
        elif beside := {key: value for key, value in parameters.items() if key not in _OBJECT_KEYS}:
            tokens, exact = tokens + _json_estimate(beside), False
        if properties:
            tokens += PROPERTIES
        for name, schema in properties.items():
            count = self._property(name, schema)
            tokens, exact = tokens + count.tokens, exact and count.exact
        return Count(tokens, exact)

    def _property(self, name: str, schema: object) -> Count:
        if not isinstance(schema, Mapping):
            return Count(PROPERTY + self._text(f"{name}:") + _json_estimate(schema), exact=False)
        kind, choices = schema.get("type"), schema.get("enum")
        tokens = PROPERTY + self._text(f"{name}:{kind if isinstance(kind, str) else ''}:{_described(schema)}")
        read = {"description"}
        if isinstance(kind, str):
            read.add("type")
        if isinstance(choices, list | tuple) and all(isinstance(choice, str) for choice in choices):
            read.add("enum")
            tokens += ENUM + sum(ENUM_ITEM + self._text(choice) for choice in choices)
        beside = {key: value for key, value in schema.items() if key not in read}
        if beside:
            tokens += _json_estimate(beside)
        return Count(tokens, isinstance(kind, str) and isinstance(schema.get("description"), str) and not beside)


_OBJECT_KEYS = frozenset({"type", "properties", "required", "additionalProperties"})
"""Keys of a function's parameters that add no tokens beside what the rule counts."""


def _described(schema: JSON) -> str:
    description = schema.get("description")
    return description.removesuffix(".") if isinstance(description, str) else ""


def _json_estimate(value: object) -> int:
    """Tokens of a value as JSON, by its length: English is about 4.5 characters a token, JSON of short keys about 3."""
    return _estimate(len(json.dumps(value)))


def _estimate(length: int) -> int:
    return 1 + length // 3


def _is_exact(message: Message) -> bool:
    """Whether the published rules cover the whole message. Reads no text, but for where a very long one can be cut."""
    content = message.content
    if isinstance(content, str) and len(content) <= PIECE and not (message.extra or message.tool_calls or message.tool_call_id):
        return True  # as most are
    if message.tool_calls or message.tool_call_id is not None or content is None:
        return False
    if message.extra and any(message.extra.get(key) is not None for key in SENT_KEYS):
        return False
    if not isinstance(content, str):
        if len(content) != 1 or not isinstance(content[0], TextPart):
            return False
        content = content[0].text
    return len(content) <= PIECE or all(clean for _, _, clean in _pieces(content))


def _pieces(text: str) -> list[tuple[int, int, bool]]:
    """A long text as `(start, end, clean)`: `clean` unless a token may have been cut, which adds a few."""
    pieces, start = [], 0
    while len(text) - start > PIECE:
        cut = _BETWEEN_TOKENS.search(text, start + PIECE // 2, start + PIECE)
        end = cut.start() if cut else start + PIECE
        pieces.append((start, end, cut is not None))
        start = end
    pieces.append((start, len(text), True))
    return pieces
