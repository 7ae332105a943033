"""Holding on the leases of turns that are open, on one thread a process.

The thread starts with the first turn and works for every `Memory` of the process. A child process starts its own.
"""

import os
import threading
import weakref
from typing import Protocol

from threadkeep.memory.errors import LeaseLost, StoreError
from threadkeep.stores.turns import LEASE_US

ROUND_SECONDS = LEASE_US / 1_000_000 / 3
"""How often leases are renewed: twice before one ends."""


class Holds(Protocol):
    """What has a lease."""

    def renew(self) -> None: ...

    def forget(self) -> None:
        """Hold it no longer, in a forked child: it is the parent's."""


class Keeper:
    """Renews the leases of open turns."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._held: weakref.WeakSet[Holds] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def _in_child(self) -> None:
        """A new process: its parent's thread and turns are not its own."""
        for turn in self._held:
            turn.forget()
        self._begin()

    def hold(self, turn: Holds) -> None:
        """Renew a turn's lease until it is let go, or nobody refers to it any more."""
        with self._lock:
            self._held.add(turn)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="threadkeep leases", daemon=True)
                self._thread.start()

    def let_go(self, turn: Holds) -> None:
        with self._lock:
            self._held.discard(turn)

    @property
    def busy(self) -> bool:
        """Whether a turn is open in this process."""
        return len(self._held) > 0

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(ROUND_SECONDS)
            self.round()

    def round(self) -> None:
        """Renew every lease once."""
        with self._lock:
            held = list(self._held)
        for turn in held:
            try:
                turn.renew()
            except LeaseLost:
                self.let_go(turn)  # the turn learns it from its next write
            except StoreError:
                continue  # the next round tries again


keeper = Keeper()
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=keeper._in_child)
