"""Connections: none is held while a model, a tool or a summariser works, few serve many turns, and hosts' pools of any kind will do."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import echo
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from threadkeep import (
    AsyncMemory,
    AsyncSession,
    Budget,
    Context,
    InvalidSetting,
    Memory,
    Message,
    RollingSummary,
    ScriptedBackend,
    SummaryRequest,
    ToolCall,
)
from threadkeep.stores.pools import threads_for

BUDGET = Budget(4000, reply=500)


@pytest.fixture
def engine(any_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A host's, with five connections and no more."""
    monkeypatch.setattr("threadkeep.memory.leases.LOOK_SECONDS", 60.0)  # who looks after leases takes a connection, too
    made = create_engine(any_url, pool_size=5, max_overflow=0, pool_timeout=60)
    yield made
    made.dispose()


class Looking:
    """Notes how many connections are out where somebody works who needs none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: list[int] = []

    def __call__(self) -> None:
        assert isinstance(self.engine.pool, QueuePool)
        self.seen.append(self.engine.pool.checkedout())

    def reply(self, context: Context) -> Message:
        self()
        answered = sum(message["role"] == "tool" for message in context.messages)
        if answered == 2:
            return Message.assistant("Under the bed.")
        return Message.assistant("I look.", tool_calls=[ToolCall("a", ("look", "wander")[answered], "{}")])

    def look(self) -> str:
        """Look."""
        self()
        return "under the bed"

    async def wander(self) -> str:
        """Wander."""
        self()
        await asyncio.sleep(0.01)
        self()
        return "nowhere"


# While others work.


def test_no_connection_is_held_while_a_model_or_a_tool_works(engine: Engine) -> None:
    look = Looking(engine)
    with Memory(engine, backend=ScriptedBackend(look.reply), budget=BUDGET) as memory:
        with memory.session("chat").stream("Where is it?", tools=[look.look, look.wander]) as stream:
            for _ in stream:
                look()
        with memory.session("chat").turn("And now?") as turn:
            assert turn.request
            look()
            turn.draft("There")
            look()
            turn.finish("There.")
    assert len(look.seen) > 8
    assert set(look.seen) == {0}


def test_no_connection_is_held_while_a_model_or_a_tool_of_async_code_works(engine: Engine) -> None:
    look = Looking(engine)

    async def work() -> None:
        async with AsyncMemory(engine, backend=ScriptedBackend(look.reply), budget=BUDGET) as memory:
            async with memory.session("chat").stream("Where is it?", tools=[look.look, look.wander]) as stream:
                async for _ in stream:
                    look()
            async with memory.session("chat").turn("And now?") as turn:
                look()
                await turn.finish("There.")

    asyncio.run(work())
    assert len(look.seen) > 8
    assert set(look.seen) == {0}


class Summariser:
    """Asks nobody, and looks."""

    name = "looking"

    def __init__(self, look: Looking) -> None:
        self._look = look

    def summarise(self, request: SummaryRequest) -> str:
        self._look()
        return "They said words."


def test_no_connection_is_held_while_a_summariser_works(engine: Engine) -> None:
    look = Looking(engine)
    strategy = RollingSummary(Summariser(look), span=120, tokens=60, recent=100)
    with Memory(engine, backend=ScriptedBackend(echo), budget=BUDGET, strategy=strategy, upkeep=False) as memory:
        session = memory.session("chat")
        session.append(*(f"message {number} of several words, so that some are summarised" for number in range(40)))
        assert {done.state for done in session.upkeep()} == {"done"}
    assert look.seen
    assert set(look.seen) == {0}


# Few for many.


def test_five_connections_serve_two_hundred_turns_at_once(engine: Engine) -> None:
    async def own(session: AsyncSession, everybody: asyncio.Barrier) -> None:
        async with session.turn("Hello") as held:
            await everybody.wait()
            await held.finish("a reply")

    async def work() -> None:
        async with AsyncMemory(engine, backend=ScriptedBackend(echo), budget=BUDGET) as memory:
            everybody = asyncio.Barrier(100)
            streamed = (memory.session(f"streamed {number}").chat(f"Hello {number}") for number in range(100))
            owned = (own(memory.session(f"owned {number}"), everybody) for number in range(100))
            replies, _ = await asyncio.gather(asyncio.gather(*streamed), asyncio.gather(*owned))
            assert [reply.text for reply in replies] == [f"reply to Hello {number}" for number in range(100)]
            assert len(await memory.sessions(limit=1000)) == 200

    asyncio.run(work())
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedout() == 0


def test_thirty_two_threads_share_a_memory(any_url: str) -> None:
    failed: list[BaseException] = []

    def work(memory: Memory, thread: int) -> None:
        try:
            for number in range(3):
                session = memory.session(f"session {thread % 8}")
                assert session.chat(f"{thread} {number}").text == f"reply to {thread} {number}"
        except BaseException as error:  # noqa: BLE001  # every kind is counted
            failed.append(error)

    with Memory(any_url, backend=ScriptedBackend(echo), budget=BUDGET) as memory:
        threads = [threading.Thread(target=work, args=(memory, thread)) for thread in range(32)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert failed == []
        for number in range(8):
            log = [entry.message.text for entry in memory.session(f"session {number}").entries()]
            assert log[1::2] == [f"reply to {text}" for text in log[::2]]
            for thread in range(number, 32, 8):
                assert [text for text in log[::2] if text.split()[0] == str(thread)] == [f"{thread} {at}" for at in range(3)]


# Hosts' pools.


@pytest.mark.parametrize(
    ("settings", "threads"),
    [({}, 5), ({"pool_size": 2}, 2), ({"pool_size": 0}, 5), ({"poolclass": NullPool}, 5), ({"poolclass": StaticPool}, 1)],
    ids=["usual", "two", "unbounded", "none", "one"],
)
def test_a_hosts_pool_of_any_kind_serves_async_turns(tmp_path: Path, settings: dict[str, type[Pool]], threads: int) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}", connect_args={"check_same_thread": False}, **settings)
    assert threads_for(engine.pool) == threads

    async def work() -> None:
        async with AsyncMemory(engine, backend=ScriptedBackend(echo), budget=BUDGET) as memory:
            replies = await asyncio.gather(*(memory.session(f"session {number % 4}").chat(f"Hello {number}") for number in range(20)))
            assert [reply.text for reply in replies] == [f"reply to Hello {number}" for number in range(20)]

    asyncio.run(work())
    engine.dispose()


def shared() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


def queued() -> Engine:
    settings = {"check_same_thread": False}
    return create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, connect_args=settings)


@pytest.mark.parametrize("make", [shared, queued])
def test_a_hosts_database_in_memory_is_shared_by_all_threads(make: Callable[[], Engine]) -> None:
    engine = make()

    async def work() -> None:
        async with AsyncMemory(engine, backend=ScriptedBackend(echo), budget=BUDGET) as memory:
            await asyncio.gather(*(memory.session(f"session {number}").chat("Hello") for number in range(20)))
            assert len(await memory.sessions()) == 20

    asyncio.run(work())
    engine.dispose()


@pytest.mark.parametrize("pool", [None, NullPool, SingletonThreadPool, AssertionPool])
def test_a_database_in_memory_that_each_connection_has_its_own_of_is_refused(pool: type[Pool] | None) -> None:
    engine = create_engine("sqlite://") if pool is None else create_engine("sqlite://", poolclass=pool)
    with pytest.raises(InvalidSetting, match="StaticPool"):
        Memory(engine, backend=ScriptedBackend(echo), budget=BUDGET)
    engine.dispose()


def test_an_engine_of_an_event_loop_is_refused() -> None:
    engine = create_engine("postgresql+psycopg_async://postgres@127.0.0.1/none")
    with pytest.raises(InvalidSetting, match="event loop"):
        Memory(engine, backend=ScriptedBackend(echo), budget=BUDGET)
