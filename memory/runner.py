"""Where a caller's own functions run: plain ones where they do not block an event loop, asynchronous ones on a loop."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Protocol

from threadkeep.memory.threads import fulfil

CLOSING_SECONDS = 1.0
"""How long tools that were cancelled may take to end, before they are left to themselves."""


class Runner(Protocol):
    """Starts functions; what comes of one is in the future it gives."""

    def call(self, work: Callable[[], object]) -> Future[object]:
        """A plain function."""

    def on_loop(self, work: Callable[[], object]) -> Future[object]:
        """A function that gives what is to be awaited; cancelling the future cancels it."""

    def close(self) -> None:
        """Let go of what was started for it. Calling it twice is fine."""


class Here:
    """For a caller without an event loop: plain functions run on his thread, asynchronous ones on a loop that is started for them."""

    def __init__(self) -> None:
        self._loop: _Loop | None = None

    def call(self, work: Callable[[], object]) -> Future[object]:
        """Run at once."""
        future: Future[object] = Future()
        fulfil(future, work)
        return future

    def on_loop(self, work: Callable[[], object]) -> Future[object]:
        """Run on the loop, which lives until `close`."""
        if self._loop is None:
            self._loop = _Loop()
        return _scheduled(work, self._loop.loop, copy_context())

    def close(self) -> None:
        """End the loop; what still runs on it is cancelled."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()


class BesideLoop:
    """For a caller on an event loop: asynchronous functions run on it, each plain one on a thread; all see the caller's context variables.

    A plain function that does not come back keeps its thread and nothing else.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = copy_context()

    def call(self, work: Callable[[], object]) -> Future[object]:
        """Run on a thread, which no end of the process waits for."""
        future: Future[object] = Future()
        future.set_running_or_notify_cancel()
        threading.Thread(target=self._context.copy().run, args=(fulfil, future, work), name="threadkeep tool", daemon=True).start()
        return future

    def on_loop(self, work: Callable[[], object]) -> Future[object]:
        """Run as a task of the caller's loop."""
        return _scheduled(work, self._loop, self._context)

    def close(self) -> None:
        """Nothing was started that must be ended."""


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(ready)), name="threadkeep tools", daemon=True)
        self._thread.start()
        self.loop, self._over = ready.result()

    async def _live(self, ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        over = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(CLOSING_SECONDS)


def _scheduled(work: Callable[[], object], loop: asyncio.AbstractEventLoop, context: Context) -> Future[object]:
    """A task in a copy of the context.

    Raises:
        RuntimeError: the loop is closed.
    """
    begun = _task(work, context.copy())
    try:
        return asyncio.run_coroutine_threadsafe(begun, loop)
    except RuntimeError:
        begun.close()
        raise


async def _task(work: Callable[[], object], context: Context) -> object:
    async def awaited() -> object:
        made = work()
        return await made if inspect.isawaitable(made) else made

    return await asyncio.get_running_loop().create_task(awaited(), context=context)
