"""A reply as it comes: events from the backend, drafts on disk, tools run in between, and at the end, whole or cut, an entry."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Self

from threadkeep.backends.base import Event, Finish, Reply, Usage
from threadkeep.memory.asking import Asking
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, Conflict, InvalidReply, LeaseLost, StoreBusy, ThreadkeepError, Truncated
from threadkeep.memory.fitting import THOUGHT
from threadkeep.memory.history import Status
from threadkeep.memory.message import Message, ToolCall
from threadkeep.memory.runner import Runner
from threadkeep.memory.tool_loop import Rounds
from threadkeep.memory.turn import Turn


class Said:
    """What the model said in one call, as far as it was heard."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.thought = ""

    def take(self, event: Event) -> None:
        if event.text:
            self.texts.append(event.text)
        self.calls.extend(event.tool_calls)
        self.finish = event.finish or self.finish
        self.usage = event.usage or self.usage
        self.thought = event.thought or self.thought

    def __bool__(self) -> bool:
        return bool(self.texts or self.calls)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def so_far(self) -> Message | None:
        """None: nothing yet."""
        return self.message() if self else None

    def message(self) -> Message:
        extra = {THOUGHT: self.thought} if self.thought else {}
        return Message("assistant", self.text if self.texts or not self.calls else None, tuple(self.calls), extra=extra)


class Stream:
    """A reply as it comes: a context manager that yields `Event`s. Leaving early stores what was said, as interrupted.

    Where the model calls functions, they are run between its events, and an event tells each result. Where another turn takes the session
    (`policy="supersede"`), the model is stopped, and reading on raises `Superseded`.
    """

    def __init__(self, turn: Turn, rounds: Rounds) -> None:
        self.turn = turn
        self._rounds = rounds
        self._asking: Asking | None = None
        self._events: Iterator[Event] | None = None
        self._said = Said()
        self._context: Context | None = None
        self._left = threading.Event()
        self._reading = threading.Lock()
        self._reader: int | None = None
        self._stopped: BaseException | None = None
        turn.lease.when_lost = _weak(self._stop)

    def __enter__(self) -> Self:
        self.turn.__enter__()
        return self.start()

    def run_on(self, runner: Runner) -> None:
        """Run the caller's functions there, in place of this thread."""
        self._rounds.runner = runner

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
                self._ask()
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
            with self._reading:
                self._reader = threading.get_ident()
                try:
                    event = self._next()
                    if event is not None and not self.left:  # what comes after leaving reaches nobody
                        self._take(event)
                finally:
                    self._reader = None
            if event is not None and not self.left:
                if self.turn.superseded:  # since then: nobody else stops the model
                    self._stop()
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
        """What the model was sent, the last time it was asked."""
        if self._context is None:
            raise Conflict("there is no context: the stream is not open yet, or the turn was answered before")
        return self._context if self._asking is None else self._asking.context

    @property
    def reply(self) -> Reply:
        """The reply as stored, once the stream is over.

        Raises:
            Conflict: it is not over yet, or ended before anything was said.
            LeaseLost: another has taken the session.
        """
        self._check()
        if self.turn.reply is None:
            raise Conflict("there is no reply: read the stream to its end first; or it was left before anything was said")
        return self.turn.reply

    @property
    def text(self) -> str:
        """What was said so far, behind the last result of a tool."""
        return self._said.text

    @property
    def left(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._left.is_set()

    def leave(self) -> None:
        """Stop at the next event; may be called from another thread."""
        self._left.set()

    def close(self) -> None:
        """Stop the model and store what was said; does nothing once the stream is over. A tool that it runs leaves it by this."""
        if self._events is None:
            return
        if self._reader == threading.get_ident():
            self.leave()
            return
        try:
            with self._reading:
                self._close_events()
        finally:
            self._events = None
            self._store()

    def _stop(self) -> None:
        """Another took the session: stop the model at once, unless it is being read; then its reader sees it at the next event."""
        if self._reading.acquire(blocking=False):
            try:
                self._close_events()
            except Exception as error:  # noqa: BLE001  # the reader is told, when he reads on
                self._stopped = error
            finally:
                self._reading.release()

    def _close_events(self) -> None:
        stop = getattr(self._events, "close", None)
        if stop is not None:
            stop()

    def _ask(self) -> None:
        self.turn.lease.says(self._said.so_far)
        self._asking = Asking(self.turn)
        self._events = self._asking

    def _next(self) -> Event | None:
        """The next event, of the model or of a tool; None: there are no more, or the stream was left.

        Raises:
            LeaseLost: another has taken the session.
        """
        while self._events is not None and not self.left:
            self._check()
            event = next(self._events, None)
            self._check()
            if event is not None:
                return event
            if self._asking is None and self.turn.reply is None:
                self._ask()
            elif self._calls_functions():
                self._record()
            else:
                return None
        return None

    def _calls_functions(self) -> bool:
        """Whether what was said goes on with results that are made here."""
        return self._said.finish not in (None, "content_filter") and self._rounds.take(self._said.calls)

    def _record(self) -> None:
        """Store what calls the functions, before any of them runs."""
        assert self._asking is not None
        self.turn.record(self._said.message(), self._said.usage or self._asking.usage, self._asking.backend.name)
        self._context = self._asking.context
        self._events, self._asking = self._results(self._said.calls), None
        self._said = Said()
        self.turn.choose_tool(self._rounds.next_choice())

    def _results(self, calls: Sequence[ToolCall]) -> Iterator[Event]:
        with closing(self._rounds.results(calls, lambda: self.left or self.turn.superseded)) as results:
            for message in results:
                self.turn.append(message)
                yield Event(tool_result=message)

    def _check(self) -> None:
        """Raise if another has taken the session."""
        if self.turn.reply is None and self.turn.lease.lost is not None:
            raise self.turn.lease.lost from self._stopped

    def _take(self, event: Event) -> None:
        with self.turn.lease.delivering():
            self._said.take(event)
        if self.turn.reply is None and self._said:
            with suppress(StoreBusy):  # the next event tries again
                self.turn.save_draft(self._said.message)

    def _judged(self) -> tuple[Status, object, ThreadkeepError | None]:
        """What becomes of what was said: how it is stored, the value that was asked for, and what is wrong with it."""
        said, wanted = self._said, self.turn.response_format
        if said.finish is None or self._calls_functions():
            return "interrupted", None, None
        if said.finish == "length" and not said:  # the limit came inside a call of a tool, or while the model thought
            return "interrupted", None, Truncated("", self.context.max_tokens)
        if wanted is None or said.calls:
            return "complete", None, None
        if said.finish == "length" and not wanted.is_whole(said.text):
            return "interrupted", None, Truncated(said.text, self.context.max_tokens)
        try:
            return "complete", wanted.parse(said.text), None
        except InvalidReply as error:
            return "interrupted", None, error

    def _store(self) -> ThreadkeepError | None:
        """Store what was said, and end the turn; what is wrong with it, if anything."""
        said, asking = self._said, self._asking
        try:
            if self.turn.reply is not None or asking is None or not (said.finish or said):
                return None
            status, parsed, problem = self._judged()
            usage = said.usage or asking.usage
            try:
                self.turn.end(said.message(), status, usage, said.finish, asking.backend.name, parsed, asking.route)
            except LeaseLost:
                if usage is not None:
                    self.turn.note(asking.backend.name, usage, "interrupted")
                raise
            return problem
        finally:
            try:
                self.turn.release()
            finally:
                self._rounds.close()

    def _complete(self) -> None:
        self._events = None
        answered_before = self.turn.reply is not None
        problem = self._store()
        if problem is not None:
            raise problem
        if answered_before:
            return
        if self._said.finish is None and self._asking is not None:
            raise BackendError(f"{self._asking.backend.name} stopped without saying why; what it had said is stored as interrupted")


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """The same, without keeping its object alive: a stream that nobody refers to any more stops its model."""
    found = weakref.WeakMethod(method)

    def call() -> None:
        method = found()
        if method is not None:
            method()

    return call
