"""Streams: what is delivered is what is stored, whole or cut, however they end."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from threadkeep import (
    BackendError,
    Budget,
    CannotFit,
    Conflict,
    Context,
    Event,
    LeaseLost,
    Memory,
    Message,
    ScriptedBackend,
    Session,
    StoreBusy,
    ToolCall,
)

Make = Callable[..., Session]


class Odd(ScriptedBackend):
    """A backend that gives the events it was made with, and says whether it was closed."""

    def __init__(self, *events: Event | BaseException, pause: float = 0.0) -> None:
        super().__init__([])
        self.events, self.pause, self.closed = events, pause, False

    def stream(self, context: Context) -> Iterator[Event]:
        try:
            for event in self.events:
                time.sleep(self.pause)
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.closed = True


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes a session answered by a backend."""
    memories: list[Memory] = []

    def make(backend: ScriptedBackend) -> Session:
        memories.append(Memory(url, backend=backend, budget=Budget(4000, reply=500)))
        return memories[-1].session("chat")

    yield make
    for memory in memories:
        memory.close()


def said(session: Session) -> list[tuple[str, str, str]]:
    return [(entry.role, entry.message.text, entry.status) for entry in session.entries()]


def drafts(session: Session) -> list[str | None]:
    with session._setup.store.engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT draft FROM threadkeep_turns ORDER BY id").scalars())


def test_a_stream_gives_the_words_and_stores_the_whole(make: Make) -> None:
    session = make(ScriptedBackend(["Good morning, Ada."]))
    with session.stream("Hello") as stream:
        words = [event.text for event in stream]
    assert words == ["Good ", "morning, ", "Ada.", ""]
    assert stream.text == stream.reply.text == "Good morning, Ada."
    assert (stream.reply.status, stream.reply.finish, stream.reply.seq) == ("complete", "stop", 2)
    assert stream.reply.usage is not None
    assert stream.reply.usage.prompt_tokens == stream.context.tokens
    assert said(session)[1] == ("assistant", "Good morning, Ada.", "complete")


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_leaving_early_stores_exactly_what_was_delivered(make: Make, taken: int) -> None:
    session = make(ScriptedBackend(["one two three four five"]))
    with session.stream("Hello") as stream:
        words = [event.text for event in islice(stream, taken)]
    assert said(session) == [("user", "Hello", "complete"), ("assistant", "".join(words), "interrupted")]
    assert (stream.reply.status, stream.reply.text) == ("interrupted", "".join(words))


def test_leaving_before_anything_was_said_stores_no_reply(make: Make) -> None:
    session = make(ScriptedBackend(["one two"]))
    with session.stream("Hello") as stream:
        pass
    assert said(session) == [("user", "Hello", "complete")]
    with pytest.raises(Conflict):
        _ = stream.reply


def test_leaving_at_the_last_event_stores_the_whole(make: Make) -> None:
    session = make(ScriptedBackend(["one two"]))
    with session.stream("Hello") as stream:
        for event in stream:
            if event.finish:
                break
    assert said(session)[1] == ("assistant", "one two", "complete")
    assert len(session.calls()) == 1


def test_leaving_stops_the_model(make: Make) -> None:
    backend = Odd(Event("one "), Event("two"), Event(finish="stop"))
    with make(backend).stream("Hello") as stream:
        next(stream)
        assert not backend.closed
    assert backend.closed


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, GeneratorExit])
def test_an_exception_of_the_reader_stores_what_was_delivered(make: Make, error: type[BaseException]) -> None:
    session = make(ScriptedBackend(["one two three"]))

    def read() -> None:
        with session.stream("Hello") as stream:
            next(stream)
            raise error

    with pytest.raises(error):
        read()
    assert said(session)[1] == ("assistant", "one ", "interrupted")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BackendError("out of memory"), ZeroDivisionError()])
def test_a_model_that_fails_at_once_leaves_no_reply(make: Make, error: BaseException) -> None:
    session = make(Odd(error))
    with pytest.raises(type(error)):
        session.chat("Hello", key="k")
    assert said(session) == [("user", "Hello", "complete")]
    with session.turn("Hello", key="k", timeout=0) as turn:
        turn.finish("after all")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BackendError("out of memory"), ZeroDivisionError()])
def test_a_model_that_fails_on_the_way_leaves_what_it_said(make: Make, error: BaseException) -> None:
    session = make(Odd(Event("one "), Event("two "), error))
    with pytest.raises(type(error)):
        session.chat("Hello")
    assert said(session)[1:] == [("assistant", "one two ", "interrupted")]
    with session.turn("again", timeout=0):
        pass


def test_a_model_that_ends_without_a_reason_is_an_error_and_what_it_said_is_kept(make: Make) -> None:
    session = make(Odd(Event("one ")))
    with pytest.raises(BackendError, match="interrupted"):
        session.chat("Hello")
    assert said(session)[1] == ("assistant", "one ", "interrupted")


def test_a_model_that_says_nothing_at_all_is_an_error(make: Make) -> None:
    session = make(Odd())
    with pytest.raises(BackendError):
        session.chat("Hello")
    assert said(session) == [("user", "Hello", "complete")]


def test_an_empty_reply_is_a_reply(make: Make) -> None:
    session = make(Odd(Event(finish="stop")))
    assert session.chat("Hello").text == ""
    assert said(session)[1] == ("assistant", "", "complete")


def test_a_signal_that_the_model_is_at_work_is_no_reply(make: Make) -> None:
    session = make(Odd(Event(), Event(), Event("one"), Event(finish="stop")))
    with session.stream("Hello") as stream:
        next(stream)
    assert said(session) == [("user", "Hello", "complete")]


def test_calls_of_tools_are_a_reply(make: Make) -> None:
    call = ToolCall("a", "look", '{"where": "bed"}')
    session = make(ScriptedBackend([Message.assistant(None, tool_calls=[call]), "Under the bed."]))
    reply = session.chat("Where is it?")
    assert (reply.finish, reply.message.tool_calls) == ("tool_calls", (call,))
    assert session.entries()[1].message.content is None


def test_the_draft_is_saved_about_once_a_second(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.2)
    session = make(ScriptedBackend([" ".join(["word"] * 40)], delay=0.02))
    saved: list[str | None] = []
    with session.stream("Hello") as stream:
        for event in stream:
            if not event.finish:
                (draft,) = drafts(session)
                if draft and draft not in saved:
                    saved.append(draft)
    assert 2 <= len(saved) <= 6
    assert drafts(session) == [None]


def test_a_draft_that_cannot_be_saved_does_not_stop_the_stream(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    session = make(ScriptedBackend(["one two"]))
    with session.stream("Hello") as stream:
        with monkeypatch.context() as patch:
            patch.setattr("threadkeep.stores.turns.write", busy)
            next(stream)
        list(stream)
    assert said(session)[1] == ("assistant", "one two", "complete")


def busy(*_: object) -> None:
    raise StoreBusy("the database was locked")


def test_a_reply_whose_storing_fails_once_is_kept_as_cut(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make(ScriptedBackend(["one two"]))
    monkeypatch.setattr("threadkeep.stores.ledger.add_call", busy)
    with pytest.raises(StoreBusy):
        session.chat("Hello")
    assert said(session)[1] == ("assistant", "one two", "interrupted")


def test_a_stream_that_lost_its_session_stops_and_stores_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.memory.turn.DRAFT_SECONDS", 0.0)
    backend = Odd(Event("one "), Event("two "), Event("three"), Event(finish="stop"))
    session = make(backend)
    other = make(ScriptedBackend(["of the other"]))

    def read() -> None:
        with session.stream("Hello") as stream:
            next(stream)
            with session._setup.store.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE threadkeep_turns SET until_us = 0")
            other.chat("Mine now")
            list(stream)

    with pytest.raises(LeaseLost):
        read()
    assert backend.closed
    log = [(role, text) for role, text, _ in said(session)]
    assert log == [("user", "Hello"), ("assistant", "one "), ("user", "Mine now"), ("assistant", "of the other")]


def test_a_stream_whose_context_cannot_fit_leaves_the_session_free(make: Make) -> None:
    session = make(ScriptedBackend(["one two"]))
    with pytest.raises(CannotFit), session.stream("word " * 5000):
        pass
    unopened = session.stream("Hello")
    with pytest.raises(Conflict):
        _ = unopened.context
    assert session.chat("Hello", timeout=0).text == "one two"


def test_a_stream_is_read_inside_its_block_and_once(make: Make) -> None:
    session = make(ScriptedBackend(["one two"]))
    stream = session.stream("Hello")
    with pytest.raises(Conflict):
        next(stream)
    with stream:
        list(stream)
        with pytest.raises(Conflict):
            next(stream)
    assert len(said(session)) == 2


def test_a_stream_under_a_key_that_was_answered_gives_the_reply_at_once(make: Make) -> None:
    session = make(ScriptedBackend(["one two"]))
    session.chat("Hello", key="k")
    with session.stream("Hello", key="k") as stream:
        assert "".join(event.text for event in stream) == "one two"
    assert stream.reply.text == "one two"
    assert len(said(session)) == 2
    with session.stream("Hello", key="k") as left:
        pass
    assert left.reply.text == "one two"
    assert len(said(session)) == 2
