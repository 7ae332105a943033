"""Messages in order made a valid request: every call has its results, roles stand where the profile lets them.

Works on what is shown only; the log is never changed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from threadkeep.memory.fitting import Profile
from threadkeep.memory.message import Message, Part, TextPart
from threadkeep.memory.pieces import Piece

INTERRUPTED = "[interrupted: no result was recorded]"
"""Stands in for the result of a call that never came back."""
INSTRUCTING = ("system", "developer")
OPENING = "[earlier messages are left out]"
"""Opens a conversation whose first kept message is the assistant's, where the user must speak first."""
UNANSWERED = "[no reply was recorded]"
"""Stands between a tool's result and the user's next message, where the assistant must speak in between."""


def missing_results(message: Message, results: Sequence[Message]) -> list[Message]:
    """A result for each call of an assistant's message that has none among `results`."""
    answered = Counter(result.tool_call_id for result in results)
    made = []
    for call in message.tool_calls:
        if answered[call.id]:
            answered[call.id] -= 1
        else:
            made.append(Message("tool", INTERRUPTED, tool_call_id=call.id))
    return made


def in_shape(pieces: Sequence[Piece], profile: Profile) -> list[Piece]:
    """The same conversation with its roles where the profile lets them stand."""
    if profile.fits_plain:
        return list(pieces)
    shaped = list(_system_first(pieces)) if profile.system == "first" else list(pieces)
    return list(_alternating(shaped)) if profile.alternation else shaped


def _system_first(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """One system message, at the head, of all that lead; a later one is told by the user, marked as what it is."""
    leading = 0
    while leading < len(pieces) and pieces[leading].role in INSTRUCTING:
        leading += 1
    if leading == 1:
        yield pieces[0]
    elif leading:
        yield Piece(_joined([piece.message for piece in pieces[:leading]]), None)
    for piece in pieces[leading:]:
        if piece.role in INSTRUCTING:
            yield Piece(Message("user", f"[system]\n{piece.message.text}"), None)
        else:
            yield piece


def _alternating(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Neighbours of one role become one message; the user speaks first, and behind a tool's result only after the assistant."""
    spoken, before = False, ""
    for role, run in groupby(pieces, key=lambda piece: piece.role):
        held = list(run)
        if role == "user" and before == "tool":
            yield Piece(Message("assistant", UNANSWERED), None)
        before = role
        if not spoken and role not in INSTRUCTING:
            spoken = True
            if role != "user":
                yield Piece(Message("user", OPENING), None)
        if len(held) == 1 or role not in ("user", "assistant"):
            yield from held
        else:
            yield Piece(_joined([piece.message for piece in held]), None)


def _joined(messages: Sequence[Message]) -> Message:
    """Several messages of one role as one, a blank line between."""
    calls = tuple(call for message in messages for call in message.tool_calls)
    if all(isinstance(message.content, str | None) for message in messages):
        texts = [message.content for message in messages if isinstance(message.content, str)]
        return replace(messages[0], content="\n\n".join(texts) if texts else None, tool_calls=calls)
    parts: list[Part] = []
    for message in messages:
        if parts and message.parts:
            parts.append(TextPart("\n\n"))
        parts.extend(message.parts)
    return replace(messages[0], content=tuple(parts), tool_calls=calls)
