"""How long is the event loop blocked by threadkeep? A ticker runs beside concurrent async turns of sessions with 500 messages.

python benchmarks/loop_blocking.py [turns at once] [messages a session]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

from threadkeep import AsyncMemory, Budget, Memory, ScriptedBackend, TiktokenCounter

TICK = 0.001
ROUNDS = 5
LIMIT = 30
"""Milliseconds."""
TEXT = "My order {} has not arrived yet, although you wrote that it would be here last week. Where is it, and who can I ask about it? "
REPLY = "I am sorry to hear that. It left our store on Monday and should reach you tomorrow; the number of the parcel is in your mail. " * 2


def filled(url: str, sessions: int, messages: int) -> None:
    log = [
        message
        for number in range(messages // 2)
        for message in ({"role": "user", "content": TEXT.format(number)}, {"role": "assistant", "content": REPLY})
    ]
    with Memory(url, counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500)) as memory:
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


async def measure(what: str, *work: Coroutine[None, None, None]) -> float:
    """How late ticks come while all of the work is done; the longest, in milliseconds."""
    late: list[float] = []
    ticker = asyncio.create_task(ticks(late))
    began = time.perf_counter()
    await asyncio.gather(*work)
    took = time.perf_counter() - began
    ticker.cancel()
    ordered = sorted(late)
    print(
        f"  {what}: late at most {ordered[-1]:.1f} ms, 99% {ordered[len(ordered) * 99 // 100]:.1f} ms, "
        f"median {statistics.median(ordered):.2f} ms ({len(late)} ticks in {took:.1f} s)"
    )
    return ordered[-1]


async def run(url: str, at_once: int) -> float:
    """The longest that the loop was late, in milliseconds."""
    backend = ScriptedBackend(lambda _: REPLY, delay=0.02, counter=TiktokenCounter("o200k_base"))
    worst = 0.0
    names = [f"session {number}" for number in range(at_once)]
    async with AsyncMemory(url, backend=backend, budget=Budget(4000, reply=500)) as memory:
        await measure("nothing at all", idle())
        for _ in range(ROUNDS):
            worst = max(worst, await measure("streams of the backend", *(chat(memory, name) for name in names)))
        for _ in range(ROUNDS):
            worst = max(worst, await measure("turns of one's own client", *(own_client(memory, name) for name in names)))
    return worst


def main() -> None:
    at_once = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'chat.db'}"
        filled(url, at_once, messages)
        print(f"{at_once} async turns at once, sessions of {messages} messages, ticks of {TICK * 1000:g} ms")
        worst = asyncio.run(run(url, at_once))
    print(f"  the loop was never late by more than {worst:.1f} ms (may be: {LIMIT} ms)")
    if worst > LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
