"""A reply as it comes: events from the backend, drafts on disk, and at the end, whole or cut, an entry."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from threadkeep.backends.base import Backend, Event, Finish, Reply, Usage
from threadkeep.memory.asking import Asking
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, Conflict, StoreBusy
from threadkeep.memory.history import Status
from threadkeep.memory.message import Message, ToolCall
from threadkeep.memory.turn import Turn


class Stream:
    """A reply as it comes: a context manager that yields `Event`s. Leaving early stores what was said, as interrupted."""

    def __init__(self, turn: Turn, backend: Backend) -> None:
        self.turn = turn
        self._backend = backend
        self._events: Iterator[Event] | None = None
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._context: Context | None = None
        self._left = threading.Event()

    def __enter__(self) -> Self:
        self.turn.__enter__()
        return self.start()

    def assemble(self) -> None:
        """Have the context made, the turn being held; a turn that was answered before needs none."""
        if self.turn.reply is None:
            self._context = self.turn.context

    def start(self) -> Self:
        """Ask the model, the turn being held; a turn that was answered before gives its reply at once."""
        try:
            self.assemble()
            if self.turn.reply is not None:
                self._events = iter([Event(self.turn.reply.text, self.turn.reply.message.tool_calls)])
            else:
                self._events = Asking(self.turn, self._backend)
        except BaseException:
            self.turn.release()
            raise
        return self

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._events is None:
            raise Conflict("the stream is not open: write `with session.stream(…) as stream:` and read it inside, once")
        try:
            event = None if self.left else next(self._events, None)
            if event is not None and not self.left:  # what comes after leaving reaches nobody
                self._take(event)
                return event
        except BaseException:
            self.close()
            raise
        if event is None and not self.left:
            self._complete()
        else:
            self.close()
        raise StopIteration

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def context(self) -> Context:
        """What the model was sent."""
        if self._context is None:
            raise Conflict("there is no context: the stream is not open yet, or the turn was answered before")
        return self._context

    @property
    def reply(self) -> Reply:
        """The reply as stored, once the stream is over.

        Raises:
            Conflict: it is not over yet, or ended before anything was said.
        """
        if self.turn.reply is None:
            raise Conflict("there is no reply: read the stream to its end first; or it was left before anything was said")
        return self.turn.reply

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._texts)

    @property
    def left(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._left.is_set()

    def leave(self) -> None:
        """Stop at the next event; may be called from another thread."""
        self._left.set()

    def close(self) -> None:
        """Stop the model and store what was said; does nothing once the stream is over."""
        if self._events is None:
            return
        events, self._events = self._events, None
        try:
            stop = getattr(events, "close", None)
            if stop is not None:
                stop()
        finally:
            self._store()

    def _store(self) -> None:
        """Store what was said: whole, if the model said why it ended."""
        try:
            if self.turn.reply is None and (self._finish or self._texts or self._calls):
                status: Status = "complete" if self._finish else "interrupted"
                self.turn.end(self._message(), status, self._usage, self._finish, self._backend.name)
        finally:
            self.turn.release()

    def _take(self, event: Event) -> None:
        if event.text:
            self._texts.append(event.text)
        self._calls.extend(event.tool_calls)
        self._finish = event.finish or self._finish
        self._usage = event.usage or self._usage
        if self.turn.reply is None and (self._texts or self._calls):
            with suppress(StoreBusy):  # the next event tries again
                self.turn.save_draft(self._message)

    def _complete(self) -> None:
        self._events = None
        answered_before = self.turn.reply is not None
        self._store()
        if self._finish is None and not answered_before:
            raise BackendError(f"{self._backend.name} stopped without saying why; what it had said is stored as interrupted")

    def _message(self) -> Message:
        return Message.assistant(self.text if self._texts or not self._calls else None, tool_calls=self._calls)
