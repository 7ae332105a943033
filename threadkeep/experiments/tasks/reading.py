"""JSON files read so that whatever is wrong with them is said with the file and the record.

A `Node` is a value together with its place; asking it for what it does not hold raises the error that names that place.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from threadkeep import InvalidMessage, Message
from threadkeep.experiments.base import DatasetError

NAME_LENGTH = 255
"""Characters of a name: that of a conversation becomes a session's."""


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON value and where it stands."""

    path: Path
    place: str
    """`record 3 (e47becba)`, with `.key` and `[index]` for what lies inside."""
    value: object

    def wrong(self, problem: str) -> DatasetError:
        """The error for what this value is."""
        return DatasetError(self.path, self.place, problem)

    def named(self, name: str) -> "Node":
        """The same record, called by its id too."""
        return replace(self, place=f"{self.place} ({name:.60})")

    def keys(self) -> list[str]:
        """The keys of an object."""
        return list(self._mapping())

    def __getitem__(self, key: str) -> "Node":
        found = self._mapping()
        if key not in found:
            raise self.wrong(f"has no {key!r}; it has {', '.join(map(repr, list(found)[:8])) or 'nothing'}")
        return Node(self.path, f"{self.place}.{key}", found[key])

    def maybe(self, key: str) -> "Node | None":
        """The value of a key; None where there is none, or null."""
        return self[key] if self._mapping().get(key) is not None else None

    def each(self) -> list["Node"]:
        """The items of a list."""
        if not isinstance(self.value, list):
            raise self.wrong(f"is a list, not {_kind(self.value)}")
        return [Node(self.path, f"{self.place}[{index}]", item) for index, item in enumerate(self.value)]

    @property
    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong(f"is text, not {_kind(self.value)}")
        return self.value

    @property
    def name(self) -> str:
        """Text that may name a conversation or a question."""
        name = self.text
        if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            raise self.wrong(f"is a name of 1 to {NAME_LENGTH} printable characters, not {name[:80]!r}")
        return name

    @property
    def written(self) -> str:
        """Text, or a number as text."""
        if isinstance(self.value, int | float) and not isinstance(self.value, bool):
            return str(self.value)
        return self.text

    @property
    def whole(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.wrong(f"is a whole number, not {_kind(self.value)}")
        return self.value

    def message(self, role: str, content: str) -> Message:
        """A message whose role comes from this record."""
        try:
            return Message.from_dict({"role": role, "content": content})
        except InvalidMessage as error:
            raise self.wrong(str(error)) from None

    def _mapping(self) -> Mapping[str, object]:
        if not isinstance(self.value, dict):
            raise self.wrong(f"is an object, not {_kind(self.value)}")
        return self.value


def given(path: Path | str | None, task: str, what: str) -> Path:
    """The path that a task was given.

    Raises:
        DatasetError: there was none, or nothing is there.
    """
    if path is None:
        raise DatasetError(f"task {task}", "path", f"is missing: give {what}")
    path = Path(path)
    if not path.exists():
        raise DatasetError(path, "path", f"does not exist: give {what}")
    return path


def notes(odd: Mapping[str, int]) -> list[str]:
    """What was odd in the files, each with how often."""
    return [f"{what}: {count}" for what, count in odd.items() if count]


def read_json(path: Path) -> Node:
    """A whole file of JSON."""
    return Node(path, "the file", _decoded(path, "the file", _bytes(path)))


def read_records(path: Path) -> list[Node]:
    """The items of a file that is one JSON list."""
    whole = read_json(path)
    items = whole.each()
    if not items:
        raise whole.wrong("is a list without records")
    return [replace(item, place=f"record {index}") for index, item in enumerate(items)]


def read_lines(path: Path) -> Iterator[Node]:
    """A file of one JSON value a line; gzipped where its name ends in `.gz`."""
    lines = _bytes(path).split(b"\n")
    if not any(map(bytes.strip, lines)):
        raise DatasetError(path, "the file", "is empty")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Node(path, f"line {number}", _decoded(path, f"line {number}", line))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(path, "the file", f"is no whole gzip file ({error}): fetch it again") from None
    except OSError as error:
        raise DatasetError(path, "the file", f"cannot be read: {error.strerror or error}") from None


def _decoded(path: Path, place: str, data: bytes) -> object:
    if not data.strip():
        raise DatasetError(path, place, "is empty")
    try:
        return json.loads(data)
    except RecursionError:
        raise DatasetError(path, place, "is nested too deeply to be a dataset") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise DatasetError(path, place, f"is not JSON: {error}") from None


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), f"the number {value!r:.40}")
