"""What it costs to append one message: beside three raw statements, and at any length of the log.

`session.append("…")` counts, encodes and analyses a message of about 20 tokens, then writes it with its terms, moves the session's head and
says when it was used; it is on the disk when the call returns. The raw baseline reads the head, inserts the message and updates the head,
in one transaction on an open connection with the same settings, in another copy of the same database.

python benchmarks/append_cost.py [--most MESSAGES]
"""

import argparse
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack

from _common import OWNER, SESSION, copied, in_turn, median, memory_on, raw, session_of, text, verdict

ROUNDS = 200
READ = "SELECT head_seq, head_tokens, head_shown FROM threadkeep_branches WHERE owner_id = ? AND id = ?"
INSERT = (
    "INSERT INTO threadkeep_messages "
    "(owner_id, branch_id, seq, role, body, tokens, shown_tokens, cum_tokens, cum_shown, group_seq, turn_seq, status, created_us, exact) "
    "VALUES (?, ?, ?, 'user', ?, 20, 20, ?, ?, ?, ?, 'complete', ?, 1)"
)
UPDATE = "UPDATE threadkeep_branches SET head_seq = ?, head_tokens = ?, head_shown = ? WHERE owner_id = ? AND id = ?"


def appending(messages: int, rng: random.Random, stack: ExitStack) -> Callable[[], object]:
    """Appends one message to a copy of the session of so many."""
    memory = stack.enter_context(memory_on(stack.enter_context(copied(session_of(messages)))))
    session = memory.session(SESSION, owner=OWNER)
    return lambda: session.append(text(rng, 14, 16))


def three_statements(connection: sqlite3.Connection, rng: random.Random) -> Callable[[], object]:
    """The least that appending takes."""
    at = connection.execute("SELECT owner_id, id FROM threadkeep_branches").fetchone()

    def append() -> None:
        body = f'{{"role":"user","content":"{text(rng, 14, 16)}"}}'
        connection.execute("BEGIN IMMEDIATE")
        seq, tokens, shown = connection.execute(READ, at).fetchone()
        seq, tokens, shown = seq + 1, tokens + 20, shown + 20
        connection.execute(INSERT, (*at, seq, body, tokens, shown, seq, seq, time.time_ns() // 1000))
        connection.execute(UPDATE, (seq, tokens, shown, *at))
        connection.execute("COMMIT")

    return append


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000, help="messages of the longest session")
    given = parser.parse_args()
    rng = random.Random(7)
    with ExitStack() as stack:
        plain = stack.enter_context(raw(stack.enter_context(copied(session_of(1_000)))))
        short, long = appending(1_000, rng, stack), appending(given.most, rng, stack)
        least, little, much = map(median, in_turn(ROUNDS, three_statements(plain, rng), short, long, warm=20))
        print(f"  three raw statements: {least:.2f} ms; an append to 1,000 messages: {little:.2f} ms, to {given.most:,}: {much:.2f} ms")
        verdict("an append beside three raw statements", little / least, 20)
        verdict(f"an append to {given.most:,} messages beside one to 1,000", much / little, 1.5)


if __name__ == "__main__":
    main()
