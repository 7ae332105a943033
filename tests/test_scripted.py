"""The backend that answers from a script."""

import threading
import time
from typing import Any

import pytest

from threadkeep.backends.base import Backend, Profile
from threadkeep.backends.scripted import ScriptedBackend
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, InvalidSetting
from threadkeep.memory.message import Message, ToolCall
from threadkeep.testing import BackendContract

loosely: Any = ScriptedBackend  # for what a type checker would refuse


class TestScriptedBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(lambda context: f"You said {context.messages[-1]['content']!r}.")


def asked(text: str = "Hello") -> Context:
    return Context([{"role": "user", "content": text}], Budget(1000), 9, True, "by hand", "none", (), ())


def test_it_speaks_word_by_word_and_loses_no_space() -> None:
    events = list(ScriptedBackend(["  Good  morning,\nAda. "]).stream(asked()))
    assert [event.text for event in events] == ["  ", "Good  ", "morning,\n", "Ada. ", ""]


def test_a_piece_can_be_several_words() -> None:
    assert [event.text for event in ScriptedBackend(["a b c"], chunk=2).stream(asked())] == ["a b ", "c", ""]


def test_it_gives_the_replies_in_order_and_remembers_what_it_was_asked() -> None:
    backend = ScriptedBackend(["One", Message.assistant("Two")])
    first, second = asked("first"), asked("second")
    assert "".join(event.text for event in backend.stream(first)) == "One"
    assert "".join(event.text for event in backend.stream(second)) == "Two"
    assert backend.seen == [first, second]


def test_an_exception_is_raised_in_its_place() -> None:
    backend = ScriptedBackend(["One", TimeoutError("gone"), "Three"])
    list(backend.stream(asked()))
    with pytest.raises(TimeoutError, match="gone"):
        list(backend.stream(asked()))
    assert next(backend.stream(asked())).text == "Three"


def test_a_script_that_is_used_up_says_so() -> None:
    backend = ScriptedBackend(["One"])
    list(backend.stream(asked()))
    with pytest.raises(BackendError, match="the script has 1 replies and was asked for number 2"):
        list(backend.stream(asked()))


def test_a_function_answers_the_context() -> None:
    backend = ScriptedBackend(lambda context: Message.assistant(f"{len(context.messages)} message"))
    assert "".join(event.text for event in backend.stream(asked())) == "1 message"


def test_a_function_that_answers_nonsense_is_a_failing_backend() -> None:
    def answers_a_number(context: Context) -> Any:
        return 5

    with pytest.raises(BackendError, match="is text or an assistant's message, not int"):
        list(ScriptedBackend(answers_a_number).stream(asked()))


def test_tool_calls_come_with_the_last_event() -> None:
    call = ToolCall("call_1", "weather", '{"city": "Turin"}')
    events = list(ScriptedBackend([Message.assistant("Looking.", tool_calls=[call])]).stream(asked()))
    assert [event.text for event in events] == ["Looking.", ""]
    assert (events[-1].tool_calls, events[-1].finish) == ((call,), "tool_calls")


def test_usage_is_counted_by_its_counter() -> None:
    counter = TiktokenCounter("gpt-4o")
    *_, last = ScriptedBackend(["Good morning, Ada."], counter=counter).stream(asked("Hello there"))
    assert last.usage is not None
    assert last.usage.prompt_tokens == counter.count_request([Message.user("Hello there")]).tokens
    assert last.usage.completion_tokens == 5
    assert last.usage.first_token_ms is not None
    assert last.usage.total_ms is not None
    assert 0 <= last.usage.first_token_ms <= last.usage.total_ms


def test_an_empty_reply_is_one_event() -> None:
    (only,) = ScriptedBackend([""]).stream(asked())
    assert (only.text, only.finish) == ("", "stop")
    assert only.usage is not None
    assert only.usage.first_token_ms is None


def test_it_waits_between_pieces_and_shows_that_it_lives() -> None:
    began = time.perf_counter()
    events = list(ScriptedBackend(["slow"], delay=0.6).stream(asked()))
    assert time.perf_counter() - began >= 0.6
    assert [event.text for event in events] == ["", "slow", ""]


def test_each_thread_gets_its_own_reply() -> None:
    backend = ScriptedBackend([str(number) for number in range(40)])
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(next(backend.stream(asked())).text)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said, key=int) == [str(number) for number in range(40)]


def test_its_profile_and_window_are_the_callers() -> None:
    backend = ScriptedBackend([], window=100, profile=Profile(system="first"))
    assert (backend.window, backend.profile.system) == (100, "first")
    assert ScriptedBackend([]).profile == Profile(name="scripted")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: loosely("One"), "put a single reply into a list"),
        (lambda: loosely(None), "replies is a list or a function, not NoneType"),
        (lambda: loosely(["One", 2]), r"replies\[1\] is text, an assistant's message or an exception, not int"),
        (lambda: loosely([Message.user("One")]), r"replies\[0\] .* not a message of the role user"),
        (lambda: loosely([], delay=-1), "delay is a number of seconds from 0, not -1"),
        (lambda: loosely([], chunk=0), "chunk is a number of words from 1, not 0"),
        (lambda: loosely([], window=0), "window is a number of tokens from 1, not 0"),
    ],
)
def test_a_bad_script_is_refused_at_once(make: Any, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        make()
