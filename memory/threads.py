"""A bounded pool of threads, on which async code runs what would block its loop."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """So many threads, started when they are first needed; a child process starts its own."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run on a thread; if this await is cancelled, the work is finished all the same."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run on a thread, in the order of submitting; what is submitted can no longer be cancelled, even while it waits for a thread."""
        if self._pool is None or self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self._number, thread_name_prefix="threadkeep"), os.getpid()
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._pool.submit(partial(fulfil, future, work))
        return future

    def close(self) -> None:
        """Let the running work finish; what is run later starts new threads."""
        pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.shutdown(wait=True)


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Run, and let the future say what came of it."""
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  # it is raised where the future is awaited
        future.set_exception(error)
