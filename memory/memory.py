"""Memory: the door. It joins a store, a backend and a strategy, and gives out sessions."""

from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from threadkeep.backends.base import Backend
from threadkeep.embedders.base import Embedder
from threadkeep.memory.budget import Budget
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.session import Session
from threadkeep.memory.setup import Setup
from threadkeep.memory.spending import SpendCap
from threadkeep.memory.tokens import TokenCounter
from threadkeep.memory.upkeep import Upkept
from threadkeep.stores.ledger import Used
from threadkeep.stores.queries import Listed
from threadkeep.stores.sql import SQLStore, check_limit, check_name
from threadkeep.strategies.base import Strategy

OWNER = "default"
"""Whose sessions are, where nobody is named."""


class Memory:
    """Sessions in a database, and the model that answers them.

    Args:
        store: a database URL (`sqlite:///chat.db`), an SQLAlchemy engine (used, never disposed of), or an `SQLStore`.
        backend: what answers; the bundled model where none is given.
        strategy: what goes into a context that cannot hold the whole log; where none is given, a window of what was just said, and
            recall of what was said before about the question.
        budget: the context's window and the reply's share, in tokens; the backend's window where none is given, with a quarter of it,
            at most 1024, for the reply.
        counter: for callers with a client of their own: with a counter and no backend, nothing here loads a model.
        embedder: what makes texts' vectors, for recall by meaning; none where none is given.
        instructions: the system prompt of every session that has none of its own.
        upkeep: whether summaries and vectors of what was appended are made in the background; if not, `session.upkeep()` or
            `memory.upkeep()` makes them.
        spend_cap: the most that model calls may cost; none where none is given. A call that could go over it is not made.

    Raises:
        InvalidSetting: an argument is of the wrong kind, or a URL is none.
    """

    def __init__(
        self,
        store: str | URL | Engine | SQLStore,
        *,
        backend: Backend | None = None,
        strategy: Strategy | None = None,
        budget: Budget | None = None,
        counter: TokenCounter | None = None,
        embedder: Embedder | None = None,
        instructions: str | None = None,
        upkeep: bool = True,
        spend_cap: SpendCap | None = None,
    ) -> None:
        if not isinstance(store, str | URL | Engine | SQLStore):
            raise InvalidSetting(f"store={store!r:.80}: a database URL, an SQLAlchemy engine or an SQLStore")
        kept = store if isinstance(store, SQLStore) else SQLStore(store)
        self._setup = Setup(kept, backend, strategy, budget, counter, embedder, instructions, upkeep, spend_cap)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def store(self) -> SQLStore:
        """Where the sessions are kept."""
        return self._setup.store

    def session(self, name: str, *, owner: str = OWNER, instructions: str | None = None) -> Session:
        """A session's handle; no I/O.

        Raises:
            InvalidSetting: a name is no text of 1 to 255 characters.
        """
        return Session(self._setup, name, owner, instructions)

    def sessions(self, *, owner: str = OWNER, after: str | None = None, limit: int = 100) -> list[Listed]:
        """An owner's sessions, the last used first: at most `limit` behind the one named `after`."""
        behind = None if after is None else check_name(after, "a session's name")
        return self._setup.store.sessions(check_name(owner, "an owner"), after=behind, limit=check_limit(limit))

    def usage(self, *, owner: str = OWNER, session: str | None = None) -> list[Used]:
        """What the model calls of an owner, or of one of the sessions, took in all: by model and purpose, the dearest first.

        Raises:
            NotFound: there is no such session.
        """
        name = None if session is None else check_name(session, "a session's name")
        return self._setup.store.usage(check_name(owner, "an owner"), name)

    def delete_owner(self, owner: str) -> int:
        """Delete everything of an owner; how many sessions there were."""
        return self._setup.store.delete_owner(check_name(owner, "an owner"))

    def upkeep(self, *, owner: str | None = None) -> list[Upkept]:
        """Make all summaries and vectors that are due, of an owner's sessions or of everybody's, and say what became of each job.

        Nothing is raised for a job that fails; it is tried again the next time.
        """
        whose = None if owner is None else check_name(owner, "an owner")
        return [done for session in self._setup.upkeep.all(whose) for done in session]

    def close(self) -> None:
        """Stop the background work, its running step given 5 s, and let go of the bundled model and of the connections made here.

        What was handed in stays open. Calling it twice is fine.
        """
        self._setup.close()
