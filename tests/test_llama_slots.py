"""Which slot of the engine answers: a conversation's own, an empty one, the longest idle; and who asked first is answered first."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from threadkeep import Budget, LlamaCpp, Memory
from threadkeep.backends.llama_slots import Slots

SYSTEM: dict[str, object] = {"role": "system", "content": "Be brief."}


def never() -> bool:
    return False


def chat(*texts: str) -> list[dict[str, object]]:
    """A request with these messages, user and assistant in turn."""
    said: list[dict[str, object]] = [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]
    return [SYSTEM, *said]


def answered(slots: Slots, *texts: str) -> int | None:
    """The slot that answered a request, free again."""
    slot = slots.take(chat(*texts), never)
    if slot is not None:
        slots.give_back(slot)
    return slot


def test_a_conversation_comes_back_to_its_own_slot() -> None:
    slots = Slots(3)
    ada, ben = answered(slots, "a boat"), answered(slots, "a train")
    assert ada != ben
    assert answered(slots, "a boat", "yes", "and now?") == ada
    assert answered(slots, "a train", "no", "and now?") == ben


def test_a_conversation_whose_beginning_was_cut_comes_back_too() -> None:
    slots = Slots(2)
    ada = answered(slots, "a boat", "yes", "a bridge")
    answered(slots, "a train")
    assert answered(slots, "a bridge", "so", "a tower") == ada


def test_conversations_that_begin_alike_have_slots_of_their_own() -> None:
    slots = Slots(2)
    ada, ben = answered(slots, "hello", "hi", "a boat"), answered(slots, "hello", "hi", "a train")
    assert answered(slots, "hello", "hi", "a boat", "yes", "and now?") == ada != ben


def test_a_conversation_whose_last_message_is_written_otherwise_comes_back_too() -> None:
    slots = Slots(2)
    ada = answered(slots, "a boat", "yes", "<recalled>a kite</recalled> a bridge")
    answered(slots, "a train")
    assert answered(slots, "a boat", "yes", "a bridge", "so", "a tower") == ada


def test_the_same_request_again_is_answered_where_it_was() -> None:
    slots = Slots(3)
    ada = answered(slots, "a boat")
    answered(slots, "a train")
    assert answered(slots, "a boat") == ada


def test_the_same_words_do_not_make_the_same_conversation() -> None:
    slots = Slots(2)
    ada = answered(slots, "a boat", "yes", "thank you")
    assert answered(slots, "thank you") != ada


def test_where_none_is_empty_the_longest_idle_answers() -> None:
    slots = Slots(2)
    ada, ben = answered(slots, "a boat"), answered(slots, "a train")
    answered(slots, "a boat", "yes", "a bridge")
    assert answered(slots, "a kite") == ben
    assert answered(slots, "a bridge", "so", "a tower") == ada


def test_a_busy_slot_is_not_given_twice() -> None:
    slots = Slots(2)
    first = slots.take(chat("a boat"), never)
    assert slots.take(chat("a boat", "yes", "and now?"), never) != first


def test_who_asked_first_is_answered_first_and_who_left_is_passed_over() -> None:
    slots, left = Slots(1), threading.Event()
    slot = slots.take(chat("a boat"), never)
    assert slot is not None
    order: list[tuple[str, int | None]] = []

    def ask(name: str, is_left: threading.Event) -> None:
        got = slots.take(chat(name), is_left.is_set)
        order.append((name, got))
        if got is not None:
            slots.give_back(got)

    waiting = []
    for name in ("first", "left", "second", "third"):
        waiting.append(threading.Thread(target=ask, args=(name, left if name == "left" else threading.Event())))
        waiting[-1].start()
        while len(slots._waiting) < len(waiting):
            time.sleep(0.001)
    left.set()
    slots.wake()
    waiting[1].join(10)
    assert order == [("left", None)]
    slots.give_back(slot)
    for thread in waiting:
        thread.join(10)
    assert [name for name, got in order if got is not None] == ["first", "second", "third"]


@pytest.fixture
def backend() -> Iterator[LlamaCpp]:
    made = LlamaCpp("smollm2-135m", window=512, parallel=2, temperature=0, threads=1)
    yield made
    made.close()


@pytest.mark.model
def test_sessions_with_the_same_long_instructions_find_what_was_read_of_each(backend: LlamaCpp, tmp_path: Path) -> None:
    instructions = "You help the customers of a small railway. " * 12
    with Memory(f"sqlite:///{tmp_path / 'chat.db'}", backend=backend, budget=Budget(512, reply=2), instructions=instructions) as memory:
        sessions = [memory.session(name) for name in ("ada", "ben")]
        for session in sessions:
            session.chat(f"{session.name} asks for the train to the harbour, to the bridge and to the tower, on Monday and on Tuesday.")
        for session in sessions:
            seen = session.calls()[-1].prompt_tokens
            usage = session.chat("And back?").usage
            assert usage is not None
            assert usage.cached_tokens >= 0.9 * seen
