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
        self._pools: dict[int, ThreadPoolExecutor] = {}
        """By process: at most one is in use."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run on a thread; if this await is cancelled, the work is finished all the same."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run on a thread, in the order of submitting; what is submitted can no longer be cancelled, even while it waits for a thread."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        while True:
            pool = self._pools.get(os.getpid())
            if pool is None:  # several may come here at once: one pool is kept, the others never start a thread
                pool = self._pools.setdefault(os.getpid(), ThreadPoolExecutor(self._number, thread_name_prefix="threadkeep"))
            try:
                pool.submit(partial(fulfil, future, work))
            except RuntimeError:
                if self._pools.get(os.getpid()) is pool:  # not closed by another thread meanwhile: the interpreter ends
                    raise
            else:
                return future

    def close(self) -> None:
        """Let the running work finish; what is run later starts new threads."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.shutdown(wait=True)


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Run, and let the future say what came of it."""
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  # it is raised where the future is awaited
        future.set_exception(error)
