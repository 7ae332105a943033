"""Messages made ready to be stored: counted, clipped, analysed, encoded. All of it before a transaction begins."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import NamedTuple

from threadkeep.memory.analysis import terms
from threadkeep.memory.clipping import CLIP_TOKENS, clip, kept_characters
from threadkeep.memory.errors import InvalidMessage
from threadkeep.memory.history import EPOCH, Status
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.tokens import TokenCounter
from threadkeep.stores.blobs import Attached, taken_out
from threadkeep.stores.schema import TAG_LENGTH

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of one stored message: what MariaDB's default packet allows, rounded up to what PostgreSQL and SQLite take without care."""


class Vector(NamedTuple):
    """What an embedder made of a message's text."""

    model: str
    """The embedder's name."""
    stored: bytes
    """float16, low byte first."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message ready to be stored."""

    message: Message
    """As it is stored: what it carried as data URLs is in `attached`."""
    body: str
    tokens: int
    shown_tokens: int
    exact: bool
    """Whether both counts are the model's own, and not estimates."""
    terms: Counter[str]
    status: Status = "complete"
    created_us: int | None = None
    metadata: str | None = None
    tags: tuple[str, ...] = ()
    importance: float | None = None
    vector: Vector | None = None
    """None where it is not embedded, or not yet."""
    attached: tuple[Attached, ...] = ()
    """What its parts show of the owner's blobs, or bring to them."""


def prepare(
    message: Message,
    counter: TokenCounter,
    *,
    status: Status = "complete",
    created_at: datetime | None = None,
    metadata: JSON | None = None,
    place: str = "message",
) -> Prepared:
    """Take out a message's bytes, then count, clip, analyse and encode it. `place` is what an error calls it.

    Raises:
        InvalidMessage: its metadata cannot be kept as JSON, or its tags or importance are none; it is too large; its date has no zone; a
            picture's data URL is none.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidMessage("metadata", f"is a dict, not {metadata!r:.80}")
    message, attached = (message, ()) if isinstance(message.content, str | None) else taken_out(message, place)
    body = encode(message.to_dict())
    if len(body) > BODY_LIMIT:
        raise InvalidMessage("content", f"takes {len(body)} bytes as JSON, and a message may take {BODY_LIMIT}")
    counted = counter.count(message)
    tokens = shown = counted.tokens
    if message.role == "tool" and tokens > CLIP_TOKENS:
        shown = min(tokens, counter.count(clip(message, kept_characters(message, tokens, CLIP_TOKENS))).tokens)
    return Prepared(
        message,
        body,
        tokens,
        shown,
        counted.exact,
        terms(message.text),
        status,
        None if created_at is None else microseconds(created_at),
        None if metadata is None else encode(dict(metadata), "metadata"),
        read_tags((metadata or {}).get("tags", ())),
        read_importance((metadata or {}).get("importance")),
        attached=attached,
    )


def read_tags(given: object) -> tuple[str, ...]:
    """Tags as they are stored, each once.

    Raises:
        InvalidMessage: it is no list of texts that a database keeps as names.
    """
    if not isinstance(given, list | tuple):
        raise InvalidMessage("metadata.tags", f"is a list of short texts, not {given!r:.80}")
    for at, tag in enumerate(given):
        if not isinstance(tag, str) or not 0 < len(tag) <= TAG_LENGTH:
            raise InvalidMessage(f"metadata.tags[{at}]", f"is text of 1 to {TAG_LENGTH} characters, not {tag!r:.80}")
        if "\0" in tag or any("\ud800" <= letter <= "\udfff" for letter in tag):
            raise InvalidMessage(f"metadata.tags[{at}]", f"{tag!r} holds a NUL or half a character, which no database keeps in a name")
    return tuple(dict.fromkeys(given))


def read_importance(given: object) -> float | None:
    """An importance as it is stored; None: none was given.

    Raises:
        InvalidMessage: it is no finite number.
    """
    if given is None:
        return None
    if not isinstance(given, int | float) or isinstance(given, bool) or not abs(given) <= sys.float_info.max:  # NaN is not, either
        raise InvalidMessage("metadata.importance", f"is a finite number, not {given!r:.80}")
    return float(given)


def encode(value: object, field: str = "message") -> str:
    """ASCII JSON: NUL, lone surrogates and emoji come back as they went in."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(field, f"cannot be kept as JSON: {error}") from None


def digest(prepared: Iterable[Prepared]) -> str:
    """What a key stands for: sha256 of the messages' bodies, in which a picture stands by its hash, however it came."""
    made = hashlib.sha256()
    for one in prepared:
        made.update(one.body.encode("ascii") + b"\n")
    return made.hexdigest()


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidMessage("created_at", f"{moment!r:.80} is no date with a time zone: give datetime(…, tzinfo=UTC), for example")
    try:
        gone = moment.astimezone(UTC) - EPOCH
    except OverflowError:
        raise InvalidMessage("created_at", f"{moment} lies outside of the years 1 to 9999 in UTC") from None
    return (gone.days * 86_400 + gone.seconds) * 1_000_000 + gone.microseconds


def now_us() -> int:
    """This moment, in microseconds since 1970 in UTC."""
    return int(time() * 1_000_000)
