"""One memory across forks and loops, many across processes: nothing is shared that must not be, nothing is lost or interleaves."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import coroutine
from typing import Any

import pytest
from conftest import echo

from threadkeep import AsyncMemory, AsyncSession, Budget, Event, Memory, Message, ScriptedBackend
from threadkeep.memory.async_turn import AsyncStream

BUDGET = Budget(4000, reply=500)

PREFORK = """
import os, sys
from sqlalchemy import text
from threadkeep import Budget, Memory, Message, ScriptedBackend, TiktokenCounter

url, used = sys.argv[1:]
TiktokenCounter("o200k_base").count(Message.user("Its vocabulary is loaded once, for all."))
CONNECTION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()", "sqlite": "SELECT 0"}
memory = Memory(url, backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500))

def connection():
    with memory.store.engine.connect() as connection:
        return connection.execute(text(CONNECTION[memory.store.engine.dialect.name])).scalar()

def work(name):
    os.write(1, f"{connection()} ".encode())  # all at once, whoever else writes
    for number in range(2):
        memory.session(f"of {name}").chat(f"{name} {number}")
        memory.session("of all").append(f"{name} {number}")

if used == "used":
    memory.session("of the parent").chat("before")
    connection()
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        work(f"child {number}")
        memory.close()
        sys.exit(0)
    children.append(child)
work("the parent")
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
work("the parent")
memory.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.parametrize("used", ["unused", "used"])
def test_workers_forked_from_a_parent_use_its_memory(any_url: str, used: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PREFORK, any_url, used]
    done = subprocess.run(command, check=True, timeout=100, stdout=subprocess.PIPE, text=True)
    connections = done.stdout.split()
    assert len(connections) == 6
    if not any_url.startswith("sqlite"):
        assert len(set(connections[:-1])) == 5, "a child uses its parent's connection"
    with Memory(any_url, backend=ScriptedBackend(echo), budget=BUDGET) as memory:
        log = [entry.message.text for entry in memory.session("of all").entries()]
        for name in ("child 0", "child 1", "child 2", "child 3", "the parent"):
            times = 2 if name == "the parent" else 1
            wanted = [f"{name} {number}" for number in range(2)] * times
            assert [text for text in log if text.startswith(name)] == wanted
            own = [entry.message.text for entry in memory.session(f"of {name}").entries() if entry.message.text != "before"]
            assert [text for text in own if text != "a reply"] == wanted


SPAWN = """
import multiprocessing, sys
from threadkeep import Budget, Memory, ScriptedBackend

def work(url, process):
    with Memory(url, backend=ScriptedBackend(lambda context: "reply to " + context.messages[-1]["content"]), budget=Budget(4000)) as memory:
        for number in range(3):
            memory.session("of all").chat(f"{process} {number}")

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(sys.argv[1], number)) for number in range(2)]
    for process in processes:
        process.start()
    work(sys.argv[1], 2)
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""


def test_processes_that_were_spawned_share_a_session(any_url: str, tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    subprocess.run([sys.executable, str(script), any_url], check=True, timeout=100)
    with Memory(any_url, backend=ScriptedBackend(echo), budget=BUDGET) as memory:
        log = [entry.message.text for entry in memory.session("of all").entries()]
    assert log[1::2] == [f"reply to {text}" for text in log[::2]]
    for process in range(3):
        assert [text for text in log[::2] if text.startswith(str(process))] == [f"{process} {number}" for number in range(3)]


# Event loops.


def test_one_loop_after_the_other_uses_a_memory(any_url: str) -> None:
    memory = AsyncMemory(any_url, backend=ScriptedBackend(echo), budget=BUDGET)
    for number in range(5):
        assert asyncio.run(memory.session("chat").chat(f"Hello {number}")).text == f"reply to Hello {number}"
    assert len(asyncio.run(memory.session("chat").entries())) == 10
    asyncio.run(memory.close())


def test_two_loops_in_two_threads_share_a_memory(any_url: str) -> None:
    memory = AsyncMemory(any_url, backend=ScriptedBackend(echo), budget=BUDGET)
    failed: list[BaseException] = []

    async def work(thread: int) -> None:
        replies = await asyncio.gather(*(memory.session(f"session {number}").chat(f"{thread} {number}") for number in range(10)))
        assert [reply.text for reply in replies] == [f"reply to {thread} {number}" for number in range(10)]

    def loop(thread: int) -> None:
        try:
            asyncio.run(work(thread))
        except BaseException as error:  # noqa: BLE001  # every kind is counted
            failed.append(error)

    threads = [threading.Thread(target=loop, args=(thread,)) for thread in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []

    async def check() -> None:
        for number in range(10):
            log = [entry.message.text for entry in await memory.session(f"session {number}").entries()]
            assert sorted(log[::2]) == [f"0 {number}", f"1 {number}"]
            assert log[1::2] == [f"reply to {text}" for text in log[::2]]
        await memory.close()

    asyncio.run(check())


# Cancelled at each await.


@coroutine
def cancelled(work: Generator[Any, Any, None], at: int) -> Generator[Any, Any, bool]:
    """Run, and cancel the task where it awaits for the so-manieth time; whether it awaited that often."""
    task = asyncio.current_task()
    assert task is not None
    answer, error, awaited = None, None, 0
    while True:
        try:
            waiting = work.send(answer) if error is None else work.throw(error)
        except StopIteration:
            return awaited >= at
        awaited += 1
        if awaited == at:
            task.cancel()
        answer, error = None, None
        try:
            answer = yield waiting
        except BaseException as thrown:  # noqa: BLE001  # the work is told
            error = thrown


async def own(session: AsyncSession) -> None:
    async with session.turn("Hello") as turn:
        await turn.append(Message.assistant("On the way."))
        await turn.draft("A")
        await turn.finish("A reply.")


async def streamed(session: AsyncSession) -> None:
    async with session.stream("Hello") as stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("work", [own, streamed])
def test_a_turn_cancelled_at_any_await_leaves_the_session_free(any_url: str, work: Any) -> None:
    async def attempt(memory: AsyncMemory, at: int) -> bool:
        """Whether the turn awaited so often."""
        session = memory.session(f"session {at}")
        try:
            reached = await cancelled(work(session).__await__(), at)
        except asyncio.CancelledError:
            reached = True
        pool: Any = memory.store.engine.pool
        assert pool.checkedout() == 0
        async with session.turn("next", timeout=0) as turn:
            await turn.finish("fine")
        texts = [entry.message.text for entry in await session.entries()]
        assert texts[-2:] == ["next", "fine"]
        assert texts[:-2] == [text for text in ("Hello", *texts[1:-2]) if texts[:-2]]
        return reached

    async def every() -> None:
        async with AsyncMemory(any_url, backend=ScriptedBackend(lambda _: "one two three"), budget=BUDGET) as memory:
            await memory.session("warm").chat("Hello")
            at = 1
            while await attempt(memory, at):
                at += 1
            assert at > 4

    asyncio.run(every())


def test_an_event_whose_await_was_cancelled_comes_at_the_next(url: str) -> None:
    async def impatient(stream: AsyncStream) -> list[str]:
        """Read as who says now and then that he is still there."""
        texts: list[str] = []
        while True:
            try:
                event: Event = await asyncio.wait_for(anext(stream), 0.01)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return texts
            texts.append(event.text)

    async def work() -> None:
        backend = ScriptedBackend(lambda _: "one two three", delay=0.05)
        async with AsyncMemory(url, backend=backend, budget=BUDGET) as memory:
            async with memory.session("chat").stream("Hello") as stream:
                assert await impatient(stream) == ["one ", "two ", "three", ""]
            assert stream.reply.text == "one two three"

    asyncio.run(work())
