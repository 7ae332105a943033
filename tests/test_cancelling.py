"""Leaving a real model's reply: what was delivered is what is stored, and the engine goes on with the next."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from threadkeep import Budget, LlamaCpp, Memory

pytestmark = pytest.mark.model
QUESTION = "Tell me of the lighthouse on the northern cape."
TOKENS = 12


@pytest.fixture(scope="module")
def backend() -> Iterator[LlamaCpp]:
    made = LlamaCpp("smollm2-135m", window=1024, parallel=1, temperature=0, threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def memory(backend: LlamaCpp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    folder: Path = tmp_path_factory.mktemp("cancelling")
    with Memory(f"sqlite:///{folder / 'chat.db'}", backend=backend, budget=Budget(1024, reply=TOKENS)) as made:
        yield made


@pytest.fixture(scope="module")
def whole(memory: Memory) -> str:
    """The reply that nobody leaves."""
    return memory.session("whole").chat(QUESTION).text


def is_idle_soon(backend: LlamaCpp) -> bool:
    until = time.monotonic() + 10
    while backend.busy and time.monotonic() < until:
        time.sleep(0.01)
    return backend.busy == 0


@pytest.mark.parametrize("tokens", [1, 2, 5, 11, 12])
def test_a_reply_left_after_a_token_is_stored_as_delivered_and_the_engine_stops(
    memory: Memory, backend: LlamaCpp, whole: str, tokens: int
) -> None:
    session = memory.session(f"left after {tokens}")
    words: list[str] = []
    with session.stream(QUESTION) as stream:
        for event in stream:
            words += [event.text] if event.text else []
            if len(words) == tokens:
                break
    assert whole.startswith("".join(words))
    assert [(entry.role, entry.message.text, entry.status) for entry in session.entries()] == [
        ("user", QUESTION, "complete"),
        ("assistant", "".join(words), "interrupted"),
    ]
    assert is_idle_soon(backend)


def test_a_reply_left_before_its_first_token_stores_none_and_the_next_is_whole(memory: Memory, backend: LlamaCpp, whole: str) -> None:
    session = memory.session("left at once")
    with session.stream(QUESTION) as stream:
        next(stream)
    assert [entry.role for entry in session.entries()] == ["user"]
    assert is_idle_soon(backend)
    assert memory.session("afterwards").chat(QUESTION).text == whole
