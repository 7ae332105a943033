"""How capable a model a request asks for, read off its newest user message by a few stated rules.

| tier | asked for by |
|---|---|
| 3 | words that ask for reasoning ("step by step", "prove", "think carefully" …), or more than 6,000 characters |
| 2 | code, words of mathematics, a picture or another attachment, tools, a `response_format`, or more than 600 characters |
| 1 | everything else |

The words are English; a policy of one's own knows more.
"""

import re
from collections.abc import Iterator, Mapping

from threadkeep.memory.message import JSON

LONG, VERY_LONG = 600, 6000
"""Characters of a message."""
_REASONING = re.compile(
    r"\b(step[- ]by[- ]step|think (carefully|hard|it through)|reason(ing)? (through|about)|prove|proof|derive|derivation|theorem|"
    r"trade-?offs?|root cause|in depth)\b",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\b(calculate|compute|equations?|integrals?|derivatives?|probabilit(y|ies)|percent(age)?|matri(x|ces)|algebra|geometry|"
    r"statistics|square root|how (many|much) .{1,200} (altogether|in total|left))\b|\d\s+[-+*/=]\s+\d|\d\s*[×÷^]\s*\d",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|^\s*(def|class|import|from|const|let|var|function|public|#include)\b.*[;:({)]\s*$|(?-i:SELECT\b.+\bFROM\b)|"
    r"\b(python|javascript|typescript|sql|regex|stack trace|traceback|refactor|unit tests?)\b|[{};]\s*\n",
    re.IGNORECASE | re.MULTILINE,
)


def tier_of(request: JSON) -> tuple[int, str]:
    """The tier that a request asks for, from 1 to 3, and by which rules."""
    text, attached = _said(request)
    high = [name for name, holds in (("reasoning", _REASONING.search(text)), ("very long", len(text) > VERY_LONG)) if holds]
    if high:
        return 3, ", ".join(high)
    signs = {
        "code": _CODE.search(text),
        "mathematics": _MATHS.search(text),
        "attachment": attached,
        "tools": request.get("tools"),
        "structured output": request.get("response_format"),
        "long": len(text) > LONG,
    }
    middle = [name for name, holds in signs.items() if holds]
    return (2, ", ".join(middle)) if middle else (1, "short question")


def _said(request: JSON) -> tuple[str, bool]:
    """The newest user message's text, and whether something is attached to it."""
    messages = request.get("messages")
    users = [one for one in messages if isinstance(one, Mapping) and one.get("role") == "user"] if isinstance(messages, list) else []
    content = users[-1].get("content") if users else ""
    if isinstance(content, str):
        return content, False
    parts = list(_parts(content))
    return "\n\n".join(str(part.get("text", "")) for part in parts), any(part.get("type") != "text" for part in parts)


def _parts(content: object) -> Iterator[Mapping[str, object]]:
    if isinstance(content, list | tuple):
        yield from (part for part in content if isinstance(part, Mapping))
