"""What branches cost: a fork of a short session and of a long one, and reading a turn whose message was answered anew a thousand times.

Beside a fork stands the least that a database can do for it: one row of SQLite's, written and synced. The fork lies in the middle of the
session; the session goes back before the next. The turn is `session.context("…")`, by a window and by the default strategy, which recalls.

python benchmarks/branching.py [--most MESSAGES] [--regenerations NUMBER]
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from _common import OWNER, SESSION, copied, in_turn, median, memory_on, raw, session_of, verdict

from threadkeep.memory.session import Session
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.default import default_strategy
from threadkeep.strategies.sliding_window import SlidingWindow

QUESTION = "And which of these tickets was for the train?"
ROUNDS = 100
SHORT = 1_000
FORK_MS = 5


def opened(path: Path, stack: ExitStack) -> Session:
    return stack.enter_context(memory_on(path)).session(SESSION, owner=OWNER)


def one_row(path: Path, stack: ExitStack) -> Callable[[], object]:
    """Writes a row of a few hundred bytes, by the standard library alone."""
    connection = stack.enter_context(raw(path))
    connection.execute("CREATE TABLE of_the_benchmark (id INTEGER PRIMARY KEY, lineage TEXT)")

    def write() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO of_the_benchmark (lineage) VALUES (?)", ("x" * 300,))
        connection.execute("COMMIT")

    return write


def forks(messages: int, stack: ExitStack) -> tuple[Callable[[], object], Callable[[], object], Callable[[], object]]:
    """A fork in the middle of a session of so many messages, the way back, and one row in the same file."""
    path = stack.enter_context(copied(session_of(messages)))
    session, numbers = opened(path, stack), count(1)
    return lambda: session.fork(f"fork {next(numbers)}", at=messages // 2), lambda: session.switch("main"), one_row(path, stack)


def answer_anew(session: Session, times: int) -> None:
    for _ in range(times):
        with session.turn(None) as turn:
            turn.finish("It was the ticket for the train to the harbour, at eleven.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=100_000, help="messages of the long session")
    parser.add_argument("--regenerations", type=int, default=1_000)
    given = parser.parse_args()
    with ExitStack() as stack:
        little, _, _ = short = forks(SHORT, stack)
        much, _, _ = long = forks(given.most, stack)
        times = dict(zip((*short, *long), map(median, in_turn(ROUNDS, *short, *long)), strict=True))
        row = times[long[2]]
        print(f"  a fork of {SHORT:,} messages: {times[little]:.2f} ms; of {given.most:,}: {times[much]:.2f} ms; one row: {row:.2f} ms")
        verdict(f"a fork of {given.most:,} messages, in ms", times[much], FORK_MS)
        verdict(f"a fork of {given.most:,} messages beside one of {SHORT:,}", times[much] / times[little], 1.5)
        print(f"  a fork beside one row written by sqlite3: {times[much] / row:.2f}")
    with ExitStack() as stack:
        before = opened(stack.enter_context(copied(session_of(10 * SHORT))), stack)
        after = opened(stack.enter_context(copied(session_of(10 * SHORT))), stack)
        answer_anew(before, 1)
        answer_anew(after, given.regenerations)
        kinds: tuple[tuple[str, Strategy], ...] = (("a window", SlidingWindow(step=0.01)), ("the default strategy", default_strategy()))
        for name, strategy in kinds:

            def read(session: Session, strategy: Strategy = strategy) -> Callable[[], object]:
                return lambda: session.context(QUESTION, strategy=strategy)

            first, last = map(median, in_turn(ROUNDS, read(before), read(after)))
            print(f"  {name}, answered once: {first:.2f} ms; {given.regenerations:,} times: {last:.2f} ms")
            verdict(f"a turn by {name} after {given.regenerations:,} regenerations beside one before", last / first, 1.5)
        anew = [median(found) for found in in_turn(ROUNDS, lambda: answer_anew(before, 1), lambda: answer_anew(after, 1))]
        print(f"  an answer anew, the first hundred: {anew[0]:.2f} ms; behind {given.regenerations:,}: {anew[1]:.2f} ms")


if __name__ == "__main__":
    main()
