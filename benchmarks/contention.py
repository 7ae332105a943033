"""Eight processes at one database: appends of 32 threads to 16 sessions, then turns on ONE session. Nothing may fail, be lost or mix.

python benchmarks/contention.py [seconds] [processes] [URL …]

On SQLite and on the servers that answer, or on the databases' servers that are named. Slice by slice the same threads write through the
driver alone, by as few statements as a log with an order needs: what the database itself can do, beside what the store does with it.
"""

import multiprocessing
import random
import sqlite3
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

from _servers import answering, name_of, new_database
from sqlalchemy.engine import URL

from threadkeep import Budget, Memory, Message, Session, TiktokenCounter
from threadkeep.stores.rows import prepare

THREADS, SESSIONS = 4, 16
SLICE = 2.5
"""Seconds of writing one way before the other comes again."""


def opened(url: URL) -> Memory:
    return Memory(url, counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500))


class Raw:
    """A log by three statements through the driver: lock the head, write the message, move the head."""

    def __init__(self, url: URL) -> None:
        self._name = url.get_backend_name()
        self._connection = self._connect(url)
        self._place = "?" if self._name == "sqlite" else "%s"

    def _connect(self, url: URL) -> Any:
        if self._name == "sqlite":
            made = sqlite3.connect(str(url.database), isolation_level=None)
            for pragma in ("busy_timeout = 60000", "journal_mode = WAL", "synchronous = FULL"):
                made.execute(f"PRAGMA {pragma}").close()
            return made
        if self._name == "postgresql":
            import psycopg

            return psycopg.connect(host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database)
        import pymysql

        asked = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        return pymysql.connect(
            host=url.host, port=url.port or 3306, user=url.username, password=url.password or "", database=url.database, init_command=asked
        )

    def make(self) -> None:
        cursor = self._connection.cursor()
        cursor.execute("CREATE TABLE raw_heads (session INTEGER PRIMARY KEY, seq INTEGER NOT NULL)")
        cursor.execute("CREATE TABLE raw_messages (session INTEGER, seq INTEGER, body TEXT NOT NULL, PRIMARY KEY (session, seq))")
        for session in range(SESSIONS):
            cursor.execute(f"INSERT INTO raw_heads VALUES ({session}, 0)")
        self._connection.commit()

    def append(self, session: int, body: str) -> None:
        cursor, place = self._connection.cursor(), self._place
        if self._name == "sqlite":
            cursor.execute("BEGIN IMMEDIATE")
        locked = "" if self._name == "sqlite" else " FOR UPDATE"
        cursor.execute(f"SELECT seq FROM raw_heads WHERE session = {place}{locked}", (session,))
        seq = cursor.fetchone()[0] + 1
        cursor.execute(f"INSERT INTO raw_messages VALUES ({place}, {place}, {place})", (session, seq, body))
        cursor.execute(f"UPDATE raw_heads SET seq = {place} WHERE session = {place}", (seq, session))
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()


def append_for(
    url: URL,
    begin: float,
    seconds: float,
    process: int,
    results: "Queue[Any]",
) -> None:
    """Append from several threads, through the store and the driver in turn: what was acknowledged, what failed, how long each took."""
    acknowledged: list[tuple[str, str]] = []
    errors: list[str] = []
    took: list[float] = []
    raw_took: list[float] = []
    with opened(url) as memory:

        def work(thread: int) -> None:
            rng, number, raw = random.Random(f"{process} {thread}"), 0, Raw(url)
            memory.store.session("default", f"session {thread}")  # connects
            time.sleep(max(0.0, begin - time.time()))
            while (now := time.time()) < begin + 2 * seconds:
                session, text, began = rng.randrange(SESSIONS), f"{process}.{thread} {number}", time.monotonic()
                try:
                    if int((now - begin) / SLICE) % 2:
                        raw.append(session, text)
                        raw_took.append(time.monotonic() - began)
                    else:
                        memory.session(f"session {session}").append(text)
                        acknowledged.append((f"session {session}", text))
                        took.append(time.monotonic() - began)
                except Exception as error:  # noqa: BLE001  # every kind is counted
                    errors.append(f"{type(error).__name__}: {error}")
                number += 1
            raw.close()

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    results.put((acknowledged, errors, took, raw_took))


def turn_for(url: URL, begin: float, seconds: float, process: int, results: "Queue[Any]") -> None:
    """Hold turns on one session, one after the other."""
    done: list[str] = []
    errors: list[str] = []
    took: list[float] = []
    with opened(url) as memory:
        memory.store.session("default", "one")
        time.sleep(max(0.0, begin - time.time()))
        number = 0
        while time.time() < begin + seconds:
            text, began = f"{process} {number}", time.monotonic()
            try:
                with memory.session("one").turn(text, timeout=60) as turn:
                    last = turn.request["messages"][-1]
                    turn.finish(f"reply to {last['content']}")
            except Exception as error:  # noqa: BLE001  # every kind is counted
                errors.append(f"{type(error).__name__}: {error}")
            else:
                done.append(text)
                took.append(time.monotonic() - began)
            number += 1
    results.put((done, errors, took, []))


def run(work: Callable[..., None], url: URL, seconds: float, processes: int) -> tuple[list[Any], list[str], list[float], list[float]]:
    """Run `work` in so many processes; what all of them did, what failed, how long each took, and each of the driver alone."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    begin = time.time() + 3
    started = [context.Process(target=work, args=(url, begin, seconds, number, results)) for number in range(processes)]
    for process in started:
        process.start()
    gathered = [results.get() for _ in started]
    for process in started:
        process.join()
    done, errors, took, raw = ([one for part in column for one in part] for column in zip(*gathered, strict=True))
    return done, errors, took, raw


def log_of(session: Session) -> list[tuple[str, str]]:
    entries, after = [], 0
    while page := session.entries(after=after, limit=1000):
        entries += [(entry.role, entry.message.text) for entry in page]
        after = page[-1].seq
    return entries


def report(errors: list[str], took: list[float], seconds: float, what: str) -> None:
    ordered = sorted(took)
    print(
        f"  {len(took)} {what}, {len(took) / seconds:.0f} a second; median {statistics.median(ordered) * 1000:.1f} ms, "
        f"99% {ordered[len(ordered) * 99 // 100] * 1000:.0f} ms, longest {ordered[-1] * 1000:.0f} ms; errors {len(errors)}"
    )
    for error in sorted(set(errors))[:5]:
        print(f"    {error}")


def check_appends(url: URL, acknowledged: list[tuple[str, str]]) -> None:
    """Each acknowledged append is present once, and each thread's are in its order."""
    stored: dict[str, list[str]] = {}
    with opened(url) as memory:
        for listed in memory.sessions(limit=1000):
            stored[listed.name] = [text for _, text in log_of(memory.session(listed.name))]
    assert sorted((name, text) for name, texts in stored.items() for text in texts) == sorted(acknowledged), "lost, doubled or made up"
    for texts in stored.values():
        numbers: dict[str, list[int]] = defaultdict(list)
        for text in texts:
            thread, number = text.split()
            numbers[thread].append(int(number))
        assert all(one == sorted(one) for one in numbers.values()), "out of order"
    print(f"  every acknowledged append is present once and in its thread's order: {len(acknowledged)} in {len(stored)} sessions")


def check_turns(url: URL, done: list[str]) -> None:
    """User, reply, user, reply …, each reply to the message before it."""
    with opened(url) as memory:
        log = log_of(memory.session("one"))
    for user, reply in zip(log[::2], log[1::2], strict=True):
        assert user[0] == "user", user
        assert reply == ("assistant", f"reply to {user[1]}"), (user, reply)
    assert sorted(text for role, text in log if role == "user") == sorted(done), "lost or doubled"
    print(f"  never interleaved: {len(done)} turns of user and reply")


def contend(where: str, seconds: float, processes: int) -> int:
    """Both loads on one database; how many calls failed."""
    with new_database(where) as url:
        raw = Raw(url)
        raw.make()
        raw.close()
        print(f"{name_of(url)}: {processes} processes x {THREADS} threads appending to {SESSIONS} sessions for {seconds:g} s")
        acknowledged, errors, took, raw_took = run(append_for, url, seconds, processes)
        report(errors, took, seconds, "appends")
        print(
            f"  the driver alone, in slices between: {len(raw_took) / seconds:.0f} a second, {len(raw_took) / len(took):.1f} times as many"
        )
        check_appends(url, acknowledged)
        print(f"{name_of(url)}: {processes} processes holding turns on ONE session for {seconds:g} s")
        done, turn_errors, took, _ = run(turn_for, url, seconds, processes)
        report(turn_errors, took, seconds, "turns")
        check_turns(url, done)
    return len(errors) + len(turn_errors)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    prepare(Message.user("what is slow at first"), TiktokenCounter("o200k_base"))  # before the processes are forked
    if sum(contend(where, seconds, processes) for where in sys.argv[3:] or answering()):
        sys.exit(1)


if __name__ == "__main__":
    main()
