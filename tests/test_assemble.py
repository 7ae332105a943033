"""Assembling: whatever a strategy returns, the promises hold; and the rules themselves, one by one."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from threadkeep import (
    Budget,
    CannotFit,
    Context,
    History,
    Memory,
    Message,
    Pick,
    SlidingWindow,
    Strategy,
    StrategyError,
    TokenCounter,
    ToolCall,
)
from threadkeep.memory.message import JSON
from threadkeep.memory.tokens import Count
from threadkeep.promises import Asked, Log, smallest, violations, whole
from threadkeep.testing import Letters, StrategyContract

MUCH = "word " * 3000


@dataclass(frozen=True)
class Careless:
    """Returns too much, parts of groups, the same twice, late results, leading messages, long texts, or nothing: one after the other."""

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        dice = random.Random(history.head.seq)
        seqs = list(range(1, history.head.seq + 1))
        single = [Pick((seq,), 0, "one by one", score=dice.random()) for seq in dice.sample(seqs, len(seqs))]
        words = [
            Pick((seq,), 1, "told", kind=dice.choice(["summary", "excerpt"]), text=dice.choice(["It was said.", MUCH])) for seq in seqs[:3]
        ]
        return dice.choice(
            [
                [Pick(tuple(seqs), 0, "everything", step=dice.choice([0, 1, 50, 100_000]))],
                single,
                [*single, *single],
                [Pick(tuple(seqs[::2]), 0, "every second", step=30), Pick(tuple(seqs[1::3]), 10**9, "every third")],
                [Pick((*seqs, *reversed(seqs)), -1, "twice, and back")],
                [Pick(tuple(entry.seq for entry in history.entries(seqs) if entry.status == "late"), 0, "late")],
                [Pick((), 0, "nothing")],
                [],
                [*words, *single[:3]],
                [*words, Pick(tuple(seqs), 0, "everything")],
            ]
        )


class TestCareless(StrategyContract):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Careless()


class Folding:
    """A template that is not additive: a message costs more at the head, and less behind one of its own role."""

    name = "folding"
    additive = False

    def count(self, message: Message) -> Count:
        return Letters().count(message)

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        saved = sum(3 for one, after in pairwise(messages) if one.role == after.role)
        return Count(Letters().count_request(messages, tools=tools, response_format=response_format).tokens + 5 - saved)


class TestATemplateThatIsNotAdditive(StrategyContract):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return SlidingWindow()

    @pytest.fixture
    def counter(self) -> TokenCounter:
        return Folding()


class Returns:
    """Returns what it is told to."""

    def __init__(self, picks: object) -> None:
        self.picks = picks

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        if isinstance(self.picks, Exception):
            raise self.picks
        return self.picks  # type: ignore[return-value]


@pytest.fixture
def long_log(memory: Memory) -> list[Message]:
    messages = [Message.system("Be kind."), *(Message.user(f"{seq}: " + "word " * 50) for seq in range(2, 30)), Message.user("And now?")]
    memory.session("long").append(*messages)
    return messages


@pytest.mark.parametrize(
    "picks",
    [
        [Pick((999,), 1, "not there")],
        [Pick((-3,), 1, "not there")],
        [Pick((999,), 1, "not there", kind="excerpt", text="words")],
        [Pick((3,), 1, "an entry", kind="instructions")],
        [Pick((3,), 1, "without its words", kind="summary")],
        [Pick(("3",), 1, "text for a number")],  # type: ignore[arg-type]
        [Pick((3,), 1, "a score that is none", score=float("nan"))],
        [(3, 4)],
        ["all"],
        None,
        3,
    ],
)
def test_what_the_history_does_not_hold_is_the_strategys_error(memory: Memory, long_log: list[Message], picks: object) -> None:
    with pytest.raises(StrategyError, match="Returns"):
        memory.session("long").context(strategy=Returns(picks), budget=Budget(500))


def test_what_a_strategy_raises_goes_to_the_caller(memory: Memory, long_log: list[Message]) -> None:
    with pytest.raises(ZeroDivisionError):
        memory.session("long").context(strategy=Returns(ZeroDivisionError()), budget=Budget(500))


def test_a_strategy_that_returns_nothing_leaves_the_must_keeps(memory: Memory, long_log: list[Message]) -> None:
    context = memory.session("long").context(strategy=Returns([]), budget=Budget(500))

    assert [message["content"] for message in context.messages] == ["Be kind.", "And now?"]


def test_a_strategy_is_not_asked_when_all_fits(memory: Memory, long_log: list[Message]) -> None:
    context = memory.session("long").context(strategy=Returns(ZeroDivisionError()), budget=Budget(4000))

    assert len(context.messages) == len(long_log)


def test_a_picked_result_brings_its_call_and_the_other_results(memory: Memory) -> None:
    calls = [ToolCall("a", "look_up", "{}"), ToolCall("b", "look_up", "{}"), ToolCall("c", "look_up", "{}")]
    memory.session("s").append(
        Message.user("Where are they?"),
        Message.assistant(tool_calls=calls),
        Message.tool("in Rome", tool_call_id="b"),
        Message.tool("in Oslo", tool_call_id="a"),
        Message.user(MUCH),
        Message.user("And now?"),
    )

    context = memory.session("s").context(strategy=Returns([Pick((3,), 0, "this one")]), budget=Budget(500))

    assert [message.get("tool_call_id") for message in context.messages] == [None, "b", "a", "c", None]
    assert context.messages[3]["content"] == "[interrupted: no result was recorded]"


def test_the_live_turns_results_are_clipped_before_it_is_refused(memory: Memory) -> None:
    session = memory.session("s")
    session.append(
        Message.user("Read it."), Message.assistant(tool_calls=[ToolCall("a", "read", "{}")]), Message.tool(MUCH, tool_call_id="a")
    )

    context = session.context(budget=Budget(400))
    clipped = str(context.messages[-1]["content"])

    assert 350 < context.tokens <= 400
    assert clipped.startswith("word word")
    assert clipped.endswith("word ")
    assert "characters cut]" in clipped
    assert context.decisions[-1].verdict == "clipped"


def test_a_refusal_says_both_numbers_and_what_takes_them(memory: Memory) -> None:
    session = memory.session("s", instructions="Be kind.")
    session.append(Message.user(MUCH), Message.user(MUCH))
    session.pin(1)

    with pytest.raises(CannotFit, match=r"at least (\d+) tokens .*instructions \d+.*pinned \d+.* leaves 400") as refusal:
        session.context(budget=Budget(500, reply=100))

    asked = Asked(memory.session("s")._setup.counting.counter, instructions="Be kind.")
    assert refusal.value.needed == smallest(Log((Message.user(MUCH), Message.user(MUCH)), frozenset({1})), asked)
    assert refusal.value.room == 400


class TestTheCheckItself:
    """What judges contexts must find what is wrong with one."""

    LOG = Log(
        (
            Message.system("Be kind."),
            Message.user("Where is it?"),
            Message.assistant(tool_calls=[ToolCall("a", "look_up", "{}")]),
            Message.tool("in Rome", tool_call_id="a"),
            Message.assistant("It is in Rome."),
            Message.user("Thanks."),
        ),
        pinned=frozenset({2}),
    )

    @pytest.fixture
    def asked(self, counter: TokenCounter) -> Asked:
        return Asked(counter)

    @pytest.fixture
    def context(self, memory: Memory) -> Context:
        session = memory.session("s")
        session.append(*self.LOG.messages)
        session.pin(2)
        return session.context()

    def found(self, context: Context, asked: Asked) -> set[str]:
        return {finding.split(":")[0] for finding in violations(context, self.LOG, asked)}

    def test_it_finds_nothing_where_nothing_is_wrong(self, context: Context, asked: Asked) -> None:
        assert self.found(context, asked) == set()

    def test_it_finds_a_context_over_its_budget(self, context: Context, asked: Asked) -> None:
        assert "P1" in self.found(replace(context, budget=Budget(context.tokens - 1)), asked)

    def test_it_finds_a_wrong_count(self, context: Context, asked: Asked) -> None:
        assert {"P1", "P5"} <= self.found(replace(context, tokens=context.tokens - 1), asked)

    @pytest.mark.parametrize(("at", "promise"), [(0, "P2"), (1, "P2"), (2, "P3"), (3, "P3"), (4, "P4"), (5, "P2")])
    def test_it_finds_what_is_missing(self, context: Context, asked: Asked, at: int, promise: str) -> None:
        assert promise in self.found(replace(context, messages=context.messages[:at] + context.messages[at + 1 :]), asked)

    def test_it_finds_another_order(self, context: Context, asked: Asked) -> None:
        assert "P4" in self.found(replace(context, messages=[context.messages[4], *context.messages[:4], context.messages[5]]), asked)

    def test_it_finds_a_gap_in_the_decisions(self, context: Context, asked: Asked) -> None:
        assert "P5" in self.found(replace(context, decisions=context.decisions[1:]), asked)

    def test_it_finds_words_that_were_changed(self, context: Context, asked: Asked) -> None:
        changed = json.loads(json.dumps(context.messages).replace("Thanks.", "Tha nks."))
        assert {"P2", "P4"} <= self.found(replace(context, messages=changed), asked)

    def test_it_knows_the_smallest_and_the_whole(self, asked: Asked) -> None:
        must = [self.LOG[1], self.LOG[2], self.LOG[6]]
        assert smallest(self.LOG, asked) == asked.cost(must)
        assert whole(self.LOG, asked) == asked.cost(self.LOG.messages)
