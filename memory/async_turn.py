"""A turn and a stream for async code: the same objects, driven so that nothing here blocks the event loop.

A cancelled await lets the transaction that it waited for finish. Waiting for a session's lease takes no thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from functools import partial
from threading import Semaphore, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from threadkeep.backends.base import Event, Reply, Usage
from threadkeep.memory.context import Context
from threadkeep.memory.errors import Conflict
from threadkeep.memory.history import Entry
from threadkeep.memory.message import MessageLike
from threadkeep.memory.runner import BesideLoop
from threadkeep.memory.stream import Stream
from threadkeep.memory.threads import Threads
from threadkeep.memory.turn import Turn
from threadkeep.memory.waiting import waits

T = TypeVar("T")


class AsyncTurn:
    """`Turn` for async code: `async with session.turn(text) as turn: … await turn.finish(completion)`.

    The context is assembled on entering, so `request`, `messages` and `context` are plain attributes; `append` assembles it anew.
    """

    def __init__(self, turn: Turn, threads: Threads) -> None:
        self._turn = turn
        self._threads = threads
        self._latest: Future[Any] | None = None

    async def __aenter__(self) -> Self:
        await self.begin()
        if self._turn.reply is None:
            try:
                await self._run(lambda: self._turn.context)
            except BaseException:
                await self._run(self._turn.release)
                raise
        return self

    async def begin(self) -> None:
        """Take the lease; the wait for it takes no thread."""
        prepared = await self._run(self._turn.prepare)
        for pause in waits(self._turn.patience, lambda: self._turn.id):
            try:
                if await self._run(partial(self._turn.try_begin, prepared)):
                    return
            except asyncio.CancelledError:
                await self._run(self._turn.release)
                raise
            await asyncio.sleep(pause)
        raise self._turn.still_busy()

    async def _run(self, work: Callable[[], T]) -> T:
        """Run on a thread, behind what this turn runs already: an await that is cancelled leaves its work running."""
        before = self._latest

        def in_order() -> T:
            if before is not None:
                wait([before])
            return work()

        latest = self._threads.submit(in_order)
        self._latest = latest
        return await asyncio.wrap_future(latest)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._run(self._turn.release)

    @property
    def id(self) -> int | None:
        """The turn's number in its session, from 1; None before it began."""
        return self._turn.id

    @property
    def user(self) -> Entry:
        """The user's message as stored."""
        return self._turn.user

    @property
    def reply(self) -> Reply | None:
        """The reply, once there is one; at once where the same key was answered before."""
        return self._turn.reply

    @property
    def superseded(self) -> bool:
        """Whether another has taken the session from this turn, as `Turn.superseded` says it."""
        return self._turn.superseded

    @property
    def context(self) -> Context:
        """What to send to the model."""
        return self._turn.context

    @property
    def messages(self) -> list[dict[str, object]]:
        """The context's messages, in OpenAI's format."""
        return self._turn.messages

    @property
    def request(self) -> dict[str, Any]:  # Any: a client's own types decide
        """Arguments for `client.chat.completions.create(model=…, **turn.request)`."""
        return self._turn.request

    async def append(self, *messages: MessageLike) -> list[Entry]:
        """Store what comes before the reply, and assemble the context anew."""
        entries = await self._run(lambda: self._turn.append(*messages))
        await self._run(lambda: self._turn.context)
        return entries

    async def draft(self, text: str) -> None:
        """Save what was said so far, if the last saving is about a second ago."""
        await self._run(lambda: self._turn.draft(text))

    async def finish(self, reply: MessageLike, *, usage: Usage | None = None) -> Reply:
        """Store the reply and end the turn."""
        return await self._run(lambda: self._turn.finish(reply, usage=usage))


class AsyncStream:
    """`Stream` for async code: `async with session.stream(text) as stream: async for event in stream: …`.

    The model is read on a thread of its own, one event when one is asked for, so a pool of five connections serves any number of streams.
    """

    def __init__(self, stream: Stream, turn: AsyncTurn) -> None:
        self._stream = stream
        self._turn = turn
        self._asked = Semaphore(0)
        self._given: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self._open = False
        self._owed = False
        """An event was asked for, and the await was cancelled before it came."""
        self._failure: BaseException | None = None
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._turn.__aenter__()
        try:
            self._stream.assemble()
        except BaseException:  # another has taken the session since
            await self._turn.__aexit__(None, None, None)
            raise
        loop = asyncio.get_running_loop()
        self._stream.run_on(BesideLoop(loop))

        def tell(news: Event | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(self._given.put_nowait, news)

        def read() -> None:
            try:
                with closing(self._stream.start()) as stream:
                    while self._asked.acquire() and not stream.left:
                        tell(next(stream, None))
            except BaseException as error:  # noqa: BLE001  # it is raised where the events are read
                self._failure = error
                tell(error)
            finally:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._ended.set)

        Thread(target=read, name="threadkeep stream", daemon=True).start()
        self._open = True
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._open:
            raise Conflict("the stream is not open: write `async with session.stream(…) as stream:` and read it inside, once")
        if not self._owed:
            self._asked.release()
        self._owed = True
        event = await self._given.get()
        self._owed = False
        if isinstance(event, Event):
            return event
        self._open = False
        if event is None:
            raise StopAsyncIteration
        self._failure = None
        raise event

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.leave()
        self._asked.release()
        await asyncio.shield(self._ended.wait())
        self._open = False
        if self._failure is not None and error is None:
            raise self._failure

    @property
    def context(self) -> Context:
        """What the model was sent, the last time it was asked."""
        return self._stream.context

    @property
    def reply(self) -> Reply:
        """The reply as stored, once the stream is over."""
        return self._stream.reply

    @property
    def text(self) -> str:
        """What was said so far, behind the last result of a tool."""
        return self._stream.text
