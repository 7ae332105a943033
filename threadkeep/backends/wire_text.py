"""Text on its way to a model: what every adapter does to it."""

import re
from collections.abc import Callable, Mapping

BREAK = "\u200b"
"""A zero-width space: text that it parts looks the same, and is no control token any more."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """Lone surrogates, which UTF-8 cannot carry, as replacement signs."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def each_text(value: object, change: Callable[[str], str]) -> object:
    """A JSON value with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): each_text(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [each_text(inner, change) for inner in value]
    return value
