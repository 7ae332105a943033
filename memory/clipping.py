"""The short form of a tool's result: its head and tail, with a note of what was cut.

A pure function of the text and a number of characters, so a clipped result comes out the same in any process.
"""

from dataclasses import replace

from threadkeep.memory.message import Message, TextPart

CLIP_TOKENS = 512
"""A session's clip size: what a tool's result may cost, in tokens, once its turn is no longer live."""


def clip_text(text: str, keep: int) -> str:
    """Head and tail of a text, `keep` characters of it in all; the text itself where cutting would not make it shorter."""
    head = (max(0, keep) + 1) // 2
    tail = max(0, keep) - head
    cut = len(text) - head - tail
    note = f"[{cut} characters cut]"
    if cut <= len(note) + 2:
        return text
    return "\n".join(piece for piece in (text[:head], note, text[len(text) - tail :]) if piece)


def clip(message: Message, keep: int) -> Message:
    """The message with `keep` characters of its text; several text parts share them by their length."""
    if isinstance(message.content, str):
        return replace(message, content=clip_text(message.content, keep))
    total = sum(len(part.text) for part in message.parts if isinstance(part, TextPart))
    return replace(
        message,
        content=tuple(
            replace(part, text=clip_text(part.text, keep * len(part.text) // total)) if isinstance(part, TextPart) and part.text else part
            for part in message.parts
        ),
    )


def text_length(message: Message) -> int:
    """Characters that clipping could take away."""
    return sum(len(part.text) for part in message.parts if isinstance(part, TextPart))


def kept_characters(message: Message, tokens: int, clip_tokens: int) -> int:
    """How many characters of a message of so many tokens make about `clip_tokens`."""
    return text_length(message) * clip_tokens // max(1, tokens)
