"""A session's history, read from the database as a strategy asks for it."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from sqlalchemy import Connection

from threadkeep.memory.history import Entry, Head
from threadkeep.memory.log import Place, follow
from threadkeep.stores import queries
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import Prepared, now_us


class SQLHistory:
    """One session at one point, with a message that is only supposed to come next where one is given."""

    def __init__(self, connection: Connection, session: SessionRow | None, supposed: Prepared | None = None) -> None:
        self._connection = connection
        self._session = session
        self._stored = session.head if session else Head()
        self.head = self._stored
        self._supposed: tuple[Entry, ...] = ()
        if supposed is not None:
            place, self.head = follow(self._stored, supposed.message, supposed.tokens, supposed.shown_tokens)
            self._supposed = (entry_of(supposed, place, now_us()),)
        self._seen = {entry.seq: entry for entry in self._supposed}

    @property
    def tokens(self) -> int:
        return self.head.tokens

    @cached_property
    def live(self) -> Entry | None:
        found = self.entries([self.head.turn_seq]) if self.head.turn_seq else ()
        return found[0] if found else None

    def tail(self, shown_tokens: int) -> Sequence[Entry]:
        low = max(0, self.head.shown_tokens - max(0, shown_tokens))
        if low >= self.head.shown_tokens:
            return ()
        found = self._remember(queries.entries_shown_after(self._connection, self._session, low) if self._session else [])
        found.extend(entry for entry in self._supposed if entry.cum_shown > low)
        first = next((entry.seq for entry in found if entry.status != "late" and entry.start >= low), self.head.seq + 1)
        return [entry for entry in found if entry.group_seq >= first and entry.status != "late"]

    def entries(self, seqs: Iterable[int]) -> Sequence[Entry]:
        wanted = sorted(seq for seq in set(seqs) if 1 <= seq <= self.head.seq)
        unseen = [seq for seq in wanted if seq not in self._seen and seq <= self._stored.seq]
        if unseen and self._session:
            self._remember(queries.entries_of(self._connection, self._session, unseen))
        return [self._seen[seq] for seq in wanted if seq in self._seen]

    def between(self, first: int, last: int) -> Sequence[Entry]:
        low, high = max(first, 1), min(last, self._stored.seq)
        if all(seq in self._seen for seq in range(low, high + 1)):
            found = [self._seen[seq] for seq in range(low, high + 1)]
        else:
            found = self._remember(queries.entries_between(self._connection, self._session, low, high) if self._session else [])
        found.extend(entry for entry in self._supposed if first <= entry.seq <= last)
        return found

    def _remember(self, entries: list[Entry]) -> list[Entry]:
        """Each entry is one object, so its body is read once."""
        return [self._seen.setdefault(entry.seq, entry) for entry in entries]

    def around(self, seq: int, n: int) -> Sequence[Entry]:
        return self.between(seq - n, seq + n)

    def pinned(self) -> Sequence[Entry]:
        if self._session is None:
            return ()
        return self.entries(queries.pinned_seqs(self._connection, self._session, self.head.seq))


def entry_of(prepared: Prepared, place: Place, now: int, key: str | None = None) -> Entry:
    """A prepared message as the entry it becomes."""
    return Entry(
        place.seq,
        prepared.body,
        prepared.tokens,
        place.shown_tokens,
        place.cum_tokens,
        place.cum_shown,
        place.group_seq,
        place.turn_seq,
        "late" if place.late else prepared.status,
        now if prepared.created_us is None else prepared.created_us,
        key,
        prepared.metadata,
        int(prepared.exact),
    )
