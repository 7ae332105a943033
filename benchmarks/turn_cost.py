"""What assembling one turn's context costs: beside reading and decoding the same rows with nothing but sqlite3, and at any length.

A budget of 4,096 tokens, tiktoken's counter, sessions of messages of 10 to 30 tokens. The measured call is `session.context("…")`: the new
message counted, session, turn and window read, everything counted, decided on and recorded. The raw statement is the index's own, on an
open connection with the same settings. Building the session of a million messages takes minutes and a gigabyte, once.

python benchmarks/turn_cost.py [--most MESSAGES] [--profile] [--forget]
"""

import argparse
import cProfile
import json
import pstats
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack

from _common import OWNER, SESSION, forget, in_turn, median, memory_on, raw, session_of, verdict

from threadkeep.memory.session import Session
from threadkeep.strategies.sliding_window import SlidingWindow

QUESTION = "And which of these tickets was for the train?"
ROUNDS = 200
ROWS = (
    "SELECT seq, body, tokens, shown_tokens, cum_tokens, cum_shown, group_seq, turn_seq, status, created_us, key, metadata "
    "FROM threadkeep_messages WHERE owner_id = ? AND branch_id = ? AND cum_shown > ? ORDER BY cum_shown, seq"
)


def opened(messages: int, stack: ExitStack) -> tuple[Session, sqlite3.Connection]:
    """A session of so many messages, through threadkeep and through sqlite3."""
    path = session_of(messages)
    memory = stack.enter_context(memory_on(path))
    return memory.session(SESSION, owner=OWNER), stack.enter_context(raw(path))


def same_rows(session: Session, connection: sqlite3.Connection) -> Callable[[], list[object]]:
    """Reads and decodes the rows of the session's context."""
    context = session.context(QUESTION)
    first = next(decision.first for decision in context.decisions if decision.verdict == "kept")
    at = "SELECT owner_id, branch_id, cum_shown - shown_tokens FROM threadkeep_messages WHERE seq = ?"
    values = connection.execute(at, (first,)).fetchone()

    def read() -> list[object]:
        return [json.loads(row[1]) for row in connection.execute(ROWS, values).fetchall()]

    assert read() == context.messages[:-1]
    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000, help="messages of the longest session")
    parser.add_argument("--profile", action="store_true", help="say where the time of a context goes")
    parser.add_argument("--forget", action="store_true", help="delete the kept databases and end")
    given = parser.parse_args()
    if given.forget:
        forget()
        return
    with ExitStack() as stack:
        session, connection = opened(10_000, stack)
        read = same_rows(session, connection)
        if given.profile:
            profile(session)
            return
        ours, theirs = map(median, in_turn(ROUNDS, lambda: session.context(QUESTION), read))
        context = session.context(QUESTION)
        print(f"  10,000 messages, {len(context.messages)} in the context, {context.tokens} tokens: {ours:.2f} ms; raw {theirs:.2f} ms")
        verdict("a context beside raw sqlite3 and json", ours / theirs, 4)
        short, _ = opened(1_000, stack)
        long, _ = opened(given.most, stack)
        full = SlidingWindow(step=0.01)  # both windows equally full, wherever the logs end
        little, much = map(
            median, in_turn(ROUNDS, lambda: short.context(QUESTION, strategy=full), lambda: long.context(QUESTION, strategy=full))
        )
        print(f"  1,000 messages: {little:.2f} ms; {given.most:,}: {much:.2f} ms")
        verdict(f"a context of {given.most:,} messages beside one of 1,000", much / little, 1.3)


def profile(session: Session) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(ROUNDS):
        session.context(QUESTION)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
