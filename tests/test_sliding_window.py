"""The sliding window: the contract of every strategy, and its grid."""

import random
from itertools import pairwise

import pytest

from threadkeep import Budget, Context, InvalidSetting, Memory, Message, Session, SlidingWindow
from threadkeep.testing import StrategyContract

WINDOW = 1000
SAME = "begins as the turn before"


class TestSlidingWindow(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SlidingWindow:
        return SlidingWindow()


class TestTheCoarsestStep(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SlidingWindow:
        return SlidingWindow(step=1)


@pytest.mark.parametrize("step", [0, -0.5, 1.01, float("nan")])
def test_a_step_is_a_share_of_the_room(step: float) -> None:
    with pytest.raises(InvalidSetting, match="a share of the budget above 0 and at most 1"):
        SlidingWindow(step=step)


@pytest.fixture
def session(memory: Memory) -> Session:
    """120 messages of about 10 to 40 tokens."""
    dice = random.Random(7)
    session = memory.session("s", instructions="Be kind.")
    roles = (Message.user, Message.assistant)
    session.append(*(roles[at % 2](f"{at}: " + "word " * dice.randint(5, 35)) for at in range(120)))
    return session


def window(session: Session, strategy: SlidingWindow, text: str = "And now?") -> Context:
    return session.context(text, strategy=strategy, budget=Budget(WINDOW))


def test_it_shows_the_newest_entries_without_a_gap(session: Session) -> None:
    context = window(session, SlidingWindow())

    left_out, kept = context.decisions[0], context.decisions[1:]

    assert (left_out.first, left_out.verdict) == (1, "left out")
    assert {decision.verdict for decision in kept} == {"kept"}
    assert kept[-1].last == 121


@pytest.mark.parametrize("step", [0.1, 0.25, 0.5])
def test_it_fills_all_but_a_step(session: Session, step: float) -> None:
    largest = 4 + 3 + 40  # tokens: what one message that no longer fits may leave free, beside the step
    assert window(session, SlidingWindow(step=step)).tokens > WINDOW * (1 - step) - largest


def test_the_cut_moves_once_in_many_turns_and_otherwise_the_beginning_is_the_same(memory: Memory) -> None:
    session = memory.session("s", instructions="Be kind.")
    contexts = []
    for number in range(80):
        with session.turn(f"question {number}, with some words around it", max_tokens=3600, strategy=SlidingWindow()) as turn:
            contexts.append(turn.context)
            turn.finish(f"answer {number}, and as many words around this one")
    pairs = list(pairwise(contexts))
    shared = [after.messages[: len(before.messages) - 1] == before.messages[:-1] for before, after in pairs]

    assert [after.cache_note == SAME for _, after in pairs] == shared
    assert {after.cache_note for _, after in pairs} == {SAME, "the cut moved"}
    assert 3 <= shared.count(False) <= 20
    assert max(context.tokens for context in contexts) <= 400


def test_a_long_live_message_does_not_move_the_grid(session: Session) -> None:
    starts = set()
    for words in (1, 20, 60):
        context = window(session, SlidingWindow(step=0.5), "word " * words)
        starts.add(context.decisions[1].first)

    assert len(starts) == 1


def test_a_finer_step_cuts_no_earlier_than_a_coarser_one_must(session: Session) -> None:
    finest = window(session, SlidingWindow(step=0.01))
    coarsest = window(session, SlidingWindow(step=1))

    assert finest.decisions[1].first <= coarsest.decisions[1].first
    assert finest.tokens > 0.9 * WINDOW
