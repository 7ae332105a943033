"""What an engine's pool of connections can do: how many threads it serves at once, and which in-memory databases it keeps together."""

import threading
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import Pool, QueuePool, StaticPool

from threadkeep.memory.errors import InvalidSetting

USUAL = 5
"""Threads for a pool that has no size of its own: as many as SQLAlchemy's usual one keeps connections."""


def threads_for(pool: Pool) -> int:
    """How many threads can work at once without waiting for each other's connections, those beyond the pool's size left aside."""
    if isinstance(pool, StaticPool):
        return 1
    return (pool.size() if isinstance(pool, QueuePool) else 0) or USUAL


def one_by_one(pool: Pool) -> AbstractContextManager[object]:
    """What a transaction is made inside of: where all threads are given the same connection, one after the other."""
    return threading.Lock() if isinstance(pool, StaticPool) else nullcontext()


def in_memory(url: URL) -> bool:
    """Whether the database is SQLite's, and lives in the memory of its connections."""
    return url.get_backend_name() == "sqlite" and (url.database in (None, "", ":memory:") or "mode=memory" in str(url))


def checked_engine(engine: Engine) -> Engine:
    """A host's engine, which can serve any thread.

    Raises:
        InvalidSetting: it is an asynchronous one, or an in-memory database that is another one for each connection.
    """
    if engine.dialect.is_async:
        raise InvalidSetting(
            f"an engine of {engine.dialect.driver} serves an event loop: give one of a synchronous driver, or a URL. AsyncMemory works "
            "on threads"
        )
    pool = engine.pool
    single = isinstance(pool, StaticPool) or (isinstance(pool, QueuePool) and pool.size() == 1 and pool._max_overflow == 0)
    if in_memory(engine.url) and "cache=shared" not in str(engine.url) and not single:
        raise InvalidSetting(
            f"an in-memory database is another one in each connection, and this engine ({type(pool).__name__}) has several: create it with "
            "poolclass=StaticPool and connect_args={'check_same_thread': False}, or give the URL 'sqlite://'"
        )
    return engine
