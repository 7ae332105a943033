"""Bytes that are kept beside the messages that show them, and the address that stands for them in a stored message."""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from threadkeep.memory.errors import InvalidSetting

_ADDRESS = re.compile(r"threadkeep:blob/([0-9a-f]{64})/([1-9][0-9]{0,17})/([ -~]{0,255})")
Change: TypeAlias = Callable[[str, str], str]
"""A key and the text under it, to the text that takes its place."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that an owner has in the store, once, however many messages show them."""

    sha256: str
    size: int
    """In bytes."""
    media_type: str
    """As the data URL named it (`image/png`); empty for base64 that came without one, as an `input_audio` part has it."""

    @property
    def url(self) -> str:
        """The address that stands for the bytes in a stored message."""
        return f"threadkeep:blob/{self.sha256}/{self.size}/{self.media_type}"

    @classmethod
    def read(cls, address: str) -> "Blob | None":
        """What an address stands for; None for any other text."""
        found = _ADDRESS.fullmatch(address) if address.startswith("threadkeep:") else None
        return None if found is None else cls(found[1], int(found[2]), found[3])

    def spelled(self, data: bytes) -> str:
        """The bytes as a model is sent them: a data URL, or base64 alone."""
        return (f"data:{self.media_type};base64," if self.media_type else "") + b64encode(data).decode()

    @property
    def length(self) -> int:
        """Characters of what `spelled` gives."""
        return (len(f"data:{self.media_type};base64,") if self.media_type else 0) + (self.size + 2) // 3 * 4


def sha256_of(blob: object) -> str:
    """The hash of a blob that was named by itself, by its address, or by a part that shows it.

    Raises:
        InvalidSetting: it is nothing of that kind.
    """
    named = getattr(blob, "url", blob)
    found = Blob.read(named) if isinstance(named, str) else None
    if found is None:
        raise InvalidSetting(f"blob({blob!r:.80}): the part of a stored message that shows it, or its address there (`part.url`)")
    return found.sha256


def through(part: Mapping[str, object], change: Change) -> dict[str, object]:
    """A part in OpenAI's format with every text changed that may stand for bytes: all but the words of a text part.

    Of a picture this is its URL alone.
    """
    if part.get("type") == "text":
        return dict(part)
    image = part.get("image_url")
    if part.get("type") == "image_url" and isinstance(image, Mapping):
        return {**part, "image_url": {**image, "url": change("url", str(image.get("url")))}}
    return {key: _through(value, key, change) for key, value in part.items()}


def _through(value: object, key: str, change: Change) -> object:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, Mapping):
        return {inner: _through(one, inner, change) for inner, one in value.items()}
    if isinstance(value, list | tuple):
        return [_through(one, key, change) for one in value]
    return value


def blobs_in(parts: Sequence[object]) -> list[Blob]:
    """What the parts of a message, in OpenAI's format, have in the store."""
    found: list[Blob] = []

    def note(_: str, text: str) -> str:
        blob = Blob.read(text)
        if blob is not None:
            found.append(blob)
        return text

    for part in parts:
        if isinstance(part, Mapping):
            through(part, note)
    return found


def json_length(part: Mapping[str, object]) -> int:
    """Characters of a part as JSON, with its bytes in it, wherever they are now."""
    return len(json.dumps(part)) + sum(blob.length - len(blob.url) for blob in blobs_in([part]))
