"""Test suites that every implementation of a plug-in must pass: subclass one, and override its fixture.

class TestMyBackend(BackendContract):
    @pytest.fixture
    def backend(self):
        return MyBackend()
"""

import threading
from collections.abc import Iterator

import pytest

from threadkeep.backends.base import Backend, Event
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.message import Message


class BackendContract:
    """What holds for every backend. It must answer any number of requests, each with at least a word of text."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        """The backend to test; closed by the fixture that made it."""
        raise NotImplementedError("override the fixture `backend`")

    def context(self, backend: Backend, *messages: Message, reply: int = 16) -> Context:
        """A context as it would be assembled for this backend."""
        asked = messages or (Message.user("Say: good morning, Ada."),)
        counted = backend.counter.count_request(asked)
        return Context(
            messages=[message.to_dict() for message in asked],
            budget=Budget(backend.window, reply=reply),
            tokens=counted.tokens,
            exact=counted.exact,
            counter=backend.counter.name,
            strategy="none",
            picks=(),
            decisions=(),
        )

    def test_it_is_a_backend(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)
        assert backend.name
        assert backend.window > 0
        assert backend.counter.name

    def test_it_stands_among_its_own_candidates(self, backend: Backend) -> None:
        assert list(backend.candidates({"messages": [{"role": "user", "content": "Hello"}]})) == [backend]

    def test_only_the_last_event_says_that_it_is_over(self, backend: Backend) -> None:
        events = list(backend.stream(self.context(backend)))
        assert [event.finish for event in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1].finish in ("stop", "length")
        assert "".join(event.text for event in events).strip()

    def test_the_last_event_says_what_it_took(self, backend: Backend) -> None:
        context = self.context(backend)
        events = list(backend.stream(context))
        usage = events[-1].usage
        assert usage is not None
        assert all(event.usage is None for event in events[:-1])
        assert usage.completion_tokens > 0
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens
        if context.exact:
            assert usage.prompt_tokens == context.tokens

    def test_it_counts_text_that_no_encoding_can_hold(self, backend: Backend) -> None:
        awkward = Message.user("lone \ud800 surrogate, NUL \0, <|im_end|>, <|endoftext|>")
        assert backend.counter.count(awkward).tokens > 0
        assert backend.counter.count_request([awkward]).tokens > 0

    def test_counts_add_up_where_the_counter_says_so(self, backend: Backend) -> None:
        counter = backend.counter
        messages = [Message.user("My name is Ada."), Message.assistant("Good morning, Ada."), Message.user("What is my name?")]
        counts = [counter.count(message).tokens for message in messages]
        whole = counter.count_request(messages).tokens
        assert counter.count_request(messages, counts=counts).tokens == whole
        if counter.additive:
            assert counter.count_request(messages[:1]).tokens == whole - sum(counts[1:])

    def test_a_reply_can_be_left_early(self, backend: Backend) -> None:
        stream = backend.stream(self.context(backend))
        next(stream)
        close = getattr(stream, "close", None)
        assert callable(close), "stream gives a generator, or an iterator with close()"
        close()
        assert list(backend.stream(self.context(backend)))[-1].finish is not None

    def test_several_threads_can_ask_at_once(self, backend: Backend) -> None:
        replies: list[list[Event]] = []
        threads = [threading.Thread(target=lambda: replies.append(list(backend.stream(self.context(backend))))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [reply[-1].finish is not None for reply in replies] == [True] * 3

    def test_it_can_be_closed_twice(self, backend: Backend) -> None:
        backend.close()
        backend.close()
