"""A session's history, read from the database as a strategy asks for it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection

from threadkeep.memory.errors import InvalidSetting, NotFound
from threadkeep.memory.history import Entry, Head, Summary
from threadkeep.memory.index import Index, Scope
from threadkeep.memory.log import Place, follow
from threadkeep.stores import blob_queries, index_queries, queries
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import Prepared, now_us
from threadkeep.stores.selecting import Wanted, newest_matching
from threadkeep.stores.summary_queries import summaries_before
from threadkeep.stores.vector_queries import find_vector

if TYPE_CHECKING:
    from threadkeep.stores.index_plan import Plan


@dataclass(frozen=True)
class Asker:
    """Who reads a history, and what of it: as far as an index asks."""

    database: object
    """Stands for the database, wherever something read from it is remembered."""
    owner_id: int | None
    """None: an owner without sessions."""
    name: str
    """The session's, which may not exist yet."""
    model: str | None = None
    """The embedder whose vectors are read."""


class SQLHistory:
    """One session at one point, with a message that is only supposed to come next where one is given."""

    def __init__(
        self, connection: Connection, session: SessionRow | None, supposed: Prepared | None = None, asker: Asker | None = None
    ) -> None:
        self._connection = connection
        self._session = session
        self._stored = session.head if session else Head()
        self.head = self._stored
        self._supposed: tuple[Entry, ...] = ()
        self._supposed_as = supposed
        self._asker = asker
        self._indexes: dict[Scope, Index] = {}
        if supposed is not None:
            place, self.head = follow(self._stored, supposed.message, supposed.tokens, supposed.shown_tokens)
            self._supposed = (entry_of(supposed, place, now_us()),)
        self._seen = {entry.seq: entry for entry in self._supposed}
        self._summaries_before = self.head.turn_seq

    @classmethod
    def for_upkeep(cls, connection: Connection, session: SessionRow) -> Self:
        """With all summaries, those too that no turn has seen yet."""
        made = cls(connection, session)
        made._summaries_before = session.head.seq + 1
        return made

    def close(self) -> None:
        """Let go of its indexes, which know it too: their arrays are large, and are freed at once then."""
        self._indexes.clear()

    shown: frozenset[int] = frozenset()

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

    def matching(
        self,
        *,
        roles: Collection[str] = (),
        tags: Collection[str] = (),
        importance: float | None = None,
        before: int,
        limit: int,
    ) -> Sequence[Entry]:
        wanted = Wanted(roles, tags, importance)
        one = self._supposed_as
        found = [entry for entry in self._supposed if one and wanted.matches(one.message.role, one.tags, one.importance)]
        found = [entry for entry in found if entry.seq < before and entry.status != "late"][:limit]
        while self._session and len(found) < limit:
            seqs = newest_matching(self._connection, self._session, wanted, before, limit - len(found))
            if not seqs:
                break
            shown = (entry for entry in self.entries(seqs) if entry.seq > self.head.leading and entry.status not in ("late", "erased"))
            found.extend(shown)
            before = seqs[-1]
        return sorted(found)

    def summaries(self, recipe: str, *, level: int | None = None, newest: int | None = None) -> Sequence[Summary]:
        if self._session is None:
            return ()
        return summaries_before(self._connection, self._session, recipe, self._summaries_before, level=level, newest=newest)

    def blobs(self, hashes: Collection[str]) -> Mapping[str, bytes]:
        """The bytes of what its entries show, by hash; for who sends them, not for strategies.

        Raises:
            NotFound: the owner does not have one of them; the message names the entry.
        """
        brought = self._supposed_as.attached if self._supposed_as else ()
        found = {one.blob.sha256: one.data for one in brought if one.data is not None}
        if (rest := set(hashes) - found.keys()) and self._asker and self._asker.owner_id is not None:
            found |= blob_queries.find_blobs(self._connection, self._asker.owner_id, rest)
        for sha256 in sorted(set(hashes) - found.keys()):
            seq = next((entry.seq for entry in sorted(self._seen.values()) if sha256 in entry.body), None)
            raise NotFound(
                f"entry {seq} shows a picture or file whose bytes are not in the store, {sha256[:12]}…: "
                "they were deleted there, or never given. Append a message with the same bytes, and they are there again"
            )
        return found

    def index(self, scope: Scope = "session") -> Index:
        if scope not in ("session", "owner"):
            raise InvalidSetting(f"index(scope={scope!r}): 'session' or 'owner'")
        if scope not in self._indexes:
            self._indexes[scope] = self._index(scope)
        return self._indexes[scope]

    def _index(self, scope: Scope) -> Index:
        from threadkeep.stores.index import Asked  # numpy is slow to import
        from threadkeep.stores.index_cache import cache

        asker = self._asker
        if asker is None:
            raise InvalidSetting("this history is read by upkeep, which recalls nothing")
        live = self.live
        before_us = live.created_us if scope == "owner" and live else None
        query = self._query(live, asker.model) if live and asker.model else None
        live_seq, branch_id = self.head.turn_seq or self.head.seq + 1, self._session.branch_id if self._session else 0
        asked = Asked(self._plan(asker, scope), live_seq, asker.model, branch_id, before_us, query)
        session_id = self._session.id if self._session and scope == "session" else None
        key = (asker.database, scope, asker.owner_id, session_id, asker.model)
        held = cache.hold(key)
        made = held.index(self._connection, asked, self.entries)
        cache.weigh(key, held)
        return made

    def _plan(self, asker: Asker, scope: Scope) -> "Plan":
        from threadkeep.stores import index_plan

        upto = min(self._stored.seq, self.head.turn_seq - 1) if self.head.turn_seq else self._stored.seq
        if scope == "session" and self._session is not None:
            return index_plan.of_session(self._session, upto)
        if scope == "session" or asker.owner_id is None:
            return index_plan.Plan(0, (asker.name,), (), 0)
        sessions = index_queries.owner_sessions(self._connection, asker.owner_id)
        return index_plan.of_owner(asker.owner_id, asker.name, self._session, upto, sessions)

    def _query(self, live: Entry, model: str) -> bytes | None:
        """The live message's vector."""
        if live.seq > self._stored.seq:
            return self._supposed_as.vector.stored if self._supposed_as and self._supposed_as.vector else None
        return find_vector(self._connection, self._session, model, live.seq) if self._session else None


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
