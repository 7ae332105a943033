"""The short forms of a tool's result: its head and tail, with a note of what was cut; or a note alone.

Pure functions of the message and a number of characters, so a clipped result comes out the same in any process.
"""

from dataclasses import dataclass, replace

from threadkeep.memory.history import Entry
from threadkeep.memory.message import Message, TextPart

CLIP_TOKENS = 512
"""A session's clip size: what a tool's result may cost, in tokens, once its turn is no longer live."""
CLEARED = -1
"""In place of a number of kept characters: nothing is kept, pictures neither; a note stands for all of it."""


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
    """The message with `keep` characters of its text, or `CLEARED`; several text parts share them by their length."""
    if keep == CLEARED:
        return replace(message, content=_note(message))
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


def _note(message: Message) -> str:
    others = sum(not isinstance(part, TextPart) for part in message.parts)
    return f"[result cleared: {text_length(message)} characters{f', {others} other parts' if others else ''}]"


def cleared_tokens(entry: Entry) -> int:
    """About what an entry costs once it is cleared, rather too much: the note, what a template puts around it, the call's id and name.

    Of a name or an id, of random letters too, a token is more than a character (o200k: 4 characters in 3).
    """
    named = sum(len(str(entry.raw.get(key) or "")) for key in ("tool_call_id", "name"))
    return 17 + named * 3 // 4


@dataclass(frozen=True, slots=True)
class Clearing:
    """Which old tool results stand as a note."""

    before: int
    """Those before this seq"""
    at_least: int
    """that cost so many tokens, and more than the note."""

    def covers(self, entry: Entry) -> bool:
        """Whether it is such a result. The live turn's and pinned ones are the caller's to spare."""
        return (
            entry.seq < self.before
            and entry.role == "tool"
            and entry.shown_tokens >= self.at_least
            and entry.shown_tokens > cleared_tokens(entry)
        )
