"""Inside a turn: tools, replies in many forms, what goes wrong, and its context made again."""

from decimal import Decimal

import pytest
from openai.types.chat import ChatCompletion
from test_turns import fail, said

from threadkeep import (
    Budget,
    CannotFit,
    Conflict,
    InvalidMessage,
    InvalidSetting,
    Memory,
    Message,
    NoBackend,
    NotFound,
    ScriptedBackend,
    Session,
    TiktokenCounter,
    ToolCall,
    Usage,
)

TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}}


def test_an_exception_stores_no_reply_and_goes_through(session: Session) -> None:
    with pytest.raises(KeyboardInterrupt), session.turn("Hello"):
        raise KeyboardInterrupt
    assert said(session) == [("user", "Hello")]
    assert session.chat("again", timeout=0).text == "reply to again"


def test_a_turn_is_finished_once(session: Session) -> None:
    with session.turn("Hello") as turn:
        turn.finish("one")
        for write in (lambda: turn.finish("two"), lambda: turn.append(Message.assistant("two")), lambda: turn.request):
            with pytest.raises(Conflict):
                write()
    assert said(session) == [("user", "Hello"), ("assistant", "one")]


def test_a_turn_outside_of_its_block_is_a_conflict(session: Session) -> None:
    turn = session.turn("Hello")
    with pytest.raises(Conflict):
        turn.finish("one")
    with pytest.raises(Conflict):
        _ = turn.request


@pytest.mark.parametrize(
    "message", [Message.assistant("Hello"), Message.system("Hello"), {"role": "tool", "content": "x", "tool_call_id": "a"}]
)
def test_a_turn_begins_with_a_users_message(session: Session, message: Message) -> None:
    with pytest.raises(InvalidSetting):
        session.turn(message)


@pytest.mark.parametrize("reply", [Message.user("no reply"), {"role": "nobody", "content": ""}, {"content": 7}, 7, None])
def test_what_is_no_reply_is_refused_and_the_turn_goes_on(session: Session, reply: Message) -> None:
    with session.turn("Hello") as turn:
        with pytest.raises((InvalidMessage, InvalidSetting)):
            turn.finish(reply)
        turn.finish("a reply")
    assert said(session) == [("user", "Hello"), ("assistant", "a reply")]


COMPLETION = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-4.1-nano-2025-04-14",
    "choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "Good morn"}, "logprobs": None}],
    "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, "prompt_tokens_details": {"cached_tokens": 20}},
}


@pytest.mark.parametrize("completion", [COMPLETION, ChatCompletion.model_validate(COMPLETION)], ids=["dict", "object"])
def test_a_completion_is_stored_with_its_usage(session: Session, completion: ChatCompletion) -> None:
    with session.turn("Hello") as turn:
        reply = turn.finish(completion)
    assert (reply.text, reply.finish, reply.status) == ("Good morn", "length", "complete")
    assert reply.usage == Usage(30, 7, 20, cost=Decimal("0.0000043"))  # as gpt-4.1-nano is published at
    (call,) = session.calls()
    assert (call.turn_id, call.purpose, call.model) == (1, "reply", "gpt-4.1-nano-2025-04-14")
    assert (call.prompt_tokens, call.cached_tokens, call.completion_tokens) == (30, 20, 7)


def test_usage_may_be_told_apart(session: Session) -> None:
    with session.turn("Hello") as turn:
        turn.finish("a reply", usage=Usage(10, 3, first_token_ms=1.6, total_ms=9.2))
    (call,) = session.calls()
    assert (call.prompt_tokens, call.completion_tokens, call.first_token_ms, call.total_ms) == (10, 3, 2, 9)


def test_calls_of_tools_and_their_results_go_into_the_next_request(session: Session) -> None:
    with session.turn("Where is it?", tools=[TOOL]) as turn:
        assert [message["role"] for message in turn.messages] == ["user"]
        call = Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}"), ToolCall("b", "look", "{}")])
        turn.append(call, Message.tool("under the bed", tool_call_id="b"))
        turn.append(Message.tool("nothing here", tool_call_id="a"))
        assert [message["role"] for message in turn.messages] == ["user", "assistant", "tool", "tool"]
        assert turn.request["tools"] == [TOOL]
        reply = turn.finish("Under the bed.")
    assert reply.seq == 5
    assert {entry.turn_seq for entry in session.entries()} == {1}
    assert [message["role"] for message in session.context("Thanks").messages] == ["user", "assistant", "tool", "tool", "assistant", "user"]


def test_a_bad_message_in_a_turn_writes_nothing_of_the_batch(session: Session) -> None:
    with session.turn("Hello") as turn:
        with pytest.raises(InvalidMessage, match=r"messages\[1\]"):
            turn.append(Message.assistant("one"), {"role": "nobody"})
        turn.finish("a reply")
    assert said(session) == [("user", "Hello"), ("assistant", "a reply")]


def test_a_reply_that_could_not_be_stored_is_kept_as_cut(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.stores.ledger.add_call", lambda *_: fail(None))
    with pytest.raises(ZeroDivisionError), session.turn("Hello", key="k") as turn:
        turn.finish("a long reply", usage=Usage(1, 1))
    assert said(session) == [("user", "Hello"), ("assistant", "a long reply…")]
    assert session.calls() == []


def test_what_tools_said_before_a_failure_is_there_when_the_turn_is_taken_up_again(session: Session) -> None:
    call = Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")])
    with pytest.raises(ZeroDivisionError), session.turn("Where is it?", key="k") as turn:
        fail(turn.append(call, Message.tool("under the bed", tool_call_id="a")))
    with session.turn("Where is it?", key="k") as again:
        assert [message["role"] for message in again.messages] == ["user", "assistant", "tool"]
        assert again.finish("Under the bed.").seq == 4
    assert session.chat("Where is it?", key="k").text == "Under the bed."


# Contexts of turns.


def test_a_turns_context_is_made_again_from_its_record(session: Session) -> None:
    contexts = {}
    for number in range(12):
        with session.turn(
            f"message {number} " * 30, tools=[TOOL] if number % 2 else None, max_tokens=1000 + number, instructions=f"v{number}"
        ) as turn:
            contexts[turn.id] = turn.context
            turn.finish("reply " * 60)
    for turn_id, context in contexts.items():
        again = session.context(as_of=turn_id)
        assert again.request == context.request
        assert (again.tokens, again.decisions, again.budget) == (context.tokens, context.decisions, context.budget)


def test_a_turn_without_a_context_has_none_to_make_again(session: Session) -> None:
    with session.turn("Hello") as turn:
        pass
    for missing in (turn, 1, 2):
        with pytest.raises(NotFound):
            session.context(as_of=missing)
    with pytest.raises(InvalidSetting):
        session.context("Hello", as_of=1)
    with pytest.raises(InvalidSetting):
        session.context(as_of=session.turn("never begun"))


def test_a_context_that_cannot_fit_leaves_the_turn_unanswered(url: str, counter: TiktokenCounter) -> None:
    with Memory(url, counter=counter, budget=Budget(50, reply=10)) as memory:
        session = memory.session("chat")
        with pytest.raises(CannotFit), session.turn("word " * 100, key="k") as turn:
            turn.finish(str(turn.request))
        with session.turn("short") as turn:
            turn.finish("fine")


def test_a_memory_with_a_counter_alone_answers_nothing(url: str, counter: TiktokenCounter) -> None:
    with Memory(url, counter=counter, budget=Budget(4000)) as memory:
        with pytest.raises(NoBackend):
            memory.session("chat").chat("Hello")
        assert memory.sessions() == []


def test_a_model_that_was_forgotten_to_be_replaced_fails_the_test(url: str) -> None:
    with Memory(url) as memory, pytest.raises(pytest.fail.Exception, match="real model"):
        memory.session("chat").chat("Hello")


def test_handles_of_several_memories_share_a_session(url: str, session: Session) -> None:
    with Memory(url, backend=ScriptedBackend(["from there"]), budget=Budget(4000)) as other:
        with session.turn("here"), pytest.raises(Conflict), other.session("chat", owner="ada").turn("there", timeout=0):
            pass
        assert other.session("chat", owner="ada").chat("there").text == "from there"
    assert said(session) == [("user", "here"), ("user", "there"), ("assistant", "from there")]
