"""How long is the event loop blocked by threadkeep? A ticker runs beside concurrent async turns, on a pool of five connections.

python benchmarks/loop_blocking.py [turns at once] [messages a session] [URL of a database without sessions; else SQLite, in a file]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

from sqlalchemy import Engine, create_engine

from threadkeep import AsyncMemory, Budget, Memory, ScriptedBackend, SQLStore, TiktokenCounter

TICK = 0.001
ROUNDS = 5
LIMIT = 30
"""Milliseconds."""
POOL = 5
"""Connections, and none beyond them."""
TEXT = "My order {} has not arrived yet, although you wrote that it would be here last week. Where is it, and who can I ask about it? "
REPLY = "I am sorry to hear that. It left our store on Monday and should reach you tomorrow; the number of the parcel is in your mail. " * 2


def filled(engine: Engine, sessions: int, messages: int) -> None:
    log = [
        message
        for number in range(messages // 2)
        for message in ({"role": "user", "content": TEXT.format(number)}, {"role": "assistant", "content": REPLY})
    ]
    SQLStore(engine).migrate()
    with Memory(engine, counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500)) as memory:
        for number in range(sessions):
            memory.session(f"session {number}").append(*log)


async def ticks(late: list[float]) -> None:
    """How late each tick comes, in milliseconds."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append((time.perf_counter() - began - TICK) * 1000)


async def chat(memory: AsyncMemory, name: str) -> None:
    async with memory.session(name).stream(TEXT.format(name)) as stream:
        async for _ in stream:
            pass


async def own_client(memory: AsyncMemory, name: str) -> None:
    async with memory.session(name).turn(TEXT.format(name)) as turn:
        await asyncio.sleep(0.05)
        await turn.finish(REPLY)


async def idle() -> None:
    await asyncio.sleep(2)


async def measure(what: str, *work: Coroutine[None, None, None]) -> tuple[float, int]:
    """How late ticks come while all of the work is done: the longest, in milliseconds; and how much of it failed."""
    late: list[float] = []
    ticker = asyncio.create_task(ticks(late))
    began = time.perf_counter()
    done = await asyncio.gather(*work, return_exceptions=True)
    took = time.perf_counter() - began
    ticker.cancel()
    ordered = sorted(late)
    errors = [error for error in done if isinstance(error, BaseException)]
    print(
        f"  {what}: late at most {ordered[-1]:.1f} ms, 99% {ordered[len(ordered) * 99 // 100]:.1f} ms, "
        f"median {statistics.median(ordered):.2f} ms ({len(late)} ticks in {took:.1f} s); errors {len(errors)}"
    )
    for error in sorted({f"{type(error).__name__}: {error}" for error in errors})[:5]:
        print(f"    {error}")
    return ordered[-1], len(errors)


async def run(engine: Engine, at_once: int) -> tuple[float, int]:
    """The longest that the loop was late, in milliseconds, and how many turns failed."""
    backend = ScriptedBackend(lambda _: REPLY, delay=0.02, counter=TiktokenCounter("o200k_base"))
    worst, failed = 0.0, 0
    names = [f"session {number}" for number in range(at_once)]
    async with AsyncMemory(engine, backend=backend, budget=Budget(4000, reply=500)) as memory:
        await measure("nothing at all", idle())
        for what, turn in (("streams of the backend", chat), ("turns of one's own client", own_client)):
            for _ in range(ROUNDS):
                late, errors = await measure(what, *(turn(memory, name) for name in names))
                worst, failed = max(worst, late), failed + errors
    return worst, failed


def main() -> None:
    at_once = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[3] if len(sys.argv) > 3 else f"sqlite:///{Path(folder) / 'chat.db'}"
        engine = create_engine(url, pool_size=POOL, max_overflow=0)
        filled(engine, at_once, messages)
        print(f"{at_once} async turns at once on {POOL} connections, sessions of {messages} messages, ticks of {TICK * 1000:g} ms")
        worst, failed = asyncio.run(run(engine, at_once))
        engine.dispose()
    print(f"  the loop was never late by more than {worst:.1f} ms (may be: {LIMIT} ms); errors {failed}")
    if worst > LIMIT or failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
