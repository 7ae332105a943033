"""What a big database costs beside a small one: a whole turn, pages of sessions, recall over all sessions of an owner, deletion.

On SQLite and on every database server that answers on this machine (tests/databases.py), in databases of its own. A turn is begun, its
context assembled by a sliding window, and a reply finished, in transactions that are safe on disk; no model is asked. Two places are
measured in turn, round by round: a session of 1,000 messages and one of 1,000,000; a session in a database of 10 sessions of one owner, and
one in a database of 100,000. The rows are copies that the database itself makes of what the store has written (tests/cloning.py).

python benchmarks/scale.py [--messages 1000000] [--sessions 100000] [--rounds 60] [--whole-owner] [--kinds sqlite …]
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from _common import KEPT, conversation, in_turn, median, verdict

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import random
import resource

import cloning
import databases

from threadkeep import Budget, Memory, Recall, Session, SlidingWindow, TiktokenCounter
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.stores.index_cache import cache
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.schema import terms

QUESTION = "And which of these tickets was for the train?"
BOUND = 1.3
SHORT = 100
"""Messages of the sessions beside: so many that a window of 1,000 tokens is full."""


def row(memory: Memory, name: str) -> SessionRow:
    found = memory.store.session("ada", name)
    assert found is not None
    return found


def opened(url: str, **more: object) -> Memory:
    return Memory(url, budget=Budget(1024, reply=100), counter=TiktokenCounter("o200k_base"), strategy=SlidingWindow(step=0.05), **more)  # type: ignore[arg-type]


@contextmanager
def database(kind: str, name: str) -> Iterator[str]:
    """An empty one, gone afterwards."""
    if kind == "sqlite":
        path = KEPT / f"scale-{name}.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
        yield f"sqlite:///{path}"
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
    else:
        url = databases.new_database(kind)  # type: ignore[arg-type]
        yield url.render_as_string(hide_password=False)
        server = databases.server(kind)  # type: ignore[arg-type]
        assert not isinstance(server, str)
        databases.drop_database(server, str(url.database))


def write(memory: Memory, name: str, messages: int) -> Session:
    session = memory.session(name, owner="ada")
    said = conversation(random.Random(7), messages, words=(8, 22))
    session.append(*said[:-2])
    with session.turn(str(said[-2].text)) as turn:
        turn.finish(str(said[-1].text))
    return session


def turn_in(session: Session) -> Callable[[], None]:
    """A whole turn, its session not growing beside the others': each call is a turn more in all of them."""

    def one() -> None:
        with session.turn(QUESTION) as turn:
            assert turn.request
            turn.finish("The one in the basket.")

    return one


def compare(kind: str, sessions: list[Session], rounds: int, what: str) -> None:
    little, much = map(median, in_turn(rounds, *map(turn_in, sessions)))
    print(f"  {what}: {little:.2f} ms and {much:.2f} ms")
    verdict(f"{kind}: a turn, {what}", much / little, BOUND)


def lengths(kind: str, messages: int, rounds: int) -> None:
    with ExitStack() as stack:
        memory = stack.enter_context(opened(stack.enter_context(database(kind, "lengths"))))
        memory.store.migrate()
        short, long = write(memory, "short", 1000), write(memory, "long", 1000)
        began = time.perf_counter()
        with memory.store.engine.begin() as connection:
            cloning.draw_out(
                connection, row(memory, "long"), messages // 1000, without=[terms]
            )  # ten rows a message that no turn here reads
        settle(memory)
        print(f"  {row(memory, 'long').head.seq:,} messages in {time.perf_counter() - began:.0f} s")
        compare(kind, [short, long], rounds, f"1,000 messages and {messages:,} in the session")


def crowds(kind: str, sessions: int, rounds: int, *, whole_owner: bool) -> None:
    with ExitStack() as stack:
        small = stack.enter_context(opened(stack.enter_context(database(kind, "few"))))
        large = stack.enter_context(opened(stack.enter_context(database(kind, "many"))))
        chats = []
        for memory, count in ((small, 10), (large, sessions)):
            memory.store.migrate()
            chats.append(write(memory, "chat", SHORT))
            with opened(
                str(memory.store.engine.url.render_as_string(hide_password=False)), embedder=HashedEmbedder(), upkeep=False
            ) as embedding:
                other = embedding.session("other", owner="ada")
                with other.turn("Where is the ticket?") as turn:
                    turn.finish("In the basket of the train.")
                other.upkeep()
            began = time.perf_counter()
            with memory.store.engine.begin() as connection:
                cloning.copy_session(connection, row(memory, "other"), count - 2)
            settle(memory)
            print(f"  {count:,} sessions in {time.perf_counter() - began:.0f} s")
        compare(kind, chats, rounds, f"10 sessions and {sessions:,} of the owner in the database")
        pages = [lambda memory=memory: memory.sessions(owner="ada", limit=10) for memory in (small, large)]
        little, much = map(median, in_turn(rounds, *pages))  # type: ignore[arg-type]
        print(f"  a page of 10 sessions: {little:.2f} ms and {much:.2f} ms")
        verdict(f"{kind}: a page of sessions, 10 and {sessions:,}", much / little, BOUND)
        if whole_owner:
            look_over(large, chats[1])


def look_over(memory: Memory, chat: Session) -> None:
    """What reads or deletes all that an owner has."""
    url = memory.store.engine.url.render_as_string(hide_password=False)
    with opened(url, embedder=HashedEmbedder(), upkeep=False) as embedding:
        asked = embedding.session(chat.name, owner="ada")
        for state in ("cold", "warm", "after another message"):
            if state == "after another message":
                asked.append("One more about a train.")
            timed(f"recall over all sessions, {state}", lambda: asked.context(QUESTION, strategy=Recall(scope="owner")))
        print(f"    the index holds {cache.nbytes / 2**20:,.0f} MiB")
    timed("usage() of the owner", lambda: memory.usage(owner="ada"))
    with opened(url, embedder=HashedEmbedder(), upkeep=False) as embedding:
        timed(
            "looking through all sessions for what upkeep has to do",
            lambda: embedding._setup.upkeep.jobs.count_behind(["embed:hashed-words-256"], "ada"),
        )
    timed("delete_owner()", lambda: memory.delete_owner("ada"))


def timed(what: str, call: Callable[[], object]) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    call()
    took = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"    {what}: {took:.2f} s; the process took {grown:,.0f} MiB more than ever before", flush=True)


def settle(memory: Memory) -> None:
    """As after some minutes on a server that looks after itself: what was copied is counted, and written out."""
    engine = memory.store.engine
    if engine.dialect.name != "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("VACUUM ANALYZE")
                connection.exec_driver_sql("CHECKPOINT")
            else:
                cloning.analyse(connection)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="of the long session")
    parser.add_argument("--sessions", type=int, default=100_000, help="of the large database")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--kinds", nargs="*", default=["sqlite", *databases.KINDS], help="of databases")
    parser.add_argument("--whole-owner", action="store_true", help="also what reads and deletes all that an owner has")
    given = parser.parse_args()
    for kind in given.kinds:
        if kind != "sqlite" and isinstance(why := databases.server(kind), str):
            print(f"{kind}: not measured, {why}")
            continue
        print(kind)
        lengths(kind, given.messages, given.rounds)
        crowds(kind, given.sessions, given.rounds, whole_owner=given.whole_owner)


if __name__ == "__main__":
    main()
