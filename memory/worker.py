"""The background worker of a process: two threads, one for what is quick and one for what asks a model to write.

A thread starts with the first work and sleeps while there is none. It serves every `Memory` of the process, holding none of them; a
child process starts its own. What is queued here is only which sessions to look at: what there is to do stands in the database.
"""

import atexit
import logging
import math
import os
import threading
import time
import weakref
from typing import Literal, Protocol, TypeAlias

from threadkeep.memory.errors import StoreError

LaneName: TypeAlias = Literal["vectors", "summaries"]
MOST = 10_000
"""Sessions that wait; one that finds no place is looked at after its next turn."""
UNREACHED_SECONDS = 30.0
"""When a session is looked at again whose database failed."""
EXIT_SECONDS = 1.0
"""How long the end of the process waits for a running step."""
logger = logging.getLogger("threadkeep")


class Works(Protocol):
    """Whose sessions are worked at."""

    number: int
    """Tells it apart from every other of this process."""

    def work(self, owner: str, name: str, lane: "Lane") -> float | None:
        """Do what is due for a session, until there is nothing or `lane.stop_at` is set; in how many seconds to look again."""


class Lane:
    """A queue of sessions, and its thread."""

    def __init__(self, name: LaneName) -> None:
        self.name = name
        self.begin()

    def begin(self) -> None:
        """With nothing to do, as in a new process."""
        self._changed = threading.Condition()
        self._queue: dict[tuple[int, str, str], weakref.ref[Works]] = {}
        self._later: dict[tuple[int, str, str], tuple[float, weakref.ref[Works]]] = {}
        self._running = 0
        self._thread: threading.Thread | None = None
        self.stop_at = math.inf
        """When the running step must be over, by the monotonic clock; infinity: nobody asks."""

    def add(self, works: Works, owner: str, name: str) -> None:
        """Look at a session as soon as there is time."""
        key = (works.number, owner, name)
        with self._changed:
            if key in self._queue or len(self._queue) >= MOST:
                return
            self._later.pop(key, None)
            self._queue[key] = weakref.ref(works)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"threadkeep upkeep ({self.name})", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing waits but what is tried again later."""
        return not self._queue and not self._running

    def forget(self, number: int | None, seconds: float) -> None:
        """Look at no more of these sessions, of all where no number is given; a running step may take so long."""
        with self._changed:
            for waiting in (self._queue, self._later):
                for key in [key for key in waiting if number in (None, key[0])]:
                    del waiting[key]
            mine = self._running if number is None else number
            if self._running == mine != 0:
                self.stop_at = time.monotonic() + seconds
                self._changed.wait_for(lambda: self._running != mine, seconds + 1)

    def _run(self) -> None:
        while True:
            key, ref = self._next()
            works = ref()
            again = None if works is None else self._work(works, key)
            with self._changed:
                stopped, self._running, self.stop_at = self.stop_at < math.inf, 0, math.inf
                if again is not None and not stopped and len(self._later) < MOST:
                    self._later[key] = (time.monotonic() + again, ref)
                self._changed.notify_all()
            del works  # while the thread sleeps, it holds nobody's memory

    def _work(self, works: Works, key: tuple[int, str, str]) -> float | None:
        try:
            return works.work(key[1], key[2], self)
        except StoreError as error:
            logger.warning("upkeep of session %r could not be done, and is tried again: %s", key[2], error)
            return UNREACHED_SECONDS
        except Exception:  # a strategy is anybody's code
            logger.exception("upkeep of session %r failed", key[2])
            return None

    def _next(self) -> tuple[tuple[int, str, str], "weakref.ref[Works]"]:
        """The next session, waited for."""
        with self._changed:
            while True:
                now = time.monotonic()
                for key in [key for key, (moment, _) in self._later.items() if moment <= now]:
                    self._queue.setdefault(key, self._later.pop(key)[1])
                if self._queue:
                    key = next(iter(self._queue))
                    self._running = key[0]
                    return key, self._queue.pop(key)
                self._changed.wait(min((moment for moment, _ in self._later.values()), default=math.inf) - now if self._later else None)


LANES = (Lane("vectors"), Lane("summaries"))
"""Those of this process."""


def forget(number: int | None, seconds: float) -> None:
    """Look at no more of these sessions, in any lane."""
    end = time.monotonic() + seconds
    for lane in LANES:
        lane.forget(number, max(0.0, end - time.monotonic()))


def _in_child() -> None:
    for lane in LANES:
        lane.begin()


atexit.register(forget, None, EXIT_SECONDS)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
