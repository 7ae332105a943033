"""What a turn does while another holds its session: wait, give up at once, or take the session; in one process and across two."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from test_turns import die, said

from threadkeep import (
    AsyncMemory,
    AsyncTurn,
    Budget,
    Conflict,
    Context,
    Event,
    InvalidSetting,
    KeyReused,
    LeaseLost,
    LlamaCpp,
    Memory,
    Message,
    ScriptedBackend,
    Session,
    Superseded,
    TiktokenCounter,
    ToolCall,
    Turn,
)
from threadkeep.memory import leases
from threadkeep.memory.leases import keeper
from threadkeep.memory.stream import Stream

BUDGET = Budget(4000, reply=500)


class Watched(ScriptedBackend):
    """Says when each word is asked for, and whether its reply was left; on "hold" it waits until it is let go."""

    def __init__(self, *words: str) -> None:
        super().__init__([])
        self.words, self.held, self.go, self.closed = words, threading.Event(), threading.Event(), threading.Event()

    def stream(self, context: Context) -> Iterator[Event]:
        try:
            for word in self.words:
                if word == "hold":
                    self.held.set()
                    while not self.go.wait(0.02):
                        yield Event()  # the sign of life that every backend gives
                else:
                    yield Event(word)
            yield Event(finish="stop")
        finally:
            self.closed.set()


Open = Callable[[ScriptedBackend], Session]


@pytest.fixture
def opened(any_url: str) -> Iterator[Open]:
    """The same session, seen by memories with one backend each."""
    memories: list[Memory] = []

    def opened(backend: ScriptedBackend) -> Session:
        memories.append(Memory(any_url, backend=backend, budget=BUDGET))
        return memories[-1].session("chat", owner="ada")

    yield opened
    for memory in memories:
        memory.close()


def lost(turn: Turn | AsyncTurn) -> bool:
    """Whether it knows that it was superseded."""
    return turn.superseded


def states(session: Session) -> list[str]:
    with session._setup.store.engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT state FROM threadkeep_turns ORDER BY id").scalars())


# reject.


def test_a_turn_may_give_up_at_once(opened: Open) -> None:
    session = opened(ScriptedBackend(["a reply"]))
    with session.turn("first") as turn:
        began = time.monotonic()
        with pytest.raises(Conflict, match=r"held by turn 1.*policy='reject'"), session.turn("second", policy="reject", timeout=60):
            pass
        with pytest.raises(Conflict, match="reject"):
            session.chat("second", policy="reject")
        assert time.monotonic() - began < 2
        turn.finish("reply to first")
    assert session.chat("second", policy="reject").text == "a reply"
    assert [text for _, text in said(session)] == ["first", "reply to first", "second", "a reply"]


@pytest.mark.parametrize("policy", ["", "Wait", "queue", None, 1])
def test_a_policy_is_one_of_three(session: Session, policy: str) -> None:
    for begin in (session.turn, session.stream, session.chat):
        with pytest.raises(InvalidSetting, match="'wait', 'reject' or 'supersede'"):
            begin("Hello", policy=policy)  # type: ignore[arg-type]
    assert session._setup.store.session("ada", "chat") is None


# supersede, own clients.


@pytest.mark.parametrize(
    "write",
    [
        lambda turn: turn.finish("too late"),
        lambda turn: turn.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")])),
        lambda turn: turn.draft("too late"),
        lambda turn: turn.request,
        lambda turn: turn.lease.renew() or turn.lease.check(),
    ],
    ids=["finish", "append", "draft", "request", "renew"],
)
def test_a_superseded_turn_learns_it_at_once(session: Session, write: Callable[[Turn], object]) -> None:
    with session.turn("first") as turn:
        turn.draft("Once upon")  # not yet due to be saved
        assert not lost(turn)
        assert session.chat("second", policy="supersede").text == "reply to second"
        assert lost(turn)
        with pytest.raises(Superseded, match="turn 1"):
            write(turn)
    assert said(session) == [("user", "first"), ("assistant", "Once upon…"), ("user", "second"), ("assistant", "reply to second")]
    assert states(session) == ["superseded", "done"]


def test_a_superseded_turn_that_had_said_nothing_leaves_no_reply(opened: Open) -> None:
    session = opened(ScriptedBackend(["fine"]))
    with session.turn("first") as turn:
        with session.turn("second", policy="supersede") as second:
            assert [message["content"] for message in second.messages] == ["first", "second"]
            second.finish("fine")
        assert lost(turn)
    assert said(session) == [("user", "first"), ("user", "second"), ("assistant", "fine")]


def test_what_was_stored_before_is_not_stored_again(opened: Open) -> None:
    session = opened(ScriptedBackend([]))
    with session.turn("Where is it?") as turn:
        turn.draft("I look.")
        turn.append(Message.assistant("I look.", tool_calls=[ToolCall("a", "look", "{}")]))
        with session.turn("Never mind.", policy="supersede") as second:
            assert [message["role"] for message in second.messages] == ["user", "assistant", "tool", "user"]  # the call is answered
            second.finish("Fine.")
        with pytest.raises(Superseded):
            turn.append(Message.tool("under the bed", tool_call_id="a"))
    assert [text for _, text in said(session)] == ["Where is it?", "I look.", "Never mind.", "Fine."]


def test_a_free_session_needs_not_be_taken(opened: Open) -> None:
    session = opened(ScriptedBackend(["one", "two"]))
    assert session.chat("first", policy="supersede").text == "one"
    assert session.chat("second", policy="supersede").text == "two"
    assert states(session) == ["done", "done"]


def test_a_dead_holders_turn_is_ended_and_not_superseded(url: str, session: Session) -> None:
    die(url, "Once upon")
    session.chat("second", policy="supersede")
    assert states(session) == ["interrupted", "done"]


def test_what_could_not_begin_supersedes_nobody(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(ScriptedBackend([]))
    session.append("a batch", key="batch")
    with session.turn("first", key="k") as turn:
        turn.draft("Once")
        for message, key in (("other words", "k"), ("a batch", "batch")):
            with pytest.raises(KeyReused), session.turn(message, key=key, policy="supersede"):
                pass
        with monkeypatch.context() as patch:
            patch.setattr("threadkeep.stores.turn_queries.add_turn", _fail)
            with pytest.raises(ZeroDivisionError), session.turn("second", policy="supersede"):
                pass
        assert not lost(turn)
        turn.draft("Once upon")
        turn.finish("Once upon a time.")
    assert [text for _, text in said(session)] == ["a batch", "first", "Once upon a time."]


def _fail(*_: object) -> None:
    raise ZeroDivisionError


# The same key.


def test_the_same_key_takes_the_turn_up_again(opened: Open) -> None:
    session = opened(ScriptedBackend([]))
    with session.turn("Hello", key="k") as first:
        first.draft("Good")
        with session.turn("Hello", key="k", policy="supersede") as again:
            assert again.id == first.id
            assert again.messages == [{"role": "user", "content": "Hello"}]
            with pytest.raises(Superseded, match="taken up again under its key"):
                first.finish("too late")
            assert again.finish("Good morning.").seq == 3
        with session.turn("Hello", key="k", policy="supersede") as answered:
            assert answered.reply is not None
            assert answered.reply.text == "Good morning."
    assert said(session) == [("user", "Hello"), ("assistant", "Good…"), ("assistant", "Good morning.")]
    assert states(session) == ["done"]


def test_the_key_of_an_answered_turn_supersedes_nobody(session: Session) -> None:
    session.chat("Hello", key="k")
    with session.turn("second") as turn:
        assert session.chat("Hello", key="k", policy="supersede").text == "reply to Hello"
        assert not lost(turn)
        turn.finish("fine")


def test_a_superseded_turn_that_the_conversation_left_behind_is_a_conflict(session: Session) -> None:
    with session.turn("first", key="k"):
        session.chat("second", policy="supersede")
    with pytest.raises(Conflict, match="went on"):
        session.chat("first", key="k", policy="supersede")


# supersede, streams.


def test_a_superseded_stream_stops_and_its_words_are_stored(opened: Open) -> None:
    backend = Watched("one ", "two ", "hold", "three")
    session, other = opened(backend), opened(ScriptedBackend(["mine"]))
    delivered: list[str] = []
    failed: list[BaseException] = []

    def read() -> None:
        try:
            with session.stream("first") as stream:
                delivered.extend(event.text for event in stream)
        except Superseded as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert backend.held.wait(10)
    assert other.chat("second", policy="supersede").text == "mine"
    reader.join(10)
    assert backend.closed.is_set()
    assert failed
    assert said(session) == [("user", "first"), ("assistant", "one two …"), ("user", "second"), ("assistant", "mine")]
    assert sorted((call.turn_id, call.outcome) for call in session.calls()) == [(1, "interrupted"), (2, "complete")]
    assert states(session) == ["superseded", "done"]


def superseded_after(stream: Stream, events: int, other: Session, then: Callable[[], object] = lambda: None) -> Superseded:
    """Read so many events, have the session taken, read on; what the reader is told."""

    def read() -> None:
        with stream:
            for _ in range(events):
                next(stream)
            assert other.chat("second", policy="supersede").text == "reply to second"
            then()
            next(stream)

    with pytest.raises(Superseded) as caught:
        read()
    return caught.value


def test_a_stream_that_nobody_reads_just_now_stops_at_once(session: Session, url: str) -> None:
    backend = Watched("one ", "two ", "three ")
    with Memory(url, backend=backend, budget=BUDGET) as memory:
        stream = memory.session("chat", owner="ada").stream("first")
        stopped: list[bool] = []
        superseded_after(stream, 2, session, lambda: stopped.append(backend.closed.is_set()))
        assert stopped == [True]
        with pytest.raises(Superseded):
            _ = stream.reply
    assert said(session)[:2] == [("user", "first"), ("assistant", "one two …")]


def test_a_model_that_fails_to_stop_is_its_own_readers_trouble(session: Session, url: str) -> None:
    class Stubborn(Watched):
        def stream(self, context: Context) -> Iterator[Event]:
            try:
                yield from super().stream(context)
            finally:
                raise OSError("it does not stop")

    with Memory(url, backend=Stubborn("one ", "two "), budget=BUDGET) as memory:
        error = superseded_after(memory.session("chat", owner="ada").stream("first"), 1, session)
    assert isinstance(error.__cause__, OSError)


def test_a_whole_reply_that_was_not_stored_yet_is_stored_as_cut(session: Session) -> None:
    superseded_after(session.stream("first"), 4, session)
    assert said(session)[1] == ("assistant", "reply to first…")


def test_leaving_a_superseded_stream_says_so(session: Session) -> None:
    def leave() -> None:
        with session.stream("first") as stream:
            next(stream)
            session.chat("second", policy="supersede")

    with pytest.raises(Superseded):
        leave()
    assert said(session)[1] == ("assistant", "reply …")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_result_of_a_tool_of_a_superseded_turn_is_not_stored(opened: Open, asynchronous: bool) -> None:
    running, go, ended = threading.Event(), threading.Event(), threading.Event()

    def look() -> str:
        """Look."""
        running.set()
        go.wait(10)
        return "under the bed"

    async def wander() -> str:
        """Look."""
        running.set()
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()
        return "nowhere"

    call = Message.assistant("I look.", tool_calls=[ToolCall("a", "wander" if asynchronous else "look", "{}")])
    session, other = opened(ScriptedBackend([call, "It is there."])), opened(ScriptedBackend(["mine"]))
    failed: list[BaseException] = []

    def read() -> None:
        try:
            session.chat("Where is it?", tools=[look, wander])
        except Superseded as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert running.wait(10)
    with other.turn("Never mind.", policy="supersede") as turn:
        assert [message["role"] for message in turn.messages] == ["user", "assistant", "tool", "user"]
        assert turn.messages[2]["content"] != "under the bed"
        turn.finish("Fine.")
    if not asynchronous:
        go.set()
    reader.join(5)
    assert failed
    assert not asynchronous or ended.is_set()
    assert [text for _, text in said(session)] == ["Where is it?", "I look.", "Never mind.", "Fine."]


def test_a_tool_may_leave_or_supersede_its_own_turn(opened: Open) -> None:
    calls = [Message.assistant("I look.", tool_calls=[ToolCall("a", name, "{}")]) for name in ("stop", "start")]
    session = opened(ScriptedBackend([calls[0], calls[1], "Anew."]))
    streams: list[Stream] = []

    def stop() -> str:
        """Stop."""
        streams[-1].close()
        return "stopped"

    def start() -> str:
        """Start."""
        return session.chat("Another question.", policy="supersede").text

    streams.append(session.stream("One?", tools=[stop]))
    with streams[0] as left:
        list(left)
    with pytest.raises(Superseded), session.stream("Two?", tools=[start]) as superseded:
        list(superseded)
    assert [text for _, text in said(session)] == ["One?", "I look.", "stopped", "Two?", "I look.", "Another question.", "Anew."]


def test_async_streams_and_turns_are_superseded_too(any_url: str) -> None:
    async def read(memory: AsyncMemory, heard: asyncio.Event, delivered: list[str]) -> None:
        async with memory.session("chat").stream("first") as stream:
            async for event in stream:
                delivered.append(event.text)
                heard.set()

    async def work() -> None:
        backend = Watched("one ", "hold")
        async with (
            AsyncMemory(any_url, backend=backend, budget=BUDGET) as memory,
            AsyncMemory(any_url, backend=ScriptedBackend(["mine", "again"]), budget=BUDGET) as other,
        ):
            heard, delivered = asyncio.Event(), list[str]()
            reading = asyncio.create_task(read(memory, heard, delivered))
            await heard.wait()
            with pytest.raises(Conflict):
                await other.session("chat").chat("second", policy="reject")
            assert (await other.session("chat").chat("second", policy="supersede")).text == "mine"
            with pytest.raises(Superseded):
                await asyncio.wait_for(reading, 5)
            assert backend.closed.is_set()
            async with other.session("chat").turn("third") as turn:
                assert not lost(turn)
                await other.session("chat").chat("fourth", policy="supersede")
                assert lost(turn)
                with pytest.raises(Superseded):
                    await turn.finish("too late")
            entries = await other.session("chat").entries()
            assert [entry.message.text for entry in entries] == ["first", "one ", "second", "mine", "third", "fourth", "again"]

    asyncio.run(work())


def test_of_many_that_supersede_each_other_the_last_one_answers(opened: Open) -> None:
    answered: list[str] = []
    unexpected: list[BaseException] = []
    together = threading.Barrier(6)

    def supersede(number: int, session: Session) -> None:
        for round_ in range(5):
            together.wait()
            try:
                with session.turn(f"{number} {round_}", policy="supersede") as turn:
                    turn.draft(f"draft of {number} {round_}")
                    time.sleep(0.01)
                    turn.finish(f"reply to {number} {round_}")
                    answered.append(f"{number} {round_}")
            except Superseded:
                continue
            except BaseException as error:  # noqa: BLE001  # every kind is counted
                unexpected.append(error)

    sessions = [opened(ScriptedBackend([])) for _ in range(6)]
    sessions[0].append(Message.assistant("How can I help?"))
    threads = [threading.Thread(target=supersede, args=(number, session)) for number, session in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    log = said(sessions[0])
    assert len([text for role, text in log if role == "user"]) == 30
    for (role, text), (next_role, reply) in pairwise(log):
        if role == "user" and next_role == "assistant":
            assert reply in (f"reply to {text}", f"draft of {text}…")
    assert [text.removeprefix("reply to ") for role, text in log if text.startswith("reply to ")] != []
    assert sorted(text.removeprefix("reply to ") for _, text in log if text.startswith("reply to ")) == sorted(answered)


# Across processes.


HOLD = """
import sys, time
from threadkeep import Budget, Memory, ScriptedBackend, Superseded, TiktokenCounter

url, how = sys.argv[1:]
if how == "stream":
    memory = Memory(url, backend=ScriptedBackend(lambda _: "word " * 500, delay=0.02), budget=Budget(4000, reply=500))
    try:
        with memory.session("chat", owner="ada").stream("first") as stream:
            for number, event in enumerate(stream):
                if number == 5:
                    print("begun", flush=True)
    except Superseded as error:
        print("superseded", error, flush=True)
else:
    memory = Memory(url, counter=TiktokenCounter("o200k_base"), budget=Budget(4000, reply=500))
    with memory.session("chat", owner="ada").turn("first") as turn:
        print("begun", flush=True)
        while not turn.superseded:
            time.sleep(0.01)
        try:
            turn.finish("too late")
        except Superseded as error:
            print("superseded", error, flush=True)
memory.close()
"""


@pytest.mark.parametrize("how", ["stream", "turn"])
def test_a_turn_of_another_process_learns_it_within_about_a_second(any_url: str, opened: Open, how: str) -> None:
    session = opened(ScriptedBackend(["mine"]))
    with subprocess.Popen([sys.executable, "-c", HOLD, any_url, how], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert session.chat("second", policy="supersede").text == "mine"
        began = time.monotonic()
        assert process.stdout.readline().startswith("superseded turn 1")
        assert time.monotonic() - began < 3
    assert process.returncode == 0
    log = [one for one in said(session) if not one[1].startswith("word")]  # what was saved of the stream's first second
    assert log == [("user", "first"), ("user", "second"), ("assistant", "mine")]


def test_the_keeper_looks_only_at_turns_that_were_silent(session: Session, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Memory(url, counter=TiktokenCounter("o200k_base"), budget=BUDGET).session("chat", owner="ada")
    monkeypatch.setattr(leases.Keeper, "find", lambda *_: None)  # as in another process
    with session.turn("first") as turn, elsewhere.turn("second", policy="supersede") as second:
        keeper.look()
        assert not lost(turn)  # it began this moment
        monkeypatch.setattr("threadkeep.memory.leases.LOOK_SECONDS", 0.0)
        keeper.look()
        assert lost(turn)
        assert not lost(second)
        with pytest.raises(Superseded, match="turn 1"):
            turn.finish("too late")
        second.finish("fine")


def test_a_turn_whose_session_was_deleted_learns_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.leases.LOOK_SECONDS", 0.0)
    with session.turn("first") as turn:
        session.delete()
        keeper.look()
        assert lost(turn)
        with pytest.raises(LeaseLost, match="deleted"):
            turn.finish("too late")


@pytest.mark.model
def test_a_superseded_engine_is_free_at_once(session: Session, url: str) -> None:
    backend = LlamaCpp("smollm2-135m", window=1024, parallel=1, temperature=0, threads=1)
    with Memory(url, backend=backend, budget=Budget(1024, reply=400)) as memory:
        stream = memory.session("chat", owner="ada").stream("Tell me of the lighthouse on the northern cape.")
        idle: list[bool] = []

        def look() -> None:
            until = time.monotonic() + 5
            while backend.busy and time.monotonic() < until:
                time.sleep(0.01)
            idle.append(not backend.busy)

        superseded_after(stream, 3, session, look)
        assert idle == [True]
    backend.close()
