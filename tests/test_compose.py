"""Composing strategies: shares, what goes on to the next, what is given up first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from threadkeep import Budget, Compose, History, InvalidSetting, Memory, Message, Pick, Selective, Session, SlidingWindow, StrategyError
from threadkeep.memory.history import Summary
from threadkeep.strategies.base import Summarising
from threadkeep.testing import StrategyContract

BUDGET = Budget(1000)
SAME = "begins as the turn before"


class TestCompose(StrategyContract):
    @pytest.fixture
    def strategy(self) -> Compose:
        return Compose(SlidingWindow(), Compose(Selective(roles=("tool",)), SlidingWindow(step=1), shares=(0.5, 0.5)), shares=(0.4, 0.6))


@dataclass
class Spends:
    """Picks one entry, or says something, for as many tokens as it is told; and remembers what it was asked with."""

    tokens: int = 0
    seq: int = 1
    kind: str = "entries"
    asked: list[tuple[Budget, frozenset[int]]] = field(default_factory=list)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        self.asked.append((budget, history.shown))
        text = None if self.kind == "entries" else "words " * (self.tokens - 5)
        return [Pick((self.seq,), self.tokens, "this one", kind=self.kind, text=text)]  # type: ignore[arg-type]


@pytest.fixture
def long_log(session: Session) -> Session:
    """100 messages of about 55 tokens."""
    session.append(*(Message.user(f"{seq}: " + "word " * 50) for seq in range(1, 101)))
    return session


def test_each_part_has_its_share_of_the_room_and_what_is_left_unspent_goes_on(long_log: Session) -> None:
    parts = Spends(100, 1), Spends(50, 2), Spends(0, 3)
    long_log.context("And now?", strategy=Compose(*parts, shares=(0.5, 0.3, 0.2)), budget=BUDGET)
    first, second, third = (part.asked[0][0] for part in parts)
    whole = Spends()
    long_log.context("And now?", strategy=whole, budget=BUDGET)
    room, left = whole.asked[0][0].room, whole.asked[0][0].left

    assert (first.room, second.room, third.room) == (int(room * 0.5), int(room * 0.3), int(room * 0.2))
    assert first.left == int(left * 0.5)
    assert second.left == int(left * 0.3) + first.left - 100
    assert third.left == int(left * 0.2) + second.left - 50
    assert first.left + int(left * 0.3) + int(left * 0.2) <= left


def test_a_parts_room_is_the_same_whatever_the_live_turn_and_the_other_parts_take(long_log: Session) -> None:
    rooms = set()
    for words in (1, 100, 300):
        for spent in (0, 100):
            part = Spends(0, 2)
            long_log.context("word " * words, strategy=Compose(Spends(spent), part, shares=(0.5, 0.5)), budget=BUDGET)
            rooms.add(part.asked[0][0].room)

    assert len(rooms) == 1


def test_what_stands_already_is_shown_to_the_next_and_costs_nothing_again(long_log: Session) -> None:
    long_log.pin(7)
    parts = Spends(10, 1), Spends(55, 7), Spends(0, 3)
    long_log.context("And now?", strategy=Compose(*parts, shares=(0.4, 0.4, 0.2)), budget=BUDGET)

    assert [shown for part in parts for _, shown in part.asked] == [{7}, {1, 7}, {1, 7}]
    second, third = parts[1].asked[0][0], parts[2].asked[0][0]
    assert third.left >= second.left


def test_a_nested_composition_divides_its_own_share(long_log: Session) -> None:
    parts = Spends(0, 1), Spends(0, 2)
    strategy = Compose(Spends(0, 3), Compose(*parts, shares=(0.5, 0.5)), shares=(0.5, 0.5))
    long_log.context("And now?", strategy=strategy, budget=BUDGET)
    inner = [part.asked[0][0] for part in parts]

    assert [budget.room for budget in inner] == [int(int(BUDGET.ceiling * 0.5) * 0.5)] * 2 or inner[0].room == inner[1].room
    assert inner[1].left > inner[0].left


def test_an_entry_that_two_parts_pick_stands_once(long_log: Session) -> None:
    context = long_log.context("And now?", strategy=Compose(SlidingWindow(), SlidingWindow(), shares=(0.5, 0.5)), budget=BUDGET)
    said = [message["content"] for message in context.messages]

    assert len(said) == len(set(said))
    assert len(said) > 5


def test_an_excerpt_of_what_stands_whole_is_left_out(long_log: Session) -> None:
    whole = Compose(Spends(20, 99, "excerpt"), SlidingWindow(), shares=(0.2, 0.8))
    apart = Compose(Spends(20, 2, "excerpt"), SlidingWindow(), shares=(0.2, 0.8))

    assert [p.kind for p in long_log.context("And now?", strategy=whole, budget=BUDGET).picks].count("excerpt") == 0
    assert [p.kind for p in long_log.context("And now?", strategy=apart, budget=BUDGET).picks].count("excerpt") == 1


def test_excerpts_are_given_up_first_then_the_last_parts_picks(long_log: Session) -> None:
    def fates(room: int) -> list[str]:
        parts = Spends(40, 2, "summary"), Spends(40, 3, "excerpt"), Spends(55, 60), Spends(55, 70)
        context = long_log.context("And now?", strategy=Compose(*parts, shares=(0.25,) * 4), budget=Budget(room))
        verdicts = {seq: decision.verdict for decision in context.decisions for seq in range(decision.first, decision.last + 1)}
        return [verdicts[seq] for seq in (2, 3, 60, 70)]

    everything = ["summarised", "recalled", "kept", "kept"]
    seen = [fates(room) for room in range(300, 30, -5)]

    assert [after for before, after in pairwise([[], *seen]) if after != before] == [
        everything,
        ["summarised", "left out", "kept", "kept"],
        ["summarised", "left out", "kept", "left out"],
        ["summarised", "left out", "left out", "left out"],
        ["left out", "left out", "left out", "left out"],
    ]


def test_a_window_in_a_composition_moves_once_in_many_turns(memory: Memory) -> None:
    """Beside a part that takes something else every turn."""

    class Restless(Spends):
        def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
            seq = 1 + history.head.seq % 10
            return [Pick((seq,), 30, "restless", kind="excerpt", text="words " * (history.head.seq % 20 + 1))]

    session = memory.session("s", instructions="Be kind.")
    strategy = Compose(SlidingWindow(), Restless(), shares=(0.6, 0.4))
    contexts = []
    for number in range(80):
        with session.turn(f"question {number}, with some words around it", max_tokens=3000, strategy=strategy) as turn:
            contexts.append(turn.context)
            turn.finish(f"answer {number}, and as many words around this one")
    notes = [after.cache_note for _, after in pairwise(contexts)]

    assert set(notes) == {SAME, "the cut moved"}
    assert notes.count("the cut moved") < 25
    assert max(context.tokens for context in contexts) <= 1000


def test_it_names_its_parts_and_shares() -> None:
    assert repr(Compose(SlidingWindow(), SlidingWindow(0.5), shares=[0.3, 0.7])) == (
        "Compose(SlidingWindow(step=0.25), SlidingWindow(step=0.5), shares=(0.3, 0.7))"
    )


@pytest.mark.parametrize(
    ("parts", "shares", "problem"),
    [
        ([], (), "no part"),
        ([SlidingWindow()], (0.5, 0.5), "1 parts have 1 shares"),
        ([SlidingWindow()], 1, "1 parts have 1 shares"),
        ([SlidingWindow(), SlidingWindow()], (0.7, 0.4), "at most 1"),
        ([SlidingWindow(), SlidingWindow()], (0, 1), "above 0"),
        ([SlidingWindow()], (float("nan"),), "above 0"),
        ([SlidingWindow()], ("half",), "above 0"),
        (["window"], (1,), "a part is a strategy"),
    ],
)
def test_settings_are_checked(parts: list[SlidingWindow], shares: Sequence[float], problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem):
        Compose(*parts, shares=shares)


def test_what_a_part_returns_is_checked_and_the_part_is_named(long_log: Session) -> None:
    class Returns:
        def __init__(self, picks: object) -> None:
            self.picks = picks

        def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
            return self.picks  # type: ignore[return-value]

    for picks in (None, ["all"], [(1, 2)], [Pick((999,), 1, "not there")]):
        with pytest.raises(StrategyError, match="Returns"):
            long_log.context(strategy=Compose(Returns(picks), shares=(1,)), budget=BUDGET)


def test_it_writes_the_summaries_of_its_parts() -> None:
    class Summarises(Spends):
        def __init__(self, *recipes: str) -> None:
            self.recipes = recipes

        def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
            return lambda: Summary(1, 1, 2, f"{recipe} of {self.recipes}", 5, "a test")

    strategy = Compose(SlidingWindow(), Summarises("a", "b"), Compose(Summarises("b", "c"), shares=(1,)), shares=(0.3, 0.3, 0.4))
    history: History = object()  # type: ignore[assignment]
    written = [due().text for recipe in strategy.recipes if (due := strategy.due(history, recipe))]

    assert isinstance(strategy, Summarising)
    assert strategy.recipes == ("a", "b", "c")
    assert written == ["a of ('a', 'b')", "b of ('a', 'b')", "c of ('b', 'c')"]
    assert strategy.due(history, "d") is None


def test_it_asks_the_owners_sessions_if_a_part_does() -> None:
    class AsksTheOwner(Spends):
        scope = "owner"

    assert Compose(SlidingWindow(), shares=(1,)).scope == "session"
    assert Compose(SlidingWindow(), Compose(AsksTheOwner(), shares=(1,)), shares=(0.5, 0.5)).scope == "owner"
