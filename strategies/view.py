"""A history as another strategy is shown it: all of it, but for what a subclass changes."""

from collections.abc import Collection, Iterable, Sequence

from threadkeep.memory.history import Entry, Head, History, Summary
from threadkeep.memory.index import Index, Scope


class HistoryView:
    """A history that passes every question on to another one."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def shown(self) -> frozenset[int]:
        return self._history.shown

    @property
    def head(self) -> Head:
        return self._history.head

    @property
    def live(self) -> Entry | None:
        return self._history.live

    @property
    def tokens(self) -> int:
        return self._history.tokens

    def tail(self, shown_tokens: int) -> Sequence[Entry]:
        return self._history.tail(shown_tokens)

    def entries(self, seqs: Iterable[int]) -> Sequence[Entry]:
        return self._history.entries(seqs)

    def between(self, first: int, last: int) -> Sequence[Entry]:
        return self._history.between(first, last)

    def around(self, seq: int, n: int) -> Sequence[Entry]:
        return self._history.around(seq, n)

    def pinned(self) -> Sequence[Entry]:
        return self._history.pinned()

    def matching(
        self,
        *,
        roles: Collection[str] = (),
        tags: Collection[str] = (),
        importance: float | None = None,
        before: int,
        limit: int,
    ) -> Sequence[Entry]:
        return self._history.matching(roles=roles, tags=tags, importance=importance, before=before, limit=limit)

    def summaries(self, recipe: str, *, level: int | None = None, newest: int | None = None) -> Sequence[Summary]:
        return self._history.summaries(recipe, level=level, newest=newest)

    def index(self, scope: Scope = "session") -> Index:
        return self._history.index(scope)


class WithShown(HistoryView):
    """A history with what is shown already."""

    def __init__(self, history: History, seqs: frozenset[int]) -> None:
        super().__init__(history)
        self._seqs = seqs

    @property
    def shown(self) -> frozenset[int]:
        return self._seqs
