"""Leases of open turns: held on by one thread a process, which also learns where a session was taken from a turn.

The thread starts with the first turn and works for every `Memory` of the process. A child process starts its own.
"""

import math
import os
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from threadkeep.memory.errors import LeaseLost, StoreError
from threadkeep.memory.holder import new_holder
from threadkeep.memory.message import Message
from threadkeep.stores.rows import encode
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.turn_queries import LEASE_US, TurnRow
from threadkeep.stores.turns import Held, superseded, why_lost

ROUND_SECONDS = LEASE_US / 1_000_000 / 3
"""How often leases are renewed: twice before one ends."""
LOOK_SECONDS = 1.0
"""How often a turn that writes nothing meanwhile is looked at, whether it is still held here."""


class Lease:
    """What one turn knows of its lease: what was said under it since the last entry, and whether another took the session.

    Its lock is never held while a database is waited for, but by who takes the session from it: he holds it until that is stored.
    """

    def __init__(self, store: SQLStore) -> None:
        self.store = store
        self.holder = ""
        """Its name; given where it is first asked for: making one reads files, which no event loop shall wait for."""
        self.held: Held | None = None
        self.lost: LeaseLost | None = None
        """Why the turn has the session no more."""
        self.when_lost: Callable[[], object] = _nothing
        """Called where that is learned, on any thread."""
        self.seen = math.inf
        """When it was last known to hold, by `time.monotonic`; infinite while it writes."""
        self._saying: Callable[[], Message | None] = _nothing
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise if another took the session."""
        if self.lost is not None:
            raise self.lost

    def begin(self, held: Held) -> None:
        """It is held, from now on."""
        self.held, self.seen = held, time.monotonic()

    def let_go(self) -> Held | None:
        """It is over; what was held."""
        keeper.let_go(self)
        with self._lock:
            held, self.held = self.held, None
        return held

    def stored(self, held: Held) -> None:
        """What was said is stored now, as entries."""
        with self._lock:
            self.held, self._saying = held, _nothing

    def says(self, saying: Callable[[], Message | None]) -> None:
        """From now on this function gives what was said since the last entry; who takes the session stores that."""
        with self.delivering():
            self._saying = saying

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Deliver inside the block: nothing is delivered once another has taken the session.

        Raises:
            LeaseLost: another has.
        """
        with self._lock:
            self.check()
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write to the turn inside the block; nobody need look at it meanwhile.

        Raises:
            LeaseLost: another has the session.
        """
        self.check()
        self.seen = math.inf
        try:
            yield
        except LeaseLost as error:
            self.lose(error)
            raise
        finally:
            self.seen = time.monotonic()

    def renew(self) -> None:
        """Hold it on."""
        if self.held is not None and self.lost is None:
            with self.writing():
                self.store.write_turn(self.held, {})

    def lose(self, error: LeaseLost) -> None:
        """Another has the session."""
        with self._lock:
            self.lost = self.lost or error
        self.when_lost()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self.held, self._lock = None, threading.Lock()


class Takeover:
    """Takes the session from a turn of this process, where one has it: inside the block nothing more of that turn is delivered.

    Once `done` says that it is stored, the turn is told, and stops; otherwise it goes on.
    """

    def __init__(self) -> None:
        self._turn_id = 0
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lease = self._let_go()
        if lease is not None and lease.lost is not None:
            lease.when_lost()

    def __call__(self, turn: TurnRow, head_seq: int) -> str | None:
        """What the turn had said behind an entry, as a draft; of a turn of another process, the draft that it saved."""
        self._let_go()  # where the transaction is tried again, another may have the session
        lease = keeper.find(turn.holder)
        if lease is None:
            return turn.draft
        lease._lock.acquire()
        self._turn_id, self._lease = turn.id, lease
        if lease.held is None or lease.held.session.head.seq != head_seq:
            return None  # it was stored this moment
        said = lease._saying()
        return None if said is None else encode(said.to_dict())

    def done(self, begun: Held) -> None:
        """Another turn has the session now."""
        if self._lease is not None:
            self._lease.lost = superseded(self._turn_id, begun.session.name, again=begun.turn_id == self._turn_id)

    def _let_go(self) -> Lease | None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease._lock.release()
        return lease


class Keeper:
    """Renews the leases of open turns, and learns which are lost."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._leases: weakref.WeakValueDictionary[str, Lease] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def _in_child(self) -> None:
        """A new process: its parent's thread and turns are not its own."""
        for lease in list(self._leases.values()):
            lease.forget()
        self._begin()

    def hold(self, lease: Lease) -> None:
        """Look after a lease until it is let go, or nobody refers to it any more."""
        lease.holder = lease.holder or new_holder()
        with self._lock:
            self._leases[lease.holder] = lease
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="threadkeep leases", daemon=True)
                self._thread.start()

    def let_go(self, lease: Lease) -> None:
        with self._lock:
            self._leases.pop(lease.holder, None)

    def find(self, holder: str) -> Lease | None:
        """The lease of this name, if a turn of this process has it."""
        with self._lock:
            return self._leases.get(holder)

    @property
    def busy(self) -> bool:
        """Whether a turn is open in this process."""
        return any(lease.held is not None for lease in self._all())

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            end = time.monotonic() + ROUND_SECONDS
            while time.monotonic() < end:
                pause.wait(LOOK_SECONDS)
                self.look()
            self.round()

    def look(self) -> None:
        """See whether the turns that wrote nothing for a while are still held here: a statement each, a transaction for all of a store."""
        long_ago = time.monotonic() - LOOK_SECONDS
        silent: dict[SQLStore, list[tuple[Lease, Held, float]]] = defaultdict(list)
        for lease in self._all():
            held, seen = lease.held, lease.seen
            if held is not None and lease.lost is None and seen <= long_ago:
                silent[lease.store].append((lease, held, seen))
        for store, leases in silent.items():
            try:
                with store.read("looking at turns") as connection:
                    found = [why_lost(connection, held) for _, held, _ in leases]
            except StoreError:
                continue  # the next look tries again
            now = time.monotonic()
            for (lease, held, seen), lost in zip(leases, found, strict=True):
                if lease.held is held and lease.seen == seen:  # otherwise it wrote meanwhile, and knows
                    lease.seen = now
                    if lost is not None:
                        lease.lose(lost)

    def round(self) -> None:
        """Renew every lease once."""
        for lease in self._all():
            try:
                lease.renew()
            except LeaseLost:
                self.let_go(lease)  # the turn learns it from its next write
            except StoreError:
                continue  # the next round tries again

    def _all(self) -> list[Lease]:
        with self._lock:
            return list(self._leases.values())


def _nothing() -> None:
    """What is said before anything is, and done where nothing is to be done."""


keeper = Keeper()
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=keeper._in_child)
