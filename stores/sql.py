"""The store: sessions in an SQL database. Each method is one transaction."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from types import MappingProxyType

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL

from threadkeep.memory.errors import InvalidSetting, LeaseLost, NotFound
from threadkeep.memory.history import Entry
from threadkeep.stores import blob_queries, branch_queries, ledger, queries, turn_queries, turns
from threadkeep.stores.appending import Appended, append, session_for_append
from threadkeep.stores.blobs import delete_session, keep_texts
from threadkeep.stores.engine import begin_as_asked, begun, forks, open_engine
from threadkeep.stores.faults import typed_errors, whole_again
from threadkeep.stores.history import Asker, SQLHistory
from threadkeep.stores.ledger import CallRow, NewCall, Used
from threadkeep.stores.pools import checked_engine, one_by_one
from threadkeep.stores.queries import Listed, SessionRow
from threadkeep.stores.rows import Prepared
from threadkeep.stores.schema import NAME_LENGTH
from threadkeep.stores.turn_queries import TurnRow
from threadkeep.stores.turns import Answered, Busy, Held, Supersede
from threadkeep.stores.versions import check_schema, migrate


@whole_again
class SQLStore:
    """Sessions in an SQL database.

    Args:
        url: a database URL (`sqlite:///chat.db`), or an SQLAlchemy engine, which is used and never disposed of.
        schema: PostgreSQL's schema that the tables are in; where none is given, the first of the connection's search path.

    A SQLite file is made and migrated when it is first used; on a server `threadkeep migrate` does that.

    Raises:
        InvalidSetting: it is no URL of a supported database, no engine that serves threads, or has a schema and is not PostgreSQL.
        MissingExtra: the database's driver is not installed.
    """

    def __init__(self, url: str | URL | Engine, *, schema: str | None = None) -> None:
        self._owns_engine = not isinstance(url, Engine)
        self._pool = checked_engine(url) if isinstance(url, Engine) else open_engine(url)
        self._one_by_one = one_by_one(self._pool.pool)
        self._engine = begin_as_asked(self._pool, lent=not self._owns_engine, schema=schema)
        self._writing = self._engine.execution_options(threadkeep_writes=True)
        self._checked = False
        self._checking = threading.Lock()
        self._database = object()
        weakref.finalize(self, _forget, self._database)
        if self._owns_engine:
            forks.forget(self._pool)

    @property
    def engine(self) -> Engine:
        """The engine it works on."""
        return self._pool

    def close(self) -> None:
        """Close its connections, and let go of what is remembered of it; an engine that was handed in stays open."""
        _forget(self._database)
        if self._owns_engine:
            self._pool.dispose()

    @contextmanager
    def read(self, doing: str = "reading") -> Iterator[Connection]:
        """A transaction that only reads."""
        self._check()
        with self.look(doing) as connection:
            yield connection

    @contextmanager
    def write(self, doing: str = "writing") -> Iterator[Connection]:
        """A transaction that writes: whole, or not at all."""
        self._check()
        with self._one_by_one, forks.kept_out(), typed_errors(doing, self._pool) as attempt, begun(self._writing) as connection:
            yield connection
            attempt.committing = True

    @contextmanager
    def look(self, doing: str) -> Iterator[Connection]:
        """A transaction that only reads, whatever form the tables have."""
        with self._one_by_one, forks.kept_out(), typed_errors(doing, self._pool), begun(self._engine) as connection:
            yield connection

    def _check(self) -> None:
        if not self._checked:
            with self._checking:
                if not self._checked:
                    if self._pool.dialect.name == "sqlite":
                        self.migrate()
                    else:
                        with self.look("reading the schema's version") as connection:
                            check_schema(connection)
                    self._checked = True

    def migrate(self) -> str:
        """Bring the tables to this release's form; the version they then have.

        Raises:
            SchemaTooNew: a newer release made them; nothing was changed.
        """
        with typed_errors("migrating", self._pool):
            return migrate(self._engine, self._writing)

    # Sessions and entries.

    def session(self, owner: str, name: str) -> SessionRow | None:
        """The session as it is now."""
        with self.read("reading a session") as connection:
            return queries.find_session(connection, owner, name)

    @contextmanager
    def history_of(self, session: SessionRow, *, model: str | None = None) -> Iterator[SQLHistory]:
        """The history up to the head that the row names, with the vectors of this embedder, for as long as the block lasts."""
        asker = Asker(self._database, session.owner_id, session.name, model)
        with self.read("reading a session") as connection, closing(SQLHistory(connection, session, None, asker)) as history:
            yield history

    @contextmanager
    def history(
        self, owner: str, name: str, supposed: Prepared | None = None, *, model: str | None = None
    ) -> Iterator[tuple[SQLHistory, SessionRow | None, TurnRow | None]]:
        """A session's history at this moment, as `history_of` gives it, with its row and its newest turn, as the active branch has it."""
        with self.read("reading a session") as connection:
            session, newest = turn_queries.find_session_and_newest_turn(connection, owner, name)
            if session is not None:
                newest = turn_queries.newest_along(connection, session, newest)
            owner_id = session.owner_id if session else queries.find_owner(connection, owner)
            asker = Asker(self._database, owner_id, name, model)
            with closing(SQLHistory(connection, session, supposed, asker)) as history:
                yield history, session, newest

    def append(
        self,
        owner: str,
        name: str,
        prepared: Sequence[Prepared],
        *,
        key: str | None,
        tokenizer: str,
        is_dead: Callable[[str], bool],
        settle_draft: Callable[[str], Prepared],
    ) -> Appended | Busy:
        """Append outside of a turn: all of it or nothing, or who holds the session.

        Raises:
            KeyReused: the key came before with other content.
        """
        with self.write("appending") as connection:
            session = session_for_append(connection, owner, name, tokenizer)
            newest = turn_queries.newest_turn(connection, session)
            if newest is not None and newest.state == "open":
                if turns.is_alive(newest, is_dead):
                    return Busy(newest.id, newest.until_us)
                session = turns.settle(connection, session, newest, settle_draft)
            return append(connection, session, prepared, key)

    def entries(self, owner: str, name: str, *, after: int, limit: int, branch: str | None = None) -> list[Entry]:
        """A page of entries, those behind seq `after`, of the active branch or of the one named."""
        with self.read("reading entries") as connection:
            session = self._need(connection, owner, name)
            if branch is not None:
                session = branch_queries.need_branch(connection, session, branch)
            return queries.entries_between(connection, session, after + 1, session.head.seq, limit)

    def pin(self, owner: str, name: str, seq: int) -> None:
        """Keep an entry in every later context; pinning twice is fine."""
        with self.write("pinning") as connection:
            session = self._need(connection, owner, name, lock=True)
            found = queries.entries_of(connection, session, [seq])
            if not found:
                raise NotFound(f"session {name!r} has no entry {seq}: its entries run from 1 to {session.head.seq}")
            if found[0].status == "late":
                raise InvalidSetting(f"entry {seq} of session {name!r} came after its group had closed: it is never shown, pinned or not")
            if seq not in queries.pinned_seqs(connection, session, session.head.seq):
                queries.add_pins(connection, session, [seq])

    def sessions(self, owner: str, *, after: str | None, limit: int) -> list[Listed]:
        """An owner's sessions, the last used first; those behind the one named `after`."""
        with self.read("listing sessions") as connection:
            owner_id = queries.find_owner(connection, owner)
            if owner_id is None:
                return []
            mark = None
            if after is not None:
                mark = queries.find_listed(connection, owner_id, after)
                if mark is None:
                    raise NotFound(f"there is no session {after!r} to list after")
            return queries.list_sessions(connection, owner_id, mark, limit)

    def delete_session(self, owner: str, name: str) -> None:
        """Delete a session with all that belongs to it."""
        with self.write("deleting a session") as connection:
            delete_session(connection, self._need(connection, owner, name, lock=True))

    def delete_owner(self, owner: str) -> int:
        """Delete an owner with all that is his; how many sessions there were."""
        with self.write("deleting an owner") as connection:
            owner_id = queries.find_owner(connection, owner, lock=True)
            return 0 if owner_id is None else queries.delete_owner(connection, owner_id)

    # The ledger.

    def calls(self, owner: str, name: str, *, after: int, limit: int) -> list[CallRow]:
        """A page of the session's model calls, oldest first; those behind the one of this id."""
        with self.read("reading calls") as connection:
            return ledger.list_calls(connection, self._need(connection, owner, name), after, limit)

    def usage(self, owner: str, name: str | None) -> list[Used]:
        """What the model calls of an owner, or of one session, took, by model and purpose; the dearest first."""
        with self.read("adding up calls") as connection:
            session = None if name is None else self._need(connection, owner, name)
            owner_id = queries.find_owner(connection, owner)
            return [] if owner_id is None else ledger.sum_calls(connection, owner_id, session)

    def spent(self, session: SessionRow) -> tuple[Decimal, Decimal]:
        """What the calls of a session, and of its owner in all, have cost, in US dollars."""
        with self.read("reading what was spent") as connection:
            return ledger.find_spent(connection, session)

    def add_call(self, session: SessionRow, call: NewCall, turn_id: int | None = None) -> None:
        """Store a model call, whoever holds the session; of a session that was deleted since, nothing."""
        with self.write("storing a model call") as connection:
            now = queries.find_session_again(connection, session)
            if now is not None:
                ledger.add_call(connection, now, turn_id, call)

    # Turns.

    def begin_turn(
        self,
        owner: str,
        name: str,
        user: Prepared | None,
        *,
        key: str | None,
        holder: str,
        tokenizer: str,
        is_dead: Callable[[str], bool],
        settle_draft: Callable[[str], Prepared],
        supersede: Supersede | None = None,
        call: NewCall | None = None,
    ) -> Held | Busy | Answered:
        """Take the session's lease and append the user's message, safe on disk; or say who has it, or what was answered.

        Without a message the last one is answered anew.

        `supersede`: take it from whoever has it. `call`: the embedder's, for the ledger.
        """
        with self.write("beginning a turn") as connection:
            if user is None:
                self._need(connection, owner, name)
            session = session_for_append(connection, owner, name, tokenizer)
            begun = turns.begin(connection, session, user, key, holder, is_dead, settle_draft, supersede)
            if call is not None and not isinstance(begun, Busy):
                ledger.add_call(connection, session, begun.turn_id, call)
            return begun

    def write_turn(self, held: Held, values: Mapping[str, object], texts: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Write to a held turn, and hold it on; `texts` are what its manifest names by hash.

        Raises:
            LeaseLost: another holder took the session; nothing was written.
        """
        with self.write("writing to a turn") as connection:
            turns.write(connection, held, values)
            keep_texts(connection, held.session, texts)

    def release_turn(
        self, held: Held, values: Mapping[str, object], texts: Mapping[str, bytes], settle_draft: Callable[[str], Prepared]
    ) -> None:
        """End a held turn without a reply; a saved draft becomes an interrupted entry.

        Raises:
            LeaseLost: another holder took the session, and has ended it.
        """
        with self.write("ending a turn") as connection:
            session = queries.find_session_again(connection, held.session)  # locked first, as by who takes it from this holder
            turns.write(connection, held, values)
            turn = turn_queries.find_turn(connection, held.session, held.turn_id)
            if session is not None and turn is not None:
                turns.settle(connection, session, turn, settle_draft)
            keep_texts(connection, held.session, texts)

    def append_to_turn(
        self,
        held: Held,
        prepared: Sequence[Prepared],
        values: Mapping[str, object],
        texts: Mapping[str, bytes] = MappingProxyType({}),
        call: NewCall | None = None,
    ) -> Appended:
        """Append what a held turn brought, with what changes of the turn itself and the model call it came from.

        Raises:
            LeaseLost: another holder took the session; nothing was written.
        """
        with self.write("appending to a turn") as connection:
            session = queries.find_session_again(connection, held.session)  # locked first, as by who takes it from this holder
            turns.write(connection, held, values)
            if session is None:
                raise LeaseLost(f"session {held.session.name!r} was deleted while its turn was held")
            if session.branch_id != held.session.branch_id:
                raise LeaseLost(f"session {held.session.name!r} went on on another branch while its turn was held")
            added = append(connection, session, prepared)
            if "state" in values:
                turn_queries.change_turn(connection, session, held.turn_id, {"reply_seq": added.session.head.seq})
            if call is not None:
                ledger.add_call(connection, session, held.turn_id, call)
            keep_texts(connection, session, texts)
            return added

    def turn(self, owner: str, name: str, turn_id: int) -> tuple[SessionRow, TurnRow]:
        """A turn as stored, with the session as it is on the turn's branch.

        Raises:
            NotFound: there is none of this number.
        """
        with self.read("reading a turn") as connection:
            session = self._need(connection, owner, name)
            found = turn_queries.find_turn(connection, session, turn_id)
            if found is None:
                raise NotFound(f"session {name!r} has no turn {turn_id}")
            return branch_queries.on_branch(connection, session, found.branch_id), found

    def texts(self, owner_id: int, *hashes: str) -> list[bytes]:
        """What a manifest names by hash.

        Raises:
            NotFound: this owner has none of one of the hashes.
        """
        with self.read("reading a turn's texts") as connection:
            found = blob_queries.find_blobs(connection, owner_id, hashes)
        for sha256 in hashes:
            if sha256 not in found:
                raise NotFound(f"there is no blob {sha256[:12]}…")
        return [found[sha256] for sha256 in hashes]

    def blob(self, owner: str, sha256: str) -> bytes:
        """What an owner's message shows by its hash.

        Raises:
            NotFound: this owner has none of that hash.
        """
        with self.read("reading a blob") as connection:
            found = blob_queries.find_blob(connection, owner, sha256)
        if found is None:
            raise NotFound(f"there is no picture or file {sha256[:12]}… of this owner")
        return found

    def _need(self, connection: Connection, owner: str, name: str, *, lock: bool = False) -> SessionRow:
        session = queries.find_session(connection, owner, name, lock=lock)
        if session is None:
            raise unknown_session(name)
        return session


def unknown_session(name: str) -> NotFound:
    """The error for a session that is not there."""
    return NotFound(f"there is no session {name!r} of this owner: sessions() lists what there is")


def _forget(database: object) -> None:
    """Let go of what this process remembers of a database, if it remembers any."""
    if "threadkeep.stores.index_cache" in sys.modules:  # importing numpy only to forget would be slow
        from threadkeep.stores.index_cache import cache

        cache.forget(database)


def check_name(name: object, what: str) -> str:
    """An owner's or a session's name, or a key: 1 to 255 characters of valid Unicode, without NUL.

    Raises:
        InvalidSetting: it is not.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
        raise InvalidSetting(f"{what} is text of 1 to {NAME_LENGTH} characters, not {name!r:.80}")
    if "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise InvalidSetting(f"{what} {name!r:.80} holds a NUL or half a character, which no database keeps in a name")
    return name


def check_limit(limit: object) -> int:
    """How many rows a page may have, as a database takes it.

    Raises:
        InvalidSetting: it is no number from 1, or larger than any page.
    """
    if not isinstance(limit, int) or not 1 <= limit < 2**31:
        raise InvalidSetting(f"limit={limit!r}: a number from 1 to {2**31 - 1}")
    return limit
