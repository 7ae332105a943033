"""What the benchmarks share: made-up conversations, databases of any length, and timing of two things in turn.

A database is built once and kept in the machine's temporary folder, named by what is in it; `forget()` deletes all of them.
"""

import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.budget import Budget
from threadkeep.memory.holder import is_dead
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import Message
from threadkeep.memory.setup import Setup
from threadkeep.stores.engine import BUSY_MS
from threadkeep.stores.rows import Vector
from threadkeep.stores.sql import SQLStore
from threadkeep.strategies.sliding_window import SlidingWindow

KEPT = Path(tempfile.gettempdir()) / "threadkeep-benchmarks"
OWNER, SESSION = "ada", "long"
BATCH = 2_000
MODEL, DIMENSIONS = "random", 384
WORDS = (
    "train ticket order window garden letter market river winter summer doctor coffee number street planet camera bottle kitchen island "
    "music paper silver yellow orange purple simple gentle sudden bitter narrow forest harbour engine pencil basket candle mirror pocket "
    "ladder button carpet castle desert dinner dragon feather finger flower guitar hammer jacket jungle kettle lantern lemon lesson magnet "
    "meadow monkey needle oven parcel pepper picnic pillow pirate plate potato puzzle rabbit ribbon rocket saddle sandal school shadow "
    "shelter signal singer spider spring stable statue storm supper sweater table temple thunder ticket timber towel tunnel turtle valley "
    "velvet village violin wagon walnut whistle wizard wonder zebra"
).split()


def text(rng: random.Random, least: int, most: int) -> str:
    """A made-up sentence of so many words, about a token each."""
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most))) + f" {rng.randrange(1000)}."


def conversation(rng: random.Random, count: int, *, words: tuple[int, int]) -> list[Message]:
    """User and assistant in turn."""
    return [(Message.assistant if at % 2 else Message.user)(text(rng, *words)) for at in range(count)]


def session_of(messages: int) -> Path:
    """A database with one session of so many messages of 10 to 30 tokens, written by the store's own append.

    The same 2,000 messages come again and again: counted and analysed once, since reading does not mind.
    """
    return _built(f"session-{messages}", {SESSION: messages}, vectors=False)


def embedded(sessions: int, messages: int) -> Path:
    """A database with so many sessions of one owner, of so many messages each with a random vector under the name `MODEL`."""
    names = [SESSION, *(f"session {number}" for number in range(1, sessions))]
    return _built(f"embedded-{sessions}-{messages}", dict.fromkeys(names, messages), vectors=True)


def _built(folder: str, sessions: Mapping[str, int], *, vectors: bool) -> Path:
    path = KEPT / folder / "chat.db"
    if path.exists():
        return path
    building = path.parent.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    store = SQLStore(f"sqlite:///{building / 'chat.db'}")
    setup = Setup(store, None, None, Budget(4096), TiktokenCounter("o200k_base"), None, None, upkeep=False)
    most = max(sessions.values())
    prepared = [setup.prepare(message) for message in conversation(random.Random(7), min(most, BATCH), words=(8, 22))]
    rng = np.random.default_rng(7)
    for name, messages in sessions.items():
        for done in range(0, messages, BATCH):
            batch = prepared[: messages - done]
            if vectors:
                made = random_vectors(rng, len(batch))
                batch = [replace(one, vector=Vector(MODEL, vector.tobytes())) for one, vector in zip(batch, made, strict=True)]
            store.append(OWNER, name, batch, key=None, tokenizer=setup.counting.name, is_dead=is_dead, settle_draft=setup.prepare_draft)
    store.close()
    building.rename(path.parent)
    return path


def random_vectors(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    """Vectors of length 1 as they are stored, shape (count, DIMENSIONS)."""
    made = rng.standard_normal((count, DIMENSIONS))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype("<f2")


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """A copy that may be written to, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        yield Path(shutil.copy(path, folder))


def memory_on(path: Path, window: int = 4096) -> Memory:
    """A memory without a model on a database, counting as OpenAI's models do."""
    return Memory(f"sqlite:///{path}", budget=Budget(window), counter=TiktokenCounter("o200k_base"), strategy=SlidingWindow())


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the standard library's, set as the store sets its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (f"busy_timeout = {BUSY_MS}", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        yield connection


def in_turn(rounds: int, *measured: Callable[[], object], warm: int = 3) -> list[list[float]]:
    """Milliseconds of each call in each round, the things called one after another, so that all suffer alike from what else runs."""
    times: list[list[float]] = [[] for _ in measured]
    for at in range(warm + rounds):
        for call, kept in zip(measured, times, strict=True):
            began = time.perf_counter()
            call()
            took = (time.perf_counter() - began) * 1000
            if at >= warm:
                kept.append(took)
    return times


def median(times: Sequence[float]) -> float:
    return statistics.median(times)


def verdict(name: str, ratio: float, bound: float, *, least: bool = False) -> None:
    """One line: a figure beside its bound."""
    met = ratio >= bound if least else ratio <= bound
    print(f"  {name}: {ratio:.3g} ({'at least' if least else 'at most'} {bound:g}: {'met' if met else 'MISSED'})")


def forget() -> None:
    """Delete the kept databases."""
    shutil.rmtree(KEPT, ignore_errors=True)
