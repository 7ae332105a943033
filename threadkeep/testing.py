"""Test suites that every implementation of a plug-in must pass: subclass one, and override its fixture.

class TestMyBackend(BackendContract):
    @pytest.fixture
    def backend(self):
        return MyBackend()

They need pytest; the one for strategies needs hypothesis too, and tries as many random logs as hypothesis' profile says.
"""

import hashlib
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from threadkeep.backends.base import Backend, Event
from threadkeep.backends.scripted import ScriptedBackend
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.embedder_contract import EmbedderContract
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import CannotFit, InvalidSetting, NotFound
from threadkeep.memory.fitting import Profile
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.quotation import RECALLED
from threadkeep.memory.session import Session
from threadkeep.memory.tokens import Count, TokenCounter
from threadkeep.memory.turn import Turn
from threadkeep.promises import Asked, Log, shown_by, smallest, violations, whole
from threadkeep.random_logs import CONTROL, PROFILES, TOOL, Step, asks, assistants, instructing, logs, results, steps, users
from threadkeep.store_contract import StoreContract
from threadkeep.strategies.base import Strategy

__all__ = ["BackendContract", "EmbedderContract", "StoreContract", "StrategyContract"]


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


class StrategyContract:
    """What holds for every strategy, whatever the log and the budget: the assembler sees to it, if the strategy is a function of the log.

    The strategy must be picklable, since another process is asked for the same context.
    """

    @pytest.fixture
    def strategy(self) -> Strategy:
        """The strategy to test."""
        raise NotImplementedError("override the fixture `strategy`")

    @pytest.fixture
    def counter(self) -> TokenCounter:
        """What counts; picklable too."""
        return TiktokenCounter("o200k_base")

    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        """The URL of a database without any session, migrated where it does not migrate itself."""
        return f"sqlite:///{tmp_path / 'promises.db'}"

    @pytest.fixture
    def desk(self, strategy: Strategy, counter: TokenCounter, store_url: str) -> Iterator["Desk"]:
        with Desk(store_url, strategy, counter) as desk:
            yield desk

    @pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
    def test_every_context_keeps_its_promises_or_none_is_possible(self, desk: "Desk", profile: Profile) -> None:
        @_often()
        @given(logs(), st.sampled_from((None, "", "Be kind.")), st.booleans(), st.booleans(), st.lists(st.floats(0, 1), max_size=3))
        def holds(log: Log, instructions: str | None, tools: bool, counted_otherwise: bool, shares: list[float]) -> None:
            asked = Asked(desk.counter, profile, instructions, (TOOL,) if tools else ())
            session = desk.session(profile, log, instructions, counted_otherwise=counted_otherwise)
            least, most = smallest(log, asked), whole(log, asked)
            adds_up = profile.fits_plain and desk.counter.additive  # elsewhere an entry more may cost less: its neighbours become one
            between = [least + int(share * (most - least)) for share in shares]
            for ceiling in sorted({1, least - 1, least, *between, most - 1, most}):
                if ceiling < 1:
                    continue
                given = _or_refused(lambda: session.context(tools=asked.tools, budget=Budget(ceiling + 7, reply=7)))  # noqa: B023
                if isinstance(given, CannotFit):
                    assert ceiling < least, f"P1: {least} tokens would do within {ceiling}, and it is refused: {given}"
                    assert given.needed == least
                else:
                    if adds_up:
                        assert ceiling >= least, f"no valid context takes less than {least} tokens, and one is given for {ceiling}"
                    assert not (found := violations(given, log, asked)), found

        holds()

    @pytest.mark.parametrize("profile", PROFILES[:3], ids=lambda profile: profile.name)
    def test_a_message_that_is_supposed_gives_the_context_that_it_gets(self, desk: "Desk", profile: Profile) -> None:
        @_often()
        @given(logs(), st.one_of(users, assistants, results, asks, instructing), st.integers(10, 3000))
        def holds(log: Log, message: Message, ceiling: int) -> None:
            session = desk.session(profile, log, None)
            supposed = _sent(lambda: session.context(message, budget=Budget(ceiling)))
            session.append(message)
            assert _sent(lambda: session.context(budget=Budget(ceiling))) == supposed

        holds()

    @pytest.mark.parametrize("profile", PROFILES[:3], ids=lambda profile: profile.name)
    def test_turns_share_their_beginning_and_can_be_made_again(self, desk: "Desk", profile: Profile) -> None:
        @_often(4)
        @given(st.lists(steps, min_size=2, max_size=6), st.integers(200, 2500))
        def holds(taken: list[Step], ceiling: int) -> None:
            asked = Asked(desk.counter, profile, "Be kind.")
            conversation = Conversation(desk.session(profile, Log(()), asked.instructions), asked, ceiling)
            for step in taken:
                conversation.take(step)
            for before, after in pairwise(conversation.turns.values()):
                if after.first.cache_note == SAME_BEGINNING:
                    kept = before.last.messages[: before.opening]
                    assert after.first.messages[: len(kept)] == kept, "P13: another beginning, and the note does not say so"
            again = desk.another(profile).session(conversation.session.name)
            for turn_id, turn in conversation.turns.items():
                for made in (conversation.session.context(as_of=turn_id), again.context(as_of=turn_id)):
                    assert json.dumps(made.messages) == json.dumps(turn.last.messages)
                    assert made.tokens == turn.last.tokens
                    assert [replace(pick, step=0) for pick in turn.last.picks] == list(made.picks)
                    assert shown_by(made) == shown_by(turn.last)

        holds()

    def test_another_process_makes_the_same_bytes(self, desk: "Desk") -> None:
        @settings(_often(), max_examples=2)
        @given(st.lists(st.tuples(logs(), st.integers(50, 3000)), min_size=20, max_size=20))
        def holds(given_logs: list[tuple[Log, int]]) -> None:
            asked = [(desk.session(PROFILES[0], log, None).name, ceiling) for log, ceiling in given_logs]
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                there = pool.apply(_digests, (desk.url, desk.strategy, desk.counter, asked))
            assert there == _digests(desk.url, desk.strategy, desk.counter, asked)

        holds()

    def test_what_looks_like_a_control_token_stands_as_it_was_said(self, desk: "Desk") -> None:
        log = Log(tuple(Message.user(text) for text in CONTROL))
        context = desk.session(PROFILES[0], log, CONTROL[0]).context(budget=Budget(10_000))
        assert [message["content"] for message in context.messages] == [CONTROL[0], *CONTROL]


SAME_BEGINNING = "begins as the turn before"
WINDOW = 8192


def _often(share: int = 1) -> settings:
    """As often as hypothesis' profile says, or a share of that."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(deadline=None, suppress_health_check=slow, max_examples=max(1, settings().max_examples // share))


def _or_refused(assembled: Callable[[], Context]) -> Context | CannotFit:
    try:
        return assembled()
    except CannotFit as refusal:
        return refusal


def _sent(assembled: Callable[[], Context]) -> tuple[object, ...]:
    """A context's bytes, or what it was refused for."""
    given = _or_refused(assembled)
    if isinstance(given, CannotFit):
        return given.needed, given.parts
    return json.dumps(given.messages), given.tokens, given.decisions, json.dumps(given.manifest), given.cache_note


def _digests(url: str, strategy: Strategy, counter: TokenCounter, asked: Sequence[tuple[str, int]]) -> list[str]:
    """The contexts of sessions as hashes."""
    with Memory(url, backend=ScriptedBackend([], counter=counter, window=WINDOW), strategy=strategy, upkeep=False) as memory:
        made = [_sent(partial(memory.session(name).context, budget=Budget(ceiling))) for name, ceiling in asked]
    return [hashlib.sha256(repr(one).encode()).hexdigest() for one in made]


class Letters:
    """Counts a token for every four letters: a tokenizer that another one's counts say nothing about."""

    name = "letters"
    additive = True

    def count(self, message: Message) -> Count:
        return Count(4 + (len(message.text) + sum(len(call.arguments) for call in message.tool_calls)) // 4, exact=False)

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        given = [self.count(message).tokens for message in messages] if counts is None else counts
        return Count(sum(given) + len(json.dumps([tools, response_format])) // 4, exact=False)


class Desk:
    """Where random logs are laid into a database, with a memory for each profile."""

    def __init__(self, url: str, strategy: Strategy, counter: TokenCounter) -> None:
        self.url = url
        self.strategy = strategy
        self.counter = counter
        self._numbers = count(1)
        self._memories: dict[object, Memory] = {}

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *error: object) -> None:
        for memory in self._memories.values():
            memory.close()

    def session(self, profile: Profile, log: Log, instructions: str | None, *, counted_otherwise: bool = False) -> Session:
        """A new session with this log."""
        name = f"session {next(self._numbers)}"
        writer = self._memory(("other", profile.name), profile, Letters()) if counted_otherwise else None
        memory = self._memory(profile.name, profile, self.counter)
        (writer or memory).session(name).append(*log.messages)
        for seq in sorted(seq for seq in log.pinned if seq in log.showable or seq <= log.leading):
            memory.session(name).pin(seq)
        return memory.session(name, instructions=instructions)

    def another(self, profile: Profile) -> Memory:
        """A second memory on the same database."""
        return self._memory(("again", profile.name), profile, self.counter)

    def _memory(self, key: object, profile: Profile, counter: TokenCounter) -> Memory:
        if key not in self._memories:
            backend = ScriptedBackend(lambda _: "well then " * 3, counter=counter, profile=profile, window=WINDOW)
            self._memories[key] = Memory(self.url, backend=backend, strategy=self.strategy, upkeep=False)
        return self._memories[key]


@dataclass
class Taken:
    """The contexts of one turn: the first, and the one it ended with."""

    first: Context
    last: Context
    opening: int
    """How many messages stand before the recalled block, or before the live user message, in the last."""


class Conversation:
    """A session in which random turns are taken, each context looked at."""

    def __init__(self, session: Session, asked: Asked, ceiling: int) -> None:
        self.session = session
        self.turns: dict[int, Taken] = {}
        """By the turns' numbers; turns whose context cannot fit are not among them."""
        self._asked = asked
        self._reply = WINDOW - ceiling
        self._pinned: set[int] = set()
        self._numbers = count(1)

    def take(self, step: Step) -> None:
        key = f"key {next(self._numbers)}"
        text = f"{key}: {step.text}"
        if step.pin:
            with suppress(NotFound, InvalidSetting):
                self.session.pin(step.pin)
                self._pinned.add(step.pin)
        if step.ends in ("cut", "retried"):
            with suppress(CannotFit), self.session.stream(text, key=key, max_tokens=self._reply) as stream:
                self._see(stream.turn, text)
                next(stream)
            if step.ends == "cut":
                return
        with self.session.turn(text, key=key, max_tokens=self._reply) as turn:
            partial_reply = [entry.seq for entry in self.session.entries(limit=1000) if entry.seq > turn.user.seq]
            self._see(turn, text, frozenset(partial_reply))
            for ask in step.asks:
                turn.append(ask)
                self._see(turn, text, frozenset(partial_reply))
                turn.append(*(Message.tool(step.result, tool_call_id=call.id) for call in ask.tool_calls))
                self._see(turn, text, frozenset(partial_reply))
            if step.ends != "left":
                turn.finish("So it is.")

    def _see(self, turn: Turn, text: str, replaced: frozenset[int] = frozenset()) -> None:
        messages = tuple(entry.message for entry in self.session.entries(limit=1000))
        log = Log(messages, frozenset(self._pinned), replaced)
        context = _or_refused(lambda: turn.context)
        if isinstance(context, CannotFit):
            assert context.needed == smallest(log, self._asked) > context.room
            return
        assert not (found := violations(context, log, self._asked)), found
        assert turn.id is not None
        opening = next(at for at, message in reversed(list(enumerate(context.messages))) if text in str(message["content"]))
        marked = (at for at, message in enumerate(context.messages) if RECALLED in str(message["content"]))
        first = self.turns[turn.id].first if turn.id in self.turns and not replaced else context
        self.turns[turn.id] = Taken(first, context, min(opening, *marked, opening))
