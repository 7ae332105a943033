"""The async twins: cancelled awaits leave nothing open, many turns share few connections, and the loop is not held up."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from conftest import echo
from sqlalchemy import create_engine, event

from threadkeep import (
    AsyncMemory,
    AsyncSession,
    Budget,
    Conflict,
    Context,
    History,
    LeaseLost,
    Message,
    Pick,
    ScriptedBackend,
    SlidingWindow,
    TiktokenCounter,
    ToolCall,
)
from threadkeep.memory.tokens import Count

BUDGET = Budget(4000, reply=500)


def run(work: Callable[[AsyncMemory], Awaitable[None]], url: str, backend: ScriptedBackend | None = None) -> None:
    """Run with an async memory in a loop of its own."""

    async def opened() -> None:
        async with AsyncMemory(url, backend=backend or ScriptedBackend(echo), budget=BUDGET) as memory:
            await work(memory)

    asyncio.run(opened())


class SlowReplies(TiktokenCounter):
    """Takes its time with what an assistant says."""

    def count(self, message: Message) -> Count:
        if message.role == "assistant":
            time.sleep(0.05)
        return super().count(message)


async def listen(session: AsyncSession, delivered: list[str], heard: asyncio.Event) -> None:
    """Note what is delivered, and from the second piece on that something was."""
    async with session.stream("Hello") as stream:
        async for event in stream:
            if delivered:
                heard.set()
            delivered += [event.text]


async def said(session: AsyncSession) -> list[tuple[str, str, str]]:
    return [(entry.role, entry.message.text, entry.status) for entry in await session.entries(limit=10_000)]


def test_the_twins_do_what_the_others_do(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat", owner="ada")
        await session.append("one", "two", key="k", metadata={"a": 1})
        assert (await session.append("one", "two", key="k", metadata={"a": 1}))[0].metadata == {"a": 1}
        assert await session.append() == []
        await session.pin(1)
        reply = await session.chat("three", key="c")
        assert (await session.chat("three", key="c")).message == reply.message
        async with session.stream("four") as stream:
            words = [event.text async for event in stream]
        assert "".join(words) == stream.text == stream.reply.text == "reply to four"
        assert [message["content"] for message in (await session.context("five")).messages][-1] == "five"
        assert (await session.context(as_of=2)).messages == stream.context.messages
        assert [call.turn_id for call in await session.calls()] == [1, 2]
        assert [listed.name for listed in await memory.sessions(owner="ada")] == ["chat"]
        await memory.session("gone", owner="ada").append("x")
        await memory.session("gone", owner="ada").delete()
        assert await memory.delete_owner("ada") == 1
        assert repr(session) == "AsyncSession('chat', owner='ada')"

    run(work, url)


def test_a_turn_of_ones_own_client(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        async with session.turn("Where is it?", key="k") as turn:
            assert (turn.id, turn.user.message.text, turn.reply) == (1, "Where is it?", None)
            await turn.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("in bed", tool_call_id="a"))
            assert [message["role"] for message in turn.messages] == ["user", "assistant", "tool"]
            assert turn.request["messages"] == turn.context.messages
            await turn.draft("In")
            assert (await turn.finish("In bed.")).seq == 4
        assert [message["role"] for message in (await session.context(as_of=turn)).messages] == ["user", "assistant", "tool"]
        async with session.turn("Where is it?", key="k") as again:
            assert again.reply is not None
            assert again.reply.text == "In bed."
        async with session.turn("left", timeout=0):
            with pytest.raises(Conflict):
                async with session.turn("another", timeout=0):
                    pass
            with pytest.raises(Conflict):
                await session.append("aside", timeout=0.01)
        assert (await said(session))[-1] == ("user", "left", "complete")

    run(work, url)


def test_leaving_a_stream_early_stores_exactly_what_was_delivered(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        async with session.stream("Hello") as stream:
            async for event in stream:
                assert event.text == "one "
                break
        assert stream.reply.status == "interrupted"
        assert await said(session) == [("user", "Hello", "complete"), ("assistant", "one ", "interrupted")]
        async with session.stream("unread"):
            pass
        assert (await said(session))[2:] == [("user", "unread", "complete")]
        with pytest.raises(Conflict):
            await anext(session.stream("not open"))

    run(work, url, ScriptedBackend(lambda _: "one two three"))


def test_a_cancelled_stream_stores_what_was_delivered_and_frees_the_session(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        delivered: list[str] = []
        heard = asyncio.Event()
        task = asyncio.create_task(listen(session, delivered, heard))
        await heard.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await said(session))[1] == ("assistant", "".join(delivered), "interrupted")
        async with session.turn("next", timeout=0):
            pass

    run(work, url, ScriptedBackend(lambda _: "one two three four five six", delay=0.1))


@pytest.mark.parametrize("error", [RuntimeError("the model failed"), ZeroDivisionError()])
def test_a_failing_model_is_heard_of_and_the_session_is_free(url: str, error: Exception) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        with pytest.raises(type(error)):
            await session.chat("Hello")
        assert (await session.chat("again", timeout=0)).text == "fine"

    run(work, url, ScriptedBackend([error, "fine"]))


def test_turns_cancelled_at_any_moment_leave_no_lease_and_no_connection(url: str) -> None:
    async def turn(session: AsyncSession) -> None:
        async with session.turn("Hello") as held:
            await held.append(Message.assistant("on the way"))
            await held.finish("a reply")

    async def work(memory: AsyncMemory) -> None:
        pool = memory.store.engine.pool
        await memory.session("warm").chat("Hello")
        for number in range(60):
            session = memory.session(f"session {number}")
            task = asyncio.create_task(turn(session))
            await asyncio.sleep(number * 0.0004)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
            async with session.turn("next", timeout=0) as after:
                await after.finish("fine")

    run(work, url)


def test_a_cancelled_finish_is_finished_all_the_same(url: str) -> None:
    async def turn(session: AsyncSession, at_finish: asyncio.Event) -> None:
        async with session.turn("Hello", key="k") as held:
            at_finish.set()
            await held.finish("a reply")

    async def work(memory: AsyncMemory) -> None:
        for number in range(4):
            session, at_finish = memory.session(f"session {number}"), asyncio.Event()
            task = asyncio.create_task(turn(session, at_finish))
            await at_finish.wait()
            await asyncio.sleep(number * 0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await said(session) == [("user", "Hello", "complete"), ("assistant", "a reply", "complete")]

    run(work, url, ScriptedBackend(echo, counter=SlowReplies("o200k_base")))


def test_a_turn_cancelled_again_and_again_is_given_back(url: str) -> None:
    async def turn(session: AsyncSession) -> None:
        async with session.turn("Hello") as held:
            await held.append(Message.assistant("on the way"))
            await asyncio.sleep(60)

    async def work(memory: AsyncMemory) -> None:
        for number in range(8):
            session = memory.session(f"session {number}")
            task = asyncio.create_task(turn(session))
            await asyncio.sleep(number * 0.01)
            while not task.done():  # as some frameworks do
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            assert (await session.chat("next", timeout=5)).text == "reply to next"

    run(work, url, ScriptedBackend(echo, counter=SlowReplies("o200k_base")))


def test_turns_at_once_share_a_database_in_memory() -> None:
    async def work(memory: AsyncMemory) -> None:
        sessions = [memory.session(f"session {number}") for number in range(20)]
        assert len(await asyncio.gather(*(session.chat("Hello") for session in sessions))) == 20

    run(work, "sqlite://")


def test_cancelled_waiting_leaves_nothing(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        async with session.turn("first") as turn:
            waiting = [asyncio.create_task(session.chat("second")), asyncio.create_task(session.append("aside"))]
            await asyncio.sleep(0.1)
            for task in waiting:
                task.cancel()
            assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [asyncio.CancelledError] * 2
            await turn.finish("reply to first")
        assert len(await said(session)) == 2

    run(work, url)


def test_two_hundred_turns_of_as_many_sessions_share_the_pool(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        replies = await asyncio.gather(*(memory.session(f"session {number}").chat(f"Hello {number}") for number in range(200)))
        assert [reply.text for reply in replies] == [f"reply to Hello {number}" for number in range(200)]
        assert len(await memory.sessions(limit=1000)) == 200

    run(work, url)


def test_two_hundred_turns_of_ones_own_client_hold_no_connection_while_they_wait(url: str) -> None:
    async def turn(session: AsyncSession, everybody: asyncio.Barrier) -> None:
        async with session.turn("Hello") as held:
            await everybody.wait()
            await held.finish("a reply")

    async def work(memory: AsyncMemory) -> None:
        everybody = asyncio.Barrier(200)
        await asyncio.gather(*(turn(memory.session(f"session {number}"), everybody) for number in range(200)))

    run(work, url)


def test_fifty_turns_of_one_session_never_interleave(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        await asyncio.gather(*(session.chat(f"Hello {number}") for number in range(50)))
        log = await said(session)
        users = [text for role, text, _ in log if role == "user"]
        assert sorted(users) == sorted(f"Hello {number}" for number in range(50))
        assert log == [one for text in users for one in (("user", text, "complete"), ("assistant", f"reply to {text}", "complete"))]

    run(work, url)


def test_a_memory_serves_one_loop_after_the_other(url: str) -> None:
    memory = AsyncMemory(url, backend=ScriptedBackend(echo), budget=BUDGET)
    for number in range(3):
        assert asyncio.run(memory.session("chat").chat(f"Hello {number}")).text == f"reply to Hello {number}"
    asyncio.run(memory.close())
    asyncio.run(memory.close())
    assert len(asyncio.run(memory.session("chat").entries())) == 6
    asyncio.run(memory.close())


def test_a_stream_whose_loop_ended_is_stored(url: str) -> None:
    delivered: list[str] = []
    listening: list[asyncio.Task[None]] = []

    async def leave_it(memory: AsyncMemory) -> None:
        heard = asyncio.Event()
        listening.append(asyncio.create_task(listen(memory.session("chat"), delivered, heard)))
        await heard.wait()

    memory = AsyncMemory(url, backend=ScriptedBackend(lambda _: "one two three four", delay=0.1), budget=BUDGET)
    asyncio.run(leave_it(memory))
    log = asyncio.run(said(memory.session("chat")))
    assert log == [("user", "Hello", "complete"), ("assistant", "".join(delivered), "interrupted")]
    asyncio.run(memory.close())


def test_a_superseded_turn_learns_it(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        session = memory.session("chat")
        async with session.turn("first") as turn:
            with memory.store.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE threadkeep_turns SET until_us = 0")
            await session.chat("second")
            with pytest.raises(LeaseLost):
                await turn.finish("too late")
        assert [text for _, text, _ in await said(session)] == ["first", "second", "reply to second"]

    run(work, url)


def test_nothing_of_twenty_turns_at_once_runs_on_the_loop(url: str) -> None:
    worked: set[int] = set()

    class Watched(TiktokenCounter):
        def count(self, message: Message) -> Count:
            worked.add(threading.get_ident())
            return super().count(message)

    class Noting(SlidingWindow):
        def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
            worked.add(threading.get_ident())
            return super().pick(history, budget)

    def reply(context: Context) -> str:
        worked.add(threading.get_ident())
        return echo(context)

    async def work() -> None:
        engine = create_engine(url)
        event.listen(engine, "before_cursor_execute", lambda *_: worked.add(threading.get_ident()))
        async with AsyncMemory(
            engine, backend=ScriptedBackend(reply), budget=Budget(50), counter=Watched("o200k_base"), strategy=Noting()
        ) as memory:
            sessions = [memory.session(f"session {number}") for number in range(20)]
            for _ in range(2):
                await asyncio.gather(*(session.chat("Hello, a message of several words, so that two do not fit") for session in sessions))
        engine.dispose()

    asyncio.run(work())
    assert worked
    assert threading.get_ident() not in worked


def test_no_thread_is_left_reading(url: str) -> None:
    async def work(memory: AsyncMemory) -> None:
        for _ in range(5):
            async with memory.session("chat").stream("Hello") as stream:
                await anext(stream)

    run(work, url)
    assert [thread.name for thread in threading.enumerate() if thread.name == "threadkeep stream"] == []
