"""Writers while a database fails: what was acknowledged is there once and in order, every error is one of ours, and it goes on by itself.

python benchmarks/faults.py [kills] [fault …]

`kills`: how often the writing process is killed on each database, 50 if nothing is said. Faults: writer restart connections disk lock;
all where none is named. The disks are small tmpfs, which takes the right to mount; the servers that are restarted are our own.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from _servers import OwnMariaDB, OwnPostgreSQL, Server, answering, name_of, new_database, wait_for
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from threadkeep import Budget, Memory, ScriptedBackend
from threadkeep.memory.errors import Conflict, ThreadkeepError
from threadkeep.stores.engine import BUSY_MS
from threadkeep.stores.sql import SQLStore

THREADS = 3
"""Of a writer: two that append, one that holds turns."""
PATIENCE = 90
"""Seconds after which a message that is refused again and again counts as lost service."""
FAULTS = ("writer", "restart", "connections", "disk", "lock")
forking = get_context("fork")


def opened(url: URL) -> Memory:
    return Memory(
        url,
        backend=ScriptedBackend(lambda context: f"reply to {context.messages[-1]['content']}"),
        budget=Budget(1_000_000, reply=500),
        upkeep=False,
    )


def write(url: URL, log: Path, name: str, seconds: float, size: int) -> None:
    """Write until the time is over, each message under a key and again until it is taken; say in `log` what became of each."""
    with opened(url) as memory, log.open("a", buffering=1) as file:

        def work(thread: int) -> None:
            session, number, end = memory.session(f"session {thread}"), 0, time.monotonic() + seconds
            while time.monotonic() < end:
                said, tried = f"{name}.{thread} {number} {random.randbytes(size // 2).hex()}", time.monotonic()
                key = said[:200]
                while True:
                    try:
                        if thread == 0:
                            session.chat(said, key=key, timeout=PATIENCE)
                        else:
                            session.append(said, key=key, timeout=PATIENCE)
                    except Conflict as error:  # another writer went on while the server was away: it is for the caller to ask anew
                        file.write(json.dumps({"error": type(error).__name__, "says": str(error)[:160]}) + "\n")
                        said = ""
                        break
                    except ThreadkeepError as error:
                        file.write(json.dumps({"error": type(error).__name__, "says": str(error)[:160]}) + "\n")
                        if time.monotonic() - tried > PATIENCE:
                            return
                        time.sleep(0.05)
                    except Exception as error:  # noqa: BLE001  # none of ours: that is what is looked for
                        file.write(json.dumps({"untyped": repr(error)[:300]}) + "\n")
                        return
                    else:
                        break
                if said:
                    file.write(json.dumps({"thread": thread, "said": said, "took": time.monotonic() - tried}) + "\n")
                number += 1

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()


def started(url: URL, log: Path, name: str, seconds: float, size: int = 0) -> BaseProcess:
    log.touch()
    process = forking.Process(target=write, args=(url, log, name, seconds, size))
    process.start()
    return process


def notes_of(logs: Sequence[Path]) -> list[dict[str, object]]:
    """What the writers said; a killed one's last line may be cut."""
    notes = []
    for log in logs:
        for line in log.read_text().splitlines():
            try:
                notes.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return notes


def check(url: URL, logs: Sequence[Path], what: str) -> bool:
    """Everything acknowledged is there once, in the order of its writer, and each reply behind its message; every error was one of ours."""
    notes = notes_of(logs)
    taken: dict[int, list[str]] = {
        thread: [str(note["said"]) for note in notes if note.get("thread") == thread] for thread in range(THREADS)
    }
    wrong = []
    with opened(url) as memory:
        for thread, said in taken.items():
            entries, after = [], 0
            while said and (page := memory.session(f"session {thread}").entries(after=after, limit=1000)):
                entries += [(entry.role, entry.message.text) for entry in page]
                after = page[-1].seq
            users = [text for role, text in entries if role == "user"]
            if len(set(users)) != len(users):
                wrong.append(f"{len(users) - len(set(users))} doubled")
            places = {text: place for place, text in enumerate(users)}
            lost = [text for text in said if text not in places]
            if lost:
                wrong.append(f"{len(lost)} acknowledged and lost: {lost[0][:40]!r}")
            for writer in {text.split()[0] for text in users}:
                mine = [int(text.split()[1]) for text in users if text.split()[0] == writer]
                if mine != sorted(mine):
                    wrong.append(f"out of order: {writer}")
            replies = {text for role, text in entries if role == "assistant"}
            unanswered = [text for text in said if thread == 0 and f"reply to {text}" not in replies]
            if unanswered:
                wrong.append(f"{len(unanswered)} acknowledged turns without their reply")
    errors = Counter(str(note["error"]) for note in notes if "error" in note)
    untyped = {str(note["untyped"]) for note in notes if "untyped" in note}
    waited = max((float(str(note["took"])) for note in notes if "took" in note), default=0.0)
    count = sum(map(len, taken.values()))
    print(
        f"  {what}: {count} acknowledged, all there once and in order; errors {dict(errors)}; longest wait for one {waited:.1f} s"
        if not wrong
        else f"  {what}: WRONG {wrong}"
    )
    for says, times in Counter(str(note["says"]) for note in notes if "says" in note).most_common(3):
        print(f"    {times} x {says}")
    for one in untyped:
        print(f"    NOT TYPED: {one}")
    if not count:
        print("    NOTHING was written")
    return not wrong and not untyped and count > 0


def kill_writer(where: str, kills: int) -> bool:
    """The writing process gets kill -9 at random points; the next one goes on."""
    rng = random.Random(7)
    with new_database(where) as url, tempfile.TemporaryDirectory() as folder:
        logs = []
        for number in range(kills):
            logs.append(Path(folder) / str(number))
            process = started(url, logs[-1], f"w{number}", 60)
            begun = time.monotonic()
            while not logs[-1].stat().st_size:
                time.sleep(0.005)
                if time.monotonic() - begun > PATIENCE:
                    print(f"  no service after {number} kills")
                    return False
            time.sleep(rng.uniform(0, 0.6))
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        return check(url, logs, f"{name_of(url)}, the writer killed {kills} times")


@contextmanager
def traffic(url: URL, folder: Path, seconds: float, size: int = 0) -> Iterator[list[Path]]:
    """Two writers at work, for as long as the block lasts and the time is not over."""
    logs = [folder / "log 0", folder / "log 1"]
    processes = [started(url, log, f"w{number}", seconds, size) for number, log in enumerate(logs)]
    while not all(log.stat().st_size for log in logs):
        time.sleep(0.01)
    yield logs
    for process in processes:
        process.join()


def restart_server(make: Callable[[Path], Server], times: int = 3) -> bool:
    """The server crashes in mid-traffic and comes back a second later."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    server = make(folder / "data") if make is OwnPostgreSQL else make(folder)
    try:
        with new_database(server.url.render_as_string(hide_password=False)) as url, tempfile.TemporaryDirectory() as logs_in:
            with traffic(url, Path(logs_in), 6.0 * times + 4) as logs:
                for _ in range(times):
                    time.sleep(2.5)
                    server.crash()
                    time.sleep(1)
                    server.start()
            return check(url, logs, f"{name_of(url)}, the server crashed {times} times")
    finally:
        server.crash()
        shutil.rmtree(folder, ignore_errors=True)


def lose_connections(where: str, seconds: float = 12) -> bool:
    """All connections are ended from outside, twice a second."""
    with new_database(where) as url, tempfile.TemporaryDirectory() as folder:
        if url.get_backend_name() == "sqlite":
            return True
        postgresql = url.get_backend_name() == "postgresql"
        with traffic(url, Path(folder), seconds) as logs:
            end, cut = time.monotonic() + seconds - 2, 0
            while time.monotonic() < end:
                cut += cut_all(url, postgresql=postgresql)
                time.sleep(0.5)
        return check(url, logs, f"{name_of(url)}, {cut} connections ended")


def cut_all(url: URL, *, postgresql: bool) -> int:
    with create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
        if postgresql:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            return len(connection.execute(text(ended)).all())
        others = connection.execute(text("SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"))
        numbers = others.scalars().all()
        for number in numbers:
            with suppress(DBAPIError):  # it has gone already
                connection.execute(text(f"KILL {number}"))
        return len(numbers)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A tmpfs of so many megabytes."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill_disk(url: URL, disk: Path, logs_in: Path, leave: int, size: int) -> bool:
    """The disk runs full in mid-traffic, and gets room again."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with ballast.open("wb") as file:
        file.write(b"x" * max(0, free - leave))
    with traffic(url, logs_in, 25, size) as logs:
        end = time.monotonic() + 12
        while time.monotonic() < end and not any("error" in note for note in notes_of(logs)):
            time.sleep(0.1)
        full = any("error" in note for note in notes_of(logs))
        time.sleep(2)
        ballast.unlink()
        print(f"  the disk of {name_of(url)} was {'full' if full else 'NEVER full'}; {free >> 20} MB, of which {leave >> 20} were left")
    return check(url, logs, f"{name_of(url)}, the disk full") and full


def fill_disks() -> bool:
    well = True
    with small_disk(24) as disk, tempfile.TemporaryDirectory() as logs_in:
        url = URL.create("sqlite", database=str(disk / "chat.db"))
        with closing(SQLStore(url)) as store:
            store.migrate()
        well &= fill_disk(url, disk, Path(logs_in), 3 << 20, 3_000)
    with small_disk(300) as disk, tempfile.TemporaryDirectory() as logs_in:
        server = OwnPostgreSQL(disk / "data")
        try:
            with new_database(server.url.render_as_string(hide_password=False)) as url:
                server_up = threading.Thread(target=keep_up, args=(server, stop := threading.Event()))
                server_up.start()
                try:
                    well &= fill_disk(url, disk, Path(logs_in), 4 << 20, 100_000)
                finally:
                    stop.set()
                    server_up.join()
        finally:
            server.crash()
    return well


def keep_up(server: OwnPostgreSQL, stop: threading.Event) -> None:
    """Start the server again when it has given up, as whoever watches over services does."""
    while not stop.wait(1):
        try:
            wait_for(server.url, seconds=0)
        except Exception:  # noqa: BLE001  # it is down, or still starting
            try:
                server.start()
            except Exception as error:  # noqa: BLE001  # the disk is still full
                print(f"    the server does not start: {type(error).__name__}")


def lock_file() -> bool:
    """Another program locks the SQLite file: shortly, and longer than anybody waits."""
    with new_database("sqlite") as url, tempfile.TemporaryDirectory() as folder:
        with (
            traffic(url, Path(folder), BUSY_MS / 1000 + 20) as logs,
            closing(sqlite3.connect(str(url.database), isolation_level=None)) as other,
        ):
            for seconds in (3.0, BUSY_MS / 1000 + 4):
                other.execute("PRAGMA busy_timeout = 30000")
                other.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                other.execute("ROLLBACK")
                time.sleep(2)
        return check(url, logs, "SQLite, the file locked for 3 s and for longer than is waited")


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    wanted = sys.argv[2:] or FAULTS
    well = True
    places = answering()
    for where in places:
        if "writer" in wanted:
            well &= kill_writer(where, kills)
        if "connections" in wanted:
            well &= lose_connections(where)
    if "restart" in wanted:
        well &= restart_server(OwnPostgreSQL)
        well &= restart_server(OwnMariaDB)
    if "disk" in wanted:
        well &= fill_disks()
    if "lock" in wanted:
        well &= lock_file()
    if not well:
        sys.exit(1)


if __name__ == "__main__":
    main()
