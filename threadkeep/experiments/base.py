"""The words of an experiment: conversations, questions about them, and what a question came to.

A question's gold never reaches a strategy: a strategy sees a session's history and a budget, as in any turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from threadkeep import Message, ThreadkeepError

ORACLE = "oracle"
"""The row that sees the gold: what a perfect choice would reach."""


class DatasetError(ThreadkeepError, ValueError):
    """A dataset that cannot be read: names the file and the record."""

    def __init__(self, path: Path | str, record: str, problem: str) -> None:
        super().__init__(f"{path}, {record}: {problem}")
        self._given = (path, record, problem)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._given


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation, with when it was said."""

    message: Message
    at: datetime | None = None
    """With a time zone; UTC where the dataset names none."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is stored as one session, oldest first."""

    name: str
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a conversation, and what would answer it."""

    name: str
    conversation: str
    text: str
    after: int
    """It is asked once so many messages have been said."""
    gold: tuple[int, ...] = ()
    """Positions in the conversation, from 0, of the messages that hold the evidence; all below `after`."""
    answers: tuple[str, ...] = ()
    """Strings any of which answers it."""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A task's data, read whole."""

    conversations: Mapping[str, Conversation]
    questions: Sequence[Question]
    notes: Sequence[str] = field(default=())
    """What was odd in the files and how it was taken, with counts; shown in the report."""


class Task(Protocol):
    """Reads one kind of dataset."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """One line: what it asks, which files it reads, the source."""

    def load(self, path: Path | str | None) -> Dataset:
        """Read it; `sessions` takes a database's URL.

        Raises:
            DatasetError: the files are not as published.
        """
