"""Engines and their connections: how each database is opened, and how a transaction begins and ends there."""

import os
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from threadkeep.memory.errors import InvalidSetting, MissingExtra
from threadkeep.stores import servers
from threadkeep.stores.faults import WAIT_SECONDS
from threadkeep.stores.pools import in_memory

BUSY_MS = WAIT_SECONDS * 1000
"""How long a SQLite connection waits for another writer, in milliseconds."""
FORK_SECONDS = 1.0
"""How long a fork() waits for running transactions; a thread that forks within its own would wait for ever."""
LOOK_MS = 10
"""How long it leaves the waiting for the right to write to SQLite itself, whose looks come after 1, 2, 5, 10, … milliseconds."""
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}


def open_engine(url: str | URL) -> Engine:
    """An engine for a database URL, with threadkeep's settings on each of its connections.

    Raises:
        InvalidSetting: it is no URL of a supported database.
        MissingExtra: its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in _DRIVERS:
            parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
        if parsed.get_backend_name() not in _DRIVERS:
            raise InvalidSetting(f"{parsed.get_backend_name()} is not supported: use {', '.join(_DRIVERS)}")
        if "@" in (parsed.host or ""):
            raise InvalidSetting(f"{masked(url)} has an @ in its password or user: write it as %40")
        if parsed.get_backend_name() != "sqlite":
            engine = create_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=servers.connect_args(parsed))
            servers.set_own(engine)
            return engine
        _check_folder(parsed)
        engine = create_engine(
            parsed,
            hide_parameters=True,
            connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
            # an in-memory database lives in one connection
            **({"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0} if in_memory(parsed) else {}),
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        if isinstance(error, InvalidSetting):
            raise
        raise InvalidSetting(f"{masked(url)!r} is no database URL: write sqlite:///chat.db, for example") from None
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), _EXTRAS.get(str(error.name), "all")) from None
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def masked(url: str | URL) -> str:
    """A URL without its password, also where it cannot be read."""
    return re.sub(r":[^:]*@", ":***@", re.sub(r"(//[^:/]*):.*@", r"\1:***@", str(url)))


def _check_folder(url: URL) -> None:
    path = url.database or ""
    folder = Path(path).parent
    if not path.startswith("file:") and not folder.is_dir():
        raise InvalidSetting(f"the folder {folder} of the database {url.database} does not exist")


def _prepare_sqlite(connection: SQLiteConnection, _: ConnectionPoolEntry) -> None:
    """The driver begins no transaction by itself; the rest is set outside of one, the waiting time first."""
    connection.isolation_level = None
    for pragma in (f"busy_timeout = {BUSY_MS}", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def begin_as_asked(engine: Engine, *, lent: bool, schema: str | None = None) -> Engine:
    """The same engine and pool, its transactions as threadkeep needs them: on SQLite begun with the lock they will need, on servers such
    that a statement sees what was committed before it, not what was there before it waited for a lock.

    Args:
        engine: whose pool it is.
        lent: it is a host's, whose connections are given back as they were.
        schema: where the tables are, on PostgreSQL.

    Raises:
        InvalidSetting: a schema, and the database is not PostgreSQL.
    """
    name = engine.dialect.name
    if schema is not None and name != "postgresql":
        raise InvalidSetting(f"schema={schema!r}: only PostgreSQL has schemas; name the database in the URL instead")
    if name == "sqlite":
        return _begin_as_asked_on_sqlite(engine)
    own = engine.execution_options(threadkeep_lent=lent)
    if name == "postgresql":
        own = own.execution_options(isolation_level="READ COMMITTED")  # of psycopg's BEGIN: it costs no statement
    if schema is not None:
        own = own.execution_options(schema_translate_map={None: schema})
    return own


def schema_of(connection: Connection) -> str | None:
    """PostgreSQL's schema that the tables are in; None: the first of the search path."""
    names: dict[str | None, str | None] = connection.get_execution_options().get("schema_translate_map", {})
    return names.get(None)


def _begin_as_asked_on_sqlite(engine: Engine) -> Engine:
    own = engine.execution_options()

    @event.listens_for(own, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("threadkeep_writes", False):
            _begin_writing(cast(SQLiteConnection, connection.connection.dbapi_connection))
        else:
            connection.exec_driver_sql("BEGIN")

    return own


@contextmanager
def begun(engine: Engine) -> Iterator[Connection]:
    """A transaction, committed at the end of the block, on a connection set as `begin_as_asked` says."""
    if not engine.get_execution_options().get("threadkeep_lent", False):
        with engine.connect() as connection, connection.begin():
            yield connection
        return
    with _lent(engine) as connection:
        try:
            yield connection
            connection.commit()
        finally:
            connection.rollback()
            servers.give_back(connection)


def _lent(engine: Engine) -> Connection:
    """A host's connection in a new transaction; one that had died in the pool is replaced once, as the host's engine may not look."""
    with suppress(DBAPIError):
        return _set(engine.connect())
    return _set(engine.connect())


def _set(connection: Connection) -> Connection:
    try:
        servers.set_lent(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_writing(connection: SQLiteConnection) -> None:
    """Wait for other writers by many short looks: SQLite's own come ever more seldom, so who waits long is overtaken again and again."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    end = time.monotonic() + patience / 1000
    connection.execute(f"PRAGMA busy_timeout = {min(LOOK_MS, patience)}")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    raise OperationalError("BEGIN IMMEDIATE", None, error) from error
            else:
                return
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


class Forks:
    """Has no SQLite connection open while the process forks.

    A child would inherit the locks that SQLite remembers in memory, though not the locks themselves: it would wait for writers it does
    not have, and its parent could clear away a WAL that it uses (sqlite.org/howtocorrupt.html, 2.6).
    """

    def __init__(self) -> None:
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._condition = threading.Condition()
        self._running = 0
        self._forking = False

    def forget(self, engine: Engine) -> None:
        """A child process opens connections of its own: those of its parent are not its to use, nor to close."""
        self._engines.add(engine)

    @contextmanager
    def kept_out(self) -> Iterator[None]:
        """A transaction runs: a fork() of another thread waits for its end."""
        with self._condition:
            self._condition.wait_for(lambda: not self._forking, FORK_SECONDS)
            self._running += 1
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    def before(self) -> None:
        self._condition.acquire()
        self._forking = True
        self._condition.wait_for(lambda: self._running == 0, FORK_SECONDS)
        for engine in self._engines:
            if engine.dialect.name == "sqlite" and not in_memory(engine.url):
                engine.dispose()

    def in_parent(self) -> None:
        self._forking = False
        self._condition.notify_all()
        self._condition.release()

    def in_child(self) -> None:
        self._begin_anew()
        for engine in self._engines:
            engine.dispose(close=False)


forks = Forks()
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks.before, after_in_parent=forks.in_parent, after_in_child=forks.in_child)
