"""What a GGUF file says of its tokenizer: the special tokens, the template, and an identity; the weights are not read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import hashlib
import mmap
import re
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

from threadkeep.memory.errors import ModelUnavailable

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type."""
_TEXT, _ARRAY = 8, 9
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_MARKER = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)
_WIDE_BAR = "<｜".encode()
_HTML_TAG = re.compile(r"</?[a-z][a-z0-9]*>")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A model's tokenizer as its file describes it."""

    identity: str
    """Equal for files whose tokenizers are equal, whatever their weights."""
    special: tuple[str, ...]
    """What the tokenizer reads as one token wherever it stands in a text."""
    template: str
    """The chat template, in Jinja; empty when the file has none."""
    trained_window: int
    """Tokens of the window that the model was trained for; 0 when the file does not say."""


def read_tokenizer(path: Path) -> Tokenizer:
    """Read it from the head of a GGUF file.

    Raises:
        ModelUnavailable: the file is not one, or is cut short.
    """
    try:
        with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _Reader(mapped).tokenizer()
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ModelUnavailable(f"{path} ({path.stat().st_size:,} bytes) is not a whole GGUF model: {error}") from error
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error}") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def tokenizer(self) -> Tokenizer:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        _, _, count = struct.unpack_from("<IQQ", self.data, 4)
        self.at = 24
        digest = hashlib.sha256()
        texts: dict[str, str] = {}
        tokens: list[bytes] = []
        kinds = array("i")
        window = 0
        for _ in range(count):
            key = self._text().decode()
            start, kind = self.at, self._number("<I", 4)
            if key == "tokenizer.ggml.tokens":
                tokens = self._texts()
            elif key == "tokenizer.ggml.token_type":
                kinds = self._integers()
            elif kind == _TEXT:
                texts[key] = self._text().decode("utf-8", "replace")
            elif key.endswith(".context_length") and kind == 4:
                window = self._number("<I", 4)
            else:
                self._skip(kind)
            if key.startswith("tokenizer.") and key != "tokenizer.chat_template":
                digest.update(key.encode())
                digest.update(self.data[start : self.at])
        template = texts.get("tokenizer.chat_template", "")
        return Tokenizer(digest.hexdigest(), _special(tokens, kinds, template), template, window)

    def _number(self, form: str, size: int) -> int:
        (number,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return int(number)

    def _text(self) -> bytes:
        size = self._number("<Q", 8)
        if self.at + size > len(self.data):
            raise ValueError("it ends in the middle of a text")
        self.at += size
        return self.data[self.at - size : self.at]

    def _texts(self) -> list[bytes]:
        self._number("<I", 4)
        return [self._text() for _ in range(self._number("<Q", 8))]

    def _integers(self) -> "array[int]":
        self._number("<I", 4)
        count = self._number("<Q", 8)
        self.at += 4 * count
        return array("i", self.data[self.at - 4 * count : self.at])

    def _skip(self, kind: int) -> None:
        if kind == _TEXT:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._number("<I", 4), self._number("<Q", 8)
            if inner in _SCALARS:
                self.at += _SCALARS[inner] * count
            else:
                for _ in range(count):
                    self._skip(inner)
        elif kind in _SCALARS:
            self.at += _SCALARS[kind]
        else:
            raise ValueError(f"it holds a value of the unknown type {kind}")


def _special(tokens: list[bytes], kinds: "array[int]", template: str) -> tuple[str, ...]:
    """The tokens that text must not turn into.

    A user-defined token counts unless it is white space or a plain HTML tag that the template does not use (some vocabularies have
    such for compression); one that looks like a marker counts whatever the file calls it, as the engine does.
    """
    found = set()
    for raw, kind in zip(tokens, kinds, strict=False):
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) or raw.startswith((b"<|", _WIDE_BAR)):
            token = raw.decode("utf-8", "replace")
            compression = token.isspace() or (_HTML_TAG.fullmatch(token) is not None and token not in template)
            if len(token) > 1 and (kind in (_UNKNOWN, _CONTROL) or _MARKER.fullmatch(token) or (kind == _USER_DEFINED and not compression)):
                found.add(token)
    return tuple(sorted(found))
