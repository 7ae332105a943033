"""A bounded pool of threads, on which async code runs what would block its loop."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
        if self._pool is None or self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self._number, thread_name_prefix="threadkeep"), os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let the running work finish."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown(wait=True)
