"""What recall adds to a context: warm, when this process has seen the log before, and cold, when it reads the log's columns and vectors.

Sessions of messages of 10 to 30 tokens, each with a random vector of 384 dimensions, tiktoken's counter, a budget of 4,096 tokens. Compared
is `session.context("…")` with a window that leaves a quarter to recall against the same with the window alone, one after the other. The
question's vector is at hand: embedding it comes on top. Building the databases takes minutes and 300 megabytes, once.

python benchmarks/recall_cost.py [--profile]
"""

import argparse
import cProfile
import pstats
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from _common import DIMENSIONS, MODEL, OWNER, SESSION, embedded, in_turn, median, random_vectors, verdict

from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.budget import Budget
from threadkeep.memory.index import Scope
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import Message
from threadkeep.memory.session import Session
from threadkeep.stores.index_cache import cache
from threadkeep.strategies.compose import Compose
from threadkeep.strategies.recall import Recall
from threadkeep.strategies.sliding_window import SlidingWindow

QUESTION = "And which of these tickets was for the train along the river, in winter?"
TERMS = ("ticket", "train", "river", "winter")
WARM, COLD = 40, 5
SESSIONS, IN_EACH = 500, 40


class AtHand:
    """An embedder that has every text's vector ready."""

    name = MODEL

    def __init__(self) -> None:
        self._vector = random_vectors(np.random.default_rng(1), 1).astype(np.float32)

    def embed(self, texts: list[str]) -> Any:
        return np.broadcast_to(self._vector, (len(texts), DIMENSIONS))


def opened(path: Path, stack: ExitStack) -> Session:
    counter = TiktokenCounter("o200k_base")
    memory = Memory(f"sqlite:///{path}", budget=Budget(4096), counter=counter, embedder=AtHand(), upkeep=False)
    return stack.enter_context(memory).session(SESSION, owner=OWNER)


def forgetting(call: Callable[[], object]) -> Callable[[], object]:
    """The call in a process that has not seen the log."""

    def forgotten() -> object:
        for database in {key[0] for key in cache._held}:
            cache.forget(database)
        return call()

    return forgotten


def read(session: Session, scope: Scope) -> Callable[[], object]:
    """The index and some postings alone, for a question that comes next."""
    setup = session._setup
    prepared = setup.embed(setup.prepare(Message.user(QUESTION)))

    def look() -> object:
        with setup.store.history(OWNER, SESSION, prepared, model=MODEL) as (history, _, _):
            return history.index(scope).lookup.postings(TERMS)

    return look


def measure(name: str, session: Session, scope: Scope, warm: float, cold: float | None) -> None:
    recalling = Compose(SlidingWindow(), Recall(scope=scope, floor=0), shares=(0.75, 0.25))

    def with_recall() -> object:
        return session.context(QUESTION, strategy=recalling)

    def alone() -> object:
        return session.context(QUESTION, strategy=SlidingWindow())

    recalled = sum(pick.kind == "excerpt" for pick in session.context(QUESTION, strategy=recalling).picks)
    assert recalled, "nothing was recalled: the figures would say nothing"
    look = read(session, scope)
    again, anew = median(in_turn(WARM, look)[0]), median(in_turn(COLD, forgetting(look), warm=1)[0])
    print(f"  {name}: index and postings {again:.2f} ms, {anew:.0f} ms cold; {recalled} recalled")
    ours, theirs = map(median, in_turn(WARM, with_recall, alone))
    print(f"    a context {ours:.2f} ms, without recall {theirs:.2f} ms")
    verdict(f"  {name}: recall adds, in ms", ours - theirs, warm)
    if cold is not None:
        ours, theirs = map(median, in_turn(COLD, forgetting(with_recall), alone, warm=1))
        verdict(f"  {name}: recall adds, cold, in ms", ours - theirs, cold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true", help="say where the time of a warm context of 100,000 messages goes")
    given = parser.parse_args()
    with ExitStack() as stack:
        if given.profile:
            profile(opened(embedded(1, 100_000), stack))
            return
        measure("2,000 messages", opened(embedded(1, 2_000), stack), "session", 6, 25)
        measure(f"{SESSIONS} sessions of one owner", opened(embedded(SESSIONS, IN_EACH), stack), "owner", 60, None)
        measure("100,000 messages", opened(embedded(1, 100_000), stack), "session", 40, 500)


def profile(session: Session) -> None:
    recalling = Compose(SlidingWindow(), Recall(floor=0), shares=(0.75, 0.25))
    session.context(QUESTION, strategy=recalling)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(10):
        session.context(QUESTION, strategy=recalling)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
