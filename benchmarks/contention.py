"""Eight processes at one SQLite file: appends of 32 threads to 16 sessions, then turns on ONE session. Nothing may fail, be lost or mix.

python benchmarks/contention.py [seconds] [processes]
"""

import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from threadkeep import Budget, Memory, Session, TiktokenCounter

THREADS, SESSIONS = 4, 16


def opened(url: str) -> Memory:
    return Memory(url, counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500))


def append_for(
    url: str, seconds: float, process: int, results: "multiprocessing.Queue[tuple[list[tuple[str, str]], list[str], list[float]]]"
) -> None:
    """Append from several threads; say what was acknowledged, in order, what failed and how long each took."""
    acknowledged: list[tuple[str, str]] = []
    errors: list[str] = []
    took: list[float] = []
    with opened(url) as memory:

        def work(thread: int) -> None:
            rng, number, end = random.Random(f"{process} {thread}"), 0, time.monotonic() + seconds
            while time.monotonic() < end:
                name, text, began = f"session {rng.randrange(SESSIONS)}", f"{process}.{thread} {number}", time.monotonic()
                try:
                    memory.session(name).append(text)
                except Exception as error:  # noqa: BLE001  # every kind is counted
                    errors.append(f"{type(error).__name__}: {error}")
                else:
                    acknowledged.append((name, text))
                    took.append(time.monotonic() - began)
                number += 1

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    results.put((acknowledged, errors, took))


def turn_for(url: str, seconds: float, process: int, results: "Queue[tuple[list[str], list[str], list[float]]]") -> None:
    """Hold turns on one session, one after the other."""
    done: list[str] = []
    errors: list[str] = []
    took: list[float] = []
    number, end = 0, time.monotonic() + seconds
    with opened(url) as memory:
        while time.monotonic() < end:
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
    results.put((done, errors, took))


def run(work: Callable[..., None], url: str, seconds: float, processes: int) -> tuple[list[Any], list[str], list[float]]:
    """Run `work` in so many processes; what all of them did, what failed and how long each took."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    started = [context.Process(target=work, args=(url, seconds, number, results)) for number in range(processes)]
    for process in started:
        process.start()
    gathered = [results.get() for _ in started]
    for process in started:
        process.join()
    done, errors, took = ([one for part in column for one in part] for column in zip(*gathered, strict=True))
    return done, errors, took


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


def check_appends(url: str, acknowledged: list[tuple[str, str]]) -> None:
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


def check_turns(url: str, done: list[str]) -> None:
    """User, reply, user, reply …, each reply to the message before it."""
    with opened(url) as memory:
        log = log_of(memory.session("one"))
    for user, reply in zip(log[::2], log[1::2], strict=True):
        assert user[0] == "user", user
        assert reply == ("assistant", f"reply to {user[1]}"), (user, reply)
    assert sorted(text for role, text in log if role == "user") == sorted(done), "lost or doubled"
    print(f"  never interleaved: {len(done)} turns of user and reply")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'chat.db'}"
        print(f"{processes} processes x {THREADS} threads appending to {SESSIONS} sessions for {seconds:g} s")
        acknowledged, errors, took = run(append_for, url, seconds, processes)
        report(errors, took, seconds, "appends")
        check_appends(url, acknowledged)
        print(f"{processes} processes holding turns on ONE session for {seconds:g} s")
        done, turn_errors, took = run(turn_for, url, seconds, processes)
        report(turn_errors, took, seconds, "turns")
        check_turns(url, done)
    if errors or turn_errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
