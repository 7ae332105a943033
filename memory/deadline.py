"""Calls that may never come back: each on a thread of its own, which is left to itself when its time is over."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_LEFT = 4
"""Threads that were left and still run, before nothing more is called."""


class Call(Generic[T]):
    """A call on a daemon thread, which no end of the process waits for.

    Raises:
        TimeoutError: too many calls before it have not come back yet.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        _left[:] = [thread for thread in _left if thread.is_alive()]
        if len(_left) >= MOST_LEFT:
            raise TimeoutError(f"{len(_left)} calls before were left and still run: nothing more is called until one of them comes back")
        self._work = work
        self._made: list[T] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._made.append(self._work())
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            self._error = error
        finally:
            self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long; whether it came back."""
        return self._over.wait(seconds)

    def leave(self) -> None:
        """Ask no more for what it may still give."""
        _left.append(self._thread)

    @property
    def result(self) -> T:
        """What the call gave, or the error it raised."""
        if self._error is not None:
            raise self._error
        return self._made[0]


_left: list[threading.Thread] = []
