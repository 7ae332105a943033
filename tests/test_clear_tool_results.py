"""Clearing old tool results: which, when, and how they are told."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from threadkeep import (
    Budget,
    ClearToolResults,
    Context,
    History,
    ImagePart,
    InvalidSetting,
    Memory,
    Message,
    Pick,
    Session,
    SlidingWindow,
    TextPart,
    ToolCall,
)
from threadkeep.memory.history import Summary
from threadkeep.testing import StrategyContract

BUDGET = Budget(2000)
DATA = "a row of data, " * 20
SAME = "begins as the turn before"


class TestClearToolResults(StrategyContract):
    @pytest.fixture
    def strategy(self) -> ClearToolResults:
        return ClearToolResults(keep=1, at_least=20)


def look(number: int, data: object = DATA) -> list[Message]:
    """A turn with one look-up: four entries, about 130 tokens."""
    return [
        Message.user(f"Where is parcel {number}?"),
        Message.assistant(tool_calls=[ToolCall(f"call {number}", "look", "{}")]),
        Message("tool", data, tool_call_id=f"call {number}"),  # type: ignore[arg-type]
        Message.assistant(f"Parcel {number} is in the shed."),
    ]


@pytest.fixture
def looked(session: Session) -> Session:
    for number in range(40):
        session.append(*look(number))
    return session


def cleared(context: Context) -> list[int]:
    return [
        seq
        for decision in context.decisions
        if decision.verdict == "clipped" and decision.reason.endswith("the tool's result cleared")
        for seq in range(decision.first, decision.last + 1)
    ]


def count_of(context: Context, *verdicts: str) -> int:
    return sum(decision.last - decision.first + 1 for decision in context.decisions if decision.verdict in verdicts)


def test_the_window_reaches_much_further_back(looked: Session) -> None:
    plain = looked.context("And now?", strategy=SlidingWindow(), budget=BUDGET)
    smaller = looked.context("And now?", strategy=ClearToolResults(), budget=BUDGET)

    assert count_of(smaller, "kept", "clipped") > 1.8 * count_of(plain, "kept")
    assert smaller.tokens > 0.7 * BUDGET.window


def test_a_note_stands_behind_its_call_and_says_how_much_was_cleared(looked: Session) -> None:
    context = looked.context("And now?", strategy=ClearToolResults(), budget=BUDGET)
    at, note = next((at, one) for at, one in enumerate(context.messages) if "cleared" in str(one["content"]))

    assert note["content"] == f"[result cleared: {len(DATA)} characters]"
    assert note["tool_call_id"] == context.messages[at - 1]["tool_calls"][0]["id"]  # type: ignore[index]


def test_pictures_are_cleared_too(session: Session) -> None:
    session.append(*look(0, (TextPart(DATA), ImagePart("https://example.org/a.png", "high"))))
    for number in range(1, 16):
        session.append(*look(number))
    context = session.context("And now?", strategy=ClearToolResults(), budget=BUDGET)

    assert context.messages[2]["content"] == f"[result cleared: {len(DATA)} characters, 1 other parts]"


@pytest.mark.parametrize("keep", [0, 1, 3, 5])
def test_the_newest_results_are_kept(looked: Session, keep: int) -> None:
    context = looked.context("And now?", strategy=ClearToolResults(keep=keep), budget=BUDGET)
    results = [seq for seq in range(3, 161, 4) if seq >= min(cleared(context))]
    whole = results[len(cleared(context)) :]

    assert cleared(context) == results[: len(cleared(context))]
    assert keep <= len(whole) <= keep + 5


def test_small_results_are_not_worth_a_note(session: Session) -> None:
    for number in range(40):
        session.append(*look(number, DATA if number % 2 else "It is in the shed, behind the ladder."))
    context = session.context("And now?", strategy=ClearToolResults(), budget=Budget(1500))

    assert cleared(context)
    assert {seq % 8 for seq in cleared(context)} == {7}


def test_pinned_results_and_those_of_the_live_turn_stay_whole(looked: Session) -> None:
    looked.pin(103)
    with looked.turn("And now?", strategy=ClearToolResults(keep=0), max_tokens=4000 - BUDGET.window) as turn:
        for number in range(3):
            turn.append(*look(number)[1:3])
        context = turn.context

    whole = [str(message["content"]) for message in context.messages if message["content"] == DATA]
    assert 103 not in cleared(context)
    assert {161 + 2, 161 + 4, 161 + 6}.isdisjoint(cleared(context))
    assert len(whole) >= 4


def test_nothing_is_cleared_while_the_log_fits(looked: Session) -> None:
    context = looked.context("And now?", strategy=ClearToolResults(keep=0), budget=Budget(10_000))

    assert cleared(context) == []
    assert count_of(context, "kept") == 161


def test_no_more_is_cleared_than_must_be_and_from_the_oldest_on(session: Session) -> None:
    """Where everything fits once enough is cleared, the newer results stay whole although fewer would have to."""
    for number in range(16):
        session.append(*look(number))
    context = session.context("And now?", strategy=ClearToolResults(keep=1), budget=BUDGET)

    assert count_of(context, "left out") == 0
    assert cleared(context) == [3 + 4 * at for at in range(len(cleared(context)))]
    assert 3 <= len(cleared(context)) <= 9


def test_what_is_cleared_changes_once_in_many_turns_and_together_with_the_cut(memory: Memory) -> None:
    session = memory.session("s", instructions="Be kind.")
    contexts = []
    for number in range(60):
        with session.turn(f"Where is parcel {number}?", max_tokens=2000, strategy=ClearToolResults()) as turn:
            turn.append(*look(number)[1:3])
            contexts.append(turn.context)
            turn.finish(f"Parcel {number} is in the shed.")
    notes = [after.cache_note for _, after in pairwise(contexts)]

    assert set(notes) <= {SAME, "old tool results were clipped", "the cut moved", "the cut moved, old tool results were clipped"}
    assert notes.count(SAME) > 0.6 * len(notes)
    assert any("clipped" in note for note in notes)
    assert max(context.tokens for context in contexts) <= 2000


def test_it_is_made_again_from_its_record(looked: Session) -> None:
    with looked.turn("And now?", strategy=ClearToolResults(), max_tokens=4000 - BUDGET.window) as turn:
        made = turn.context
        turn.finish("Well.")
    again = looked.context(as_of=turn)

    assert cleared(made)
    assert again.messages == made.messages
    assert cleared(again) == cleared(made)


@pytest.mark.parametrize(
    "arguments", [{"inner": "window"}, {"keep": -1}, {"keep": 1.5}, {"keep": True}, {"at_least": -1}, {"step": 0}, {"step": 1.1}]
)
def test_settings_are_checked(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match="ClearToolResults"):
        ClearToolResults(**arguments)  # type: ignore[arg-type]


def test_it_has_the_scope_and_the_summaries_of_what_it_wraps() -> None:
    class Summarises:
        scope = "owner"
        recipes = ("a",)

        def pick(self, history: History, budget: Budget) -> list[Pick]:
            return []

        def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
            return lambda: Summary(1, 1, 2, recipe, 5, "a test")

    history: History = object()  # type: ignore[assignment]
    strategy, plain = ClearToolResults(Summarises()), ClearToolResults()
    due = strategy.due(history, "a")

    assert (strategy.scope, strategy.recipes) == ("owner", ("a",))
    assert due is not None
    assert due().text == "a"
    assert (plain.scope, plain.recipes, plain.due(history, "a")) == ("session", (), None)
