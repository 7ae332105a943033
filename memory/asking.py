"""One model call of a turn: its context, and the reply to it, event by event."""

from collections.abc import Iterator
from typing import Self

from threadkeep.backends.base import Backend, Event
from threadkeep.memory.context import Context
from threadkeep.memory.turn import Turn


class Asking:
    """A backend's reply to a held turn, as an iterator of events. `close` stops the model."""

    def __init__(self, turn: Turn, backend: Backend) -> None:
        self.context: Context = turn.context
        """What the model is sent."""
        self.backend = backend
        """Which backend answers."""
        self.route: str | None = None
        """Why that one."""
        self._events: Iterator[Event] = iter(backend.stream(self.context))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Stop the model; closing it twice is fine."""
        stop = getattr(self._events, "close", None)
        if stop is not None:
            stop()
