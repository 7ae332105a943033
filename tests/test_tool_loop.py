"""Tools run inside a turn: each step is stored as it happens, and however the turn ends, the session works and its log is valid."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from threadkeep import (
    AsyncMemory,
    AsyncSession,
    BackendError,
    Budget,
    Conflict,
    Context,
    Event,
    InvalidSetting,
    LeaseLost,
    Memory,
    Message,
    ScriptedBackend,
    Session,
    StoreBusy,
    TiktokenCounter,
    ToolCall,
)
from threadkeep.memory.repair import INTERRUPTED
from threadkeep.memory.stream import Stream
from threadkeep.promises import Asked, Log, smallest, violations, whole

BUDGET = Budget(4000, reply=500)
Said = list[tuple[str, str, str]]


def call(*names: str, arguments: str = "{}", text: str | None = None) -> Message:
    return Message.assistant(text, tool_calls=[ToolCall(f"{name} {at}", name, arguments) for at, name in enumerate(names)])


def said(session: Session) -> Said:
    return [(entry.role, entry.message.text, entry.status) for entry in session.entries()]


async def said_to(session: AsyncSession) -> Said:
    return [(entry.role, entry.message.text, entry.status) for entry in await session.entries()]


def look() -> str:
    """Look."""
    return "a hen"


async def wander() -> str:
    """Wander."""
    await asyncio.sleep(0)
    return "far away"


def fail() -> None:
    """Fail."""
    raise ZeroDivisionError("by nought")


Make = Callable[..., Session]


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes a session answered by these replies; `make.backend` is what gave them."""
    memories: list[Memory] = []

    def make(*replies: str | Message | Exception, backend: ScriptedBackend | None = None) -> Session:
        backend = backend or ScriptedBackend(list(replies))
        memories.append(Memory(url, backend=backend, budget=BUDGET))
        return memories[-1].session("chat")

    yield make
    for memory in memories:
        memory.close()


def seen(session: Session) -> list[Context]:
    backend = session._setup.backend
    assert isinstance(backend, ScriptedBackend)
    return backend.seen


def run(work: Callable[[AsyncSession], Any], url: str, *replies: str | Message) -> ScriptedBackend:
    """Run with an async session in a loop of its own."""
    backend = ScriptedBackend(list(replies))

    async def opened() -> None:
        async with AsyncMemory(url, backend=backend, budget=BUDGET) as memory:
            await work(memory.session("chat"))

    asyncio.run(opened())
    return backend


def holds(session: Session) -> None:
    """Every context of the stored log is valid (P3 among others), and another turn can begin."""
    messages = tuple(entry.message for entry in session.entries(limit=10_000))
    found = violations(session.context(), Log(messages), Asked(TiktokenCounter("o200k_base")))
    assert not found, found
    with session.turn("one more", timeout=0) as turn:
        shown = turn.context.typed_messages()
        answered = [message.tool_call_id for message in shown if message.role == "tool"]
        assert sorted(map(str, answered)) == sorted(each.id for message in shown for each in message.tool_calls)


# ---- the loop ----


def test_the_functions_that_a_model_calls_are_run_and_it_is_asked_again(make: Make) -> None:
    session = make(call("look", "wander", text="Let me see."), call("fail"), "A hen.")
    reply = session.chat("What is there?", tools=[look, wander, fail])
    assert (reply.text, reply.seq, reply.status, reply.finish) == ("A hen.", 7, "complete", "stop")
    assert said(session) == [
        ("user", "What is there?", "complete"),
        ("assistant", "Let me see.", "complete"),
        ("tool", "a hen", "complete"),
        ("tool", "far away", "complete"),
        ("assistant", "", "complete"),
        ("tool", "Error: ZeroDivisionError: by nought", "complete"),
        ("assistant", "A hen.", "complete"),
    ]
    assert [entry.message.name for entry in session.entries()[2:4]] == ["look", "wander"]
    assert [len(context.messages) for context in seen(session)] == [1, 4, 6]
    assert [line.turn_id for line in session.calls()] == [1, 1, 1]
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == seen(session)[-1].tokens == session.calls()[-1].prompt_tokens
    holds(session)


def test_a_stream_tells_each_step(make: Make) -> None:
    session = make(call("look", "fail", text="I look."), "A hen.")
    with session.stream("What is there?", tools=[look, fail]) as stream:
        events = list(stream)
    told = [event.tool_result or event.tool_calls or event.text for event in events]
    assert told == [
        "I ",
        "look.",
        (ToolCall("look 0", "look", "{}"), ToolCall("fail 1", "fail", "{}")),
        Message.tool("a hen", tool_call_id="look 0", name="look"),
        Message.tool("Error: ZeroDivisionError: by nought", tool_call_id="fail 1", name="fail"),
        "A ",
        "hen.",
        "",
    ]
    assert (stream.text, stream.reply.text) == ("A hen.", "A hen.")
    assert stream.context.messages == seen(session)[-1].messages


def test_each_step_is_on_disk_before_the_next_begins(make: Make) -> None:
    logs: list[Said] = []

    def note() -> str:
        logs.append(said(session))
        return f"note {len(logs)}"

    session = make(call("note", "note"), "Done.")
    session.chat("Hello", tools=[note])
    assert [log[1:] for log in logs] == [[("assistant", "", "complete")], [("assistant", "", "complete"), ("tool", "note 1", "complete")]]


def test_rounds_are_bounded_and_the_last_request_allows_no_call(make: Make) -> None:
    session = make(*[call("look")] * 3, "Enough.")
    assert session.chat("Hello", tools=[look], max_rounds=3).text == "Enough."
    assert [context.tool_choice for context in seen(session)] == [None, None, None, "none"]
    assert [context.request.get("tool_choice") for context in seen(session)] == [None, None, None, "none"]


def test_a_model_that_calls_after_the_last_round_has_its_calls_handed_back(make: Make) -> None:
    session = make(*[call("look")] * 3)
    reply = session.chat("Hello", tools=[look], max_rounds=2)
    assert (reply.finish, reply.message.tool_calls, reply.status) == ("tool_calls", call("look").tool_calls, "complete")
    holds(session)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", ["auto", "auto", "auto"]),
        ("required", ["required", None, None]),
        ("look", [{"type": "function", "function": {"name": "look"}}, None, None]),
    ],
)
def test_what_must_be_called_must_be_called_once(make: Make, choice: str, sent: list[object]) -> None:
    session = make(call("look"), call("look"), "Done.")
    session.chat("Hello", tools=[look], tool_choice=choice)
    assert [context.tool_choice for context in seen(session)] == sent


class Pay(BaseModel):
    """Pay."""

    cents: int


def test_calls_of_what_is_no_function_are_the_callers(make: Make) -> None:
    session = make(call("look", "Pay"))
    reply = session.chat("Hello", tools=[look, Pay])
    assert reply.message.tool_calls == call("look", "Pay").tool_calls
    assert said(session)[1:] == [("assistant", "", "complete")]
    assert len(seen(session)) == 1
    holds(session)


def test_a_round_of_functions_may_come_before_the_callers_call(make: Make) -> None:
    session = make(call("look"), call("Pay", text="Now pay."))
    reply = session.chat("Hello", tools=[look, Pay])
    assert (reply.text, reply.finish, reply.seq) == ("Now pay.", "tool_calls", 4)


def test_what_the_model_gets_wrong_goes_back_to_it(make: Make) -> None:
    session = make(call("fly"), call("look", arguments='{"where": 1'), call("look", arguments="null"), "Sorry.")
    assert session.chat("Hello", tools=[look]).text == "Sorry."
    results = [text for role, text, _ in said(session) if role == "tool"]
    assert [text.partition(":")[0] for text in results] == ["Error"] * 3
    assert "fly" in results[0]


def test_a_result_that_is_far_too_long_is_shown_as_its_head_and_tail(make: Make) -> None:
    def read() -> str:
        return "word " * 50_000

    session = make(call("read"), "Long.")
    assert session.chat("Hello", tools=[read]).text == "Long."
    assert len(session.entries()[2].message.text) == 250_000
    assert seen(session)[-1].tokens <= BUDGET.ceiling


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "2", None])
def test_rounds_are_a_number(make: Make, given: Any) -> None:
    with pytest.raises(InvalidSetting, match="max_rounds"):
        make().stream("Hello", max_rounds=given)


# ---- approval ----


@pytest.mark.parametrize(
    ("answer", "told"),
    [(True, "a hen"), (False, "Error: this call was not approved, and was not run"), ("Not on Sundays.", "Not on Sundays.")],
)
def test_a_call_is_run_where_it_is_approved(make: Make, answer: bool | str, told: str) -> None:
    asked: list[ToolCall] = []

    def approve(one: ToolCall) -> bool | str:
        asked.append(one)
        return answer

    async def approve_later(one: ToolCall) -> bool | str:
        await asyncio.sleep(0)
        return approve(one)

    for how in (approve, approve_later):
        session = make(call("look", "fly"), "Done.")
        assert session.chat("Hello", tools=[look], approve=how).text == "Done."
        assert said(session)[-3][1] == told
    assert asked == [call("look").tool_calls[0]] * 2, "what cannot be run is not asked about"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_of_a_round_runs_before_all_of_it_was_asked_about(make: Make, asynchronous: bool) -> None:
    ran: list[str] = []

    def note() -> None:
        ran.append("note")

    async def note_later() -> None:
        ran.append("note")

    def refuse(one: ToolCall) -> bool:
        if one.name == "look":
            time.sleep(0.05)
            raise PermissionError("nobody is there")
        return True

    tool = note_later if asynchronous else note
    session = make(call(tool.__name__, "look"), "Done.")
    with pytest.raises(PermissionError):
        session.chat("Hello", key="k", tools=[tool, look], approve=refuse)
    assert ran == []
    holds_again(session, "Hello", "k", "Done.", tools=[tool, look])


def test_an_answer_that_is_none_is_an_error_and_the_session_works(make: Make) -> None:
    session = make(call("look"), "Fine.")
    with pytest.raises(InvalidSetting, match=r"approve gave None.*look"):
        session.chat("Hello", key="k", tools=[look], approve=lambda one: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidSetting, match="approve="):
        session.chat("Hello", tools=[look], approve="yes")  # type: ignore[arg-type]
    holds_again(session, "Hello", "k", "Fine.", tools=[look])


def holds_again(session: Session, text: str, key: str, reply: str, **more: Any) -> None:
    """The session works, and the same key takes the turn up again."""
    messages = tuple(entry.message for entry in session.entries())
    assert not (found := violations(session.context(), Log(messages), Asked(TiktokenCounter("o200k_base")))), found
    assert session.chat(text, key=key, timeout=0, **more).text == reply
    assert [entry.message.text for entry in session.entries() if entry.role == "user"] == [text]
    holds(session)


# ---- however it ends ----


@pytest.mark.parametrize("taken", range(1, 8))
def test_leaving_at_any_event_leaves_a_session_that_works(make: Make, taken: int) -> None:
    session = make(call("look", "fail", text="I look."), "A hen.", "After all.")
    with session.stream("Hello", key="k", tools=[look, fail]) as stream:
        events = list(islice(stream, taken))
    results = [event.tool_result.text for event in events if event.tool_result]
    assert [text for role, text, _ in said(session) if role == "tool"] == results
    if 3 < taken < 6:
        with pytest.raises(Conflict):
            _ = stream.reply
    else:
        assert stream.reply.status == "interrupted"
        assert stream.reply.text == stream.text
    holds_again(session, "Hello", "k", "A hen." if taken < 6 else "After all.", tools=[look, fail])


def test_what_was_left_before_it_ran_is_not_shown_to_the_retried_model(make: Make) -> None:
    session = make(call("look", text="I look."), "A hen.")
    with session.stream("Hello", key="k", tools=[look]) as stream:
        for event in stream:
            if event.finish:
                break
    assert said(session)[1:] == [("assistant", "I look.", "interrupted")]
    session.chat("Hello", key="k", tools=[look])
    assert [message["role"] for message in seen(session)[-1].messages] == ["user"]


def test_results_that_are_in_are_shown_to_the_retried_model(make: Make) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    session = make(call("look", "stop"), "A hen.")
    with pytest.raises(KeyboardInterrupt):
        session.chat("Hello", key="k", tools=[look, stop])
    assert said(session)[1:] == [("assistant", "", "complete"), ("tool", "a hen", "complete")]
    assert session.chat("Hello", key="k", tools=[look, stop]).text == "A hen."
    assert [message["content"] for message in seen(session)[-1].messages] == ["Hello", None, "a hen", INTERRUPTED]


@pytest.mark.parametrize("error", [BackendError("out of memory"), ZeroDivisionError()])
def test_a_model_that_fails_in_a_later_round_leaves_what_was_done(make: Make, error: Exception) -> None:
    session = make(call("look"), error, "A hen.")
    with pytest.raises(type(error)):
        session.chat("Hello", key="k", tools=[look])
    assert said(session)[1:] == [("assistant", "", "complete"), ("tool", "a hen", "complete")]
    holds_again(session, "Hello", "k", "A hen.", tools=[look])


class Cut(ScriptedBackend):
    """Calls, and stops without saying why."""

    def stream(self, context: Context) -> Iterator[Event]:
        yield Event(tool_calls=call("look").tool_calls)


def test_calls_of_a_model_that_did_not_end_are_not_run(make: Make) -> None:
    session = make(backend=Cut([]))
    with pytest.raises(BackendError):
        session.chat("Hello", tools=[fail, look])
    assert said(session)[1:] == [("assistant", "", "interrupted")]
    holds(session)


def test_a_result_that_cannot_be_stored_ends_the_turn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make(call("look"), "A hen.")
    real = session._setup.store.append_to_turn
    stored: list[object] = []

    def busy_at_second(*given: Any, **named: Any) -> Any:
        stored.append(given)
        if len(stored) == 2:
            raise StoreBusy("the database was locked")
        return real(*given, **named)

    monkeypatch.setattr(session._setup.store, "append_to_turn", busy_at_second)
    with pytest.raises(StoreBusy):
        session.chat("Hello", key="k", tools=[look])
    assert said(session)[1:] == [("assistant", "", "complete")]
    holds_again(session, "Hello", "k", "A hen.", tools=[look])


def test_a_turn_whose_session_another_took_while_a_tool_ran_writes_nothing_more(make: Make) -> None:
    other = make("of the other")

    def slow() -> str:
        with session._setup.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE threadkeep_turns SET until_us = 0")
        other.chat("Mine now")
        return "too late"

    session = make(call("slow"), "never")
    with pytest.raises(LeaseLost):
        session.chat("Hello", tools=[slow])
    assert [text for _, text, _ in said(session)] == ["Hello", "", "Mine now", "of the other"]
    holds(session)


KILLED = """
import os, signal, sys, threading
from threadkeep import Memory, Message, ScriptedBackend, ToolCall

def first() -> str:
    return "the first"

def second() -> str:
    if sys.argv[2] == "in the tool":
        os.kill(os.getpid(), signal.SIGKILL)
    return "the second"

calls = Message.assistant("Let me see.", tool_calls=[ToolCall("a", "first", "{}"), ToolCall("b", "second", "{}")])
with Memory(sys.argv[1], backend=ScriptedBackend([calls, "one two three"])) as memory:
    with memory.session("chat").stream("Hello", key="k", tools=[first, second]) as stream:
        for event in stream:
            if sys.argv[2] == "between them" and event.tool_result or sys.argv[2] == "behind them" and event.text == "two ":
                os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("when", "results"), [("in the tool", 1), ("between them", 1), ("behind them", 2)])
def test_a_killed_process_leaves_a_session_that_works(make: Make, url: str, when: str, results: int) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, url, when], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    session = make("A hen.")
    assert said(session)[:2] == [("user", "Hello", "complete"), ("assistant", "Let me see.", "complete")]
    assert [text for role, text, _ in said(session) if role == "tool"] == ["the first", "the second"][:results]
    holds_again(session, "Hello", "k", "A hen.")
    shown = [message["content"] for message in seen(session)[-1].messages]
    assert shown[:4] == ["Hello", "Let me see.", "the first", ["the first", INTERRUPTED, "the second"][results]]


# ---- asynchronous functions, and async sessions ----


def test_asynchronous_functions_of_a_session_without_a_loop_run_at_once(make: Make) -> None:
    meet = None
    ran_on: set[int] = set()

    async def together() -> str:
        nonlocal meet
        meet = meet or asyncio.Barrier(2)
        ran_on.add(threading.get_ident())
        async with asyncio.timeout(4), meet:
            return "met"

    session = make(call("together", "look", "together"), call("together", "together"), "Done.")
    session.chat("Hello", tools=[together, look])
    assert [text for role, text, _ in said(session) if role == "tool"] == ["met", "a hen", "met", "met", "met"]
    assert len(ran_on) == 1
    assert threading.get_ident() not in ran_on
    assert [one.name for one in threading.enumerate() if one.name == "threadkeep tools"] == []


def test_a_session_without_a_loop_is_used_inside_one(make: Make) -> None:
    async def inside() -> str:
        return make(call("wander"), "Done.").chat("Hello", tools=[wander]).text

    assert asyncio.run(inside()) == "Done."


def test_an_interrupt_while_an_asynchronous_function_runs_cancels_it(make: Make) -> None:
    ended: list[str] = []

    async def press() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where the suite runs in the background, it is ignored
    try:
        session = make(call("look", "press"), "Done.")
        with pytest.raises(KeyboardInterrupt):
            session.chat("Hello", key="k", tools=[look, press])
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["cancelled"]
    assert [one.name for one in threading.enumerate() if one.name == "threadkeep tools"] == []
    holds_again(session, "Hello", "k", "Done.", tools=[look, press])


def test_calls_of_one_id_each_get_a_result(make: Make) -> None:
    twice = Message.assistant(tool_calls=[ToolCall("a", "look", "{}"), ToolCall("a", "fail", "{}")])
    session = make(twice, twice, "Done.")
    assert session.chat("Hello", tools=[look, fail]).text == "Done."
    assert len([text for role, text, _ in said(session) if role == "tool"]) == 4
    holds(session)


def test_a_function_may_give_what_is_to_be_awaited(make: Make) -> None:
    def hidden() -> Any:
        return wander()

    session = make(call("hidden"), "Done.")
    session.chat("Hello", tools=[hidden])
    assert said(session)[2][1] == "far away"


def test_functions_see_the_context_variables_of_their_caller(url: str) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    def plain() -> str:
        return user.get()

    async def later() -> str:
        return user.get()

    with Memory(url, backend=ScriptedBackend([call("plain", "later"), "Done."])) as memory:
        user.set("ada")
        memory.session("chat").chat("Hello", tools=[plain, later])
        assert [text for role, text, _ in said(memory.session("chat")) if role == "tool"] == ["ada", "ada"]

    async def work(session: AsyncSession) -> None:
        user.set("bob")
        await session.chat("Hello", tools=[plain, later])
        assert [text for role, text, _ in (await said_to(session))[4:] if role == "tool"] == ["bob", "bob"]

    run(work, url, call("plain", "later"), "Done.")


def test_in_an_async_session_plain_functions_run_on_threads_and_others_on_the_loop(url: str) -> None:
    ran: dict[str, int] = {}

    def plain() -> str:
        ran["plain"] = threading.get_ident()
        return "plain"

    async def later() -> str:
        ran["later"] = threading.get_ident()
        return "later"

    def approve(one: ToolCall) -> bool:
        ran["approve"] = threading.get_ident()
        return True

    async def work(session: AsyncSession) -> None:
        reply = await session.chat("Hello", tools=[plain, later], approve=approve)
        assert reply.text == "Done."
        assert [text for _, text, _ in await said_to(session)] == ["Hello", "", "plain", "later", "Done."]

    run(work, url, call("plain", "later"), "Done.")
    loop = ran.pop("later")
    assert loop == threading.get_ident()
    assert loop not in ran.values()


def test_the_async_twin_streams_the_same_events(url: str) -> None:
    async def work(session: AsyncSession) -> None:
        async def approve(one: ToolCall) -> bool | str:
            await asyncio.sleep(0)
            return one.name != "fail" or "Not that."

        async with session.stream("Hello", tools=[look, wander, fail], approve=approve, tool_choice="required") as stream:
            told = [event.tool_result.text if event.tool_result else event.text async for event in stream]
        assert told == ["", "a hen", "far away", "Not that.", "A ", "hen.", ""]
        assert stream.text == stream.reply.text == "A hen."

    backend = run(work, url, call("look", "wander", "fail"), "A hen.")
    assert [context.tool_choice for context in backend.seen] == ["required", None]


def test_asynchronous_functions_run_at_once_beside_other_work_of_the_loop(url: str) -> None:
    async def work(session: AsyncSession) -> None:
        meet = asyncio.Barrier(3)

        async def together() -> str:
            async with meet:
                return "met"

        async with asyncio.timeout(4):
            await asyncio.gather(session.chat("Hello", tools=[together]), meet.wait())
        assert [text for role, text, _ in await said_to(session) if role == "tool"] == ["met", "met"]

    run(work, url, call("together", "together"), "Done.")


@pytest.mark.parametrize("how", ["plain", "asynchronous", "stubborn", "approval"])
def test_a_tool_that_hangs_past_cancellation_keeps_nothing(url: str, how: str) -> None:
    begun, free = threading.Event(), threading.Event()
    ended: list[str] = []

    def plain() -> str:
        begun.set()
        free.wait(4)
        return "too late"

    async def asynchronous() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            if how == "stubborn":
                await asyncio.sleep(0.5)
            raise
        return "never"

    def approve(one: ToolCall) -> bool:
        return how != "approval" or bool(plain())

    tool = plain if how in ("plain", "approval") else asynchronous

    async def work(session: AsyncSession) -> None:
        task = asyncio.create_task(session.chat("Hello", key="k", tools=[look, tool], approve=approve))
        await asyncio.to_thread(begun.wait, 4)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await said_to(session))[1:] == [("assistant", "", "complete")] + [("tool", "a hen", "complete")] * (how != "approval")
        began = time.monotonic()
        assert (await session.chat("Hello", key="k", timeout=0)).text == "Done."
        assert time.monotonic() - began < 2
        free.set()
        await asyncio.sleep(0.05)
        assert "too late" not in str(await said_to(session))

    run(work, url, call("look", tool.__name__), "Done.")
    assert ended == ["cancelled"] * (tool is asynchronous)


def test_a_tool_that_cancels_itself_has_failed(url: str) -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    async def work(session: AsyncSession) -> None:
        assert (await session.chat("Hello", tools=[gives_up])).text == "Done."
        assert (await said_to(session))[2] == ("tool", "Error: CancelledError", "complete")

    run(work, url, call("gives_up"), "Done.")


def test_leaving_an_async_stream_between_results_leaves_a_session_that_works(url: str) -> None:
    async def work(session: AsyncSession) -> None:
        async with session.stream("Hello", key="k", tools=[look, wander]) as stream:
            async for event in stream:
                if event.tool_result:
                    break
        assert (await said_to(session))[1:] == [("assistant", "", "complete"), ("tool", "a hen", "complete")]
        assert (await session.chat("Hello", key="k", timeout=0)).text == "Done."

    run(work, url, call("look", "wander"), "Done.")


def test_turns_cancelled_at_any_moment_of_a_round_leave_sessions_that_work(url: str) -> None:
    def rest() -> str:
        time.sleep(0.01)
        return "rested"

    async def nap() -> str:
        await asyncio.sleep(0.01)
        return "slept"

    backend = ScriptedBackend(lambda context: "Done." if context.messages[-1]["role"] == "tool" else call("rest", "nap", "rest"))

    async def work() -> None:
        async with AsyncMemory(url, backend=backend, budget=BUDGET) as memory:
            for number in range(16):
                session = memory.session(f"session {number}")
                task = asyncio.create_task(session.chat("Hello", key="k", tools=[rest, nap]))
                await asyncio.sleep(number * 0.006)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert memory.store.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
                assert (await session.chat("Hello", key="k", tools=[rest, nap], timeout=0)).text == "Done."

    asyncio.run(work())
    with Memory(url, backend=backend, budget=BUDGET) as memory:
        for number in range(16):
            holds(memory.session(f"session {number}"))


# ---- whatever happens ----


class Script(NamedTuple):
    """What happens in one turn."""

    rounds: list[list[str]]
    """The names that are called."""
    end: str
    leave_after: int | None
    """Events that are read; None: all."""
    dies: bool
    """Whether its process is dead after them, a draft of what was said last on disk."""
    refused: bool
    again: bool
    """Whether the turn is tried again under its key."""


names = st.lists(st.sampled_from(["look", "wander", "fail", "stop", "fly", "Pay"]), min_size=1, max_size=3)
turns = st.builds(
    Script,
    st.lists(names, max_size=4),
    st.sampled_from(["answered", "fails", "cut"]),
    st.none() | st.integers(0, 12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


class Scripted(ScriptedBackend):
    """Calls by a script, and then answers, fails or is cut."""

    def __init__(self) -> None:
        super().__init__([])
        self.left: list[Message] = []
        self.end = "answered"

    def stream(self, context: Context) -> Iterator[Event]:
        if not self.left:
            yield Event("So ")
            if self.end == "fails":
                raise BackendError("out of memory")
            if self.end == "answered":
                yield Event("it is.", finish="stop")
            return
        yield Event(tool_calls=self.left.pop(0).tool_calls, finish="tool_calls")


class Stop(BaseException):
    """Nothing catches it."""


def stop() -> None:
    """Stop."""
    raise Stop


def test_whatever_a_turn_comes_to_its_log_is_valid_and_the_session_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    backend = Scripted()
    asked = Asked(backend.counter)
    with Memory("sqlite://", backend=backend, budget=BUDGET, upkeep=False) as memory:
        numbers = count(1)

        @settings(max_examples=max(1, settings().max_examples // 2))
        @given(st.lists(turns, min_size=1, max_size=3))
        def always(script: list[Script]) -> None:
            session = memory.session(f"session {next(numbers)}")
            for at, one in enumerate(script):
                backend.left, backend.end = [call(*names) for names in one.rounds], one.end
                for _ in range(1 + one.again):
                    with suppress(Stop, BackendError, Died), stream_of(session, f"key {at}", one) as stream:
                        list(islice(stream, one.leave_after))
                        if one.dies and stream.turn.reply is None:
                            die(stream)
            log = Log(tuple(entry.message for entry in session.entries(limit=1000)))
            assert [message.text for message in log.messages if message.role == "user"] == ["Hello"] * len(script)
            least, most = smallest(log, asked), whole(log, asked)
            for ceiling in (least, (least + most) // 2, most):
                assert not (found := violations(session.context(budget=Budget(ceiling)), log, asked)), found
            with session.turn("after all", timeout=0) as turn:
                turn.finish("fine")

        always()


class Died(Exception):
    """Stands for the end of a process."""


def die(stream: Stream) -> None:
    """Nothing more is written, and the lease ends."""
    stream.turn.lease.let_go()
    with stream.turn._setup.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE threadkeep_turns SET until_us = 0, holder = 'another|0|0|0' WHERE state = 'open'")
    with suppress(Conflict):  # the turn is held no more
        stream.close()
    raise Died


def stream_of(session: Session, key: str, one: Script) -> Stream:
    tools = [look, wander, fail, stop, Pay]
    return session.stream("Hello", key=key, tools=tools, approve=lambda _: not one.refused, max_rounds=3, timeout=0)
