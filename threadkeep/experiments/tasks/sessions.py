"""A database's own sessions, asked again: what each turn would cost, how much of it a model had read before, how long it takes.

There is no gold: every user message is asked at its place.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from threadkeep import Memory, ThreadkeepError
from threadkeep.experiments.base import Conversation, Dataset, DatasetError, Question, Said
from threadkeep.experiments.tasks.reading import notes

PAGE = 1000
"""Entries and sessions read at once."""


class Sessions:
    """Reads an owner's sessions.

    Args:
        owner: whose; a database keeps nobody's sessions together with another's.
    """

    name = "sessions"
    about = "every user message of your stored sessions, for cost, reuse and latency (a database's URL, or an SQLite file)"

    def __init__(self, owner: str = "default") -> None:
        self.owner = owner

    def load(self, path: Path | str | None) -> Dataset:
        """Read them.

        Args:
            path: an SQLite file, or a URL as text: as a `Path` it would lose a slash.

        Raises:
            DatasetError: there is no such database, or it has no session of this owner.
        """
        url = _url(path)
        shown = make_url(url).render_as_string()
        conversations: dict[str, Conversation] = {}
        questions: list[Question] = []
        silent = 0
        try:
            with Memory(url) as memory:
                for name in _names(memory, self.owner):
                    said = tuple(_said(memory, self.owner, name))
                    conversations[name] = Conversation(name, said)
                    asked = [at for at, one in enumerate(said) if one.message.role == "user"]
                    texts = {at: said[at].message.text for at in asked}
                    silent += sum(not texts[at].strip() for at in asked)
                    questions += [Question(f"{name}#{at + 1}", name, texts[at], after=at) for at in asked if texts[at].strip()]
        except ThreadkeepError as error:
            raise DatasetError(shown, f"owner {self.owner!r}", str(error)) from error
        if not conversations:
            raise DatasetError(shown, f"owner {self.owner!r}", "has no session there")
        return Dataset(conversations, questions, notes({"user messages without text (pictures alone), not asked": silent}))


def _url(path: Path | str | None) -> str:
    if path is None:
        raise DatasetError("task sessions", "path", "is missing: give a database's URL, or an SQLite file")
    url = str(path)
    if isinstance(path, Path) and re.match(r"[\w+]+:/", url):
        raise DatasetError(url, "path", "is a URL that lost a slash as a Path: hand it in as text")
    if "://" not in url:
        url = f"sqlite:///{url}"
    try:
        read = make_url(url)
    except ArgumentError as error:
        raise DatasetError("the URL", "path", f"is no database's: {error}") from None
    in_file = read.get_backend_name() == "sqlite" and read.database and read.database != ":memory:"
    if in_file and not Path(str(read.database)).is_file():
        raise DatasetError(str(read.database), "path", "is no file: give a database's URL, or an SQLite file")
    return url


def _names(memory: Memory, owner: str) -> Iterator[str]:
    """The names of the owner's sessions, by name: a replay does not depend on which was used last."""
    names: list[str] = []
    page = memory.sessions(owner=owner, limit=PAGE)
    while page:
        names += [listed.name for listed in page]
        page = memory.sessions(owner=owner, after=names[-1], limit=PAGE)
    yield from sorted(names)


def _said(memory: Memory, owner: str, name: str) -> Iterator[Said]:
    session, seq = memory.session(name, owner=owner), 0
    while page := session.entries(after=seq, limit=PAGE):
        yield from (Said(entry.message, entry.created_at) for entry in page)
        seq = page[-1].seq
