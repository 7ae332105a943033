"""What this process remembers of logs to recall from, the longest unused forgotten first."""

import os
import threading
from collections import OrderedDict

from threadkeep.stores.index import Held

BYTES = 256 * 2**20
"""What a process keeps of all logs: about 280,000 messages with vectors of 384 dimensions. The last one used is kept, however long."""


class Cache:
    """Logs by key: database first, then owner, session and embedder. Safe to share between threads, and to fork with."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.nbytes = 0
        self._held: OrderedDict[tuple[object, ...], Held] = OrderedDict()
        self._lock = threading.RLock()

    def hold(self, key: tuple[object, ...]) -> Held:
        """What is remembered under a key, which begins with its database."""
        with self._lock:
            held = self._held.setdefault(key, Held())
            self._held.move_to_end(key)
            return held

    def weigh(self, key: tuple[object, ...], held: Held) -> None:
        """Count what is held now, and forget others while it is too much."""
        with self._lock:
            if self._held.get(key) is held:
                nbytes = held.nbytes
                self.nbytes += nbytes - held.counted
                held.counted = nbytes
            while self.nbytes > self.most and len(self._held) > 1:
                self._drop(next(iter(self._held)))

    def forget(self, database: object) -> None:
        """Let go of all that is held of a database."""
        with self._lock:
            for key in [key for key in self._held if key[0] is database]:
                self._drop(key)

    def _drop(self, key: tuple[object, ...]) -> None:
        self.nbytes -= self._held.pop(key).counted

    def in_child(self) -> None:
        """After a fork: what another thread was just changing is read anew."""
        self._lock = threading.RLock()
        for key in [key for key, held in self._held.items() if held.lock.locked()]:
            self._drop(key)


cache = Cache(BYTES)
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cache.in_child)
