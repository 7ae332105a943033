"""What a context is worth to a question: which evidence stands in it, whether an answer does, and how high it was ranked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from threadkeep import Budget, Context, History, Memory, Message, Pick, TiktokenCounter, ToolCall
from threadkeep.experiments.metrics import answer_stands, evidence, gold_ranks, ndcg_at, recall_at, words

CAT = "My old grey cat is called Tom. He sleeps on the warm roof of the shed whenever it does not rain."
FILLER = "Nothing of note was said at the table that evening, although everybody stayed for long. " * 20


@dataclass(frozen=True)
class Chooses:
    """Returns what it was given."""

    picks: tuple[Pick, ...] = ()

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return self.picks


def shown(tmp_path: Path, said: Sequence[Message], picks: Sequence[Pick], question: str = "Well?", window: int = 1500) -> Context:
    """The context of a question about a log that is too long for it, with a strategy's picks."""
    with Memory(f"sqlite:///{tmp_path}/chat.db", counter=TiktokenCounter("o200k_base"), budget=Budget(window)) as memory:
        session = memory.session("chat")
        session.append(*said)
        return session.context(question, strategy=Chooses(tuple(picks)))


def talk(*texts: str) -> list[Message]:
    """The texts by turns, and behind them more than any of these windows holds."""
    filled = [*texts, *[FILLER] * 20]
    return [Message.user(text) if at % 2 == 0 else Message.assistant(text) for at, text in enumerate(filled)]


def looked_up(result: str) -> list[Message]:
    """A tool's result as messages 2 and 3 of a log that does not fit."""
    call = Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")])
    return [Message.user("Look."), call, Message.tool(result, tool_call_id="a"), Message.assistant("Done."), *talk()]


def entry(seq: int, score: float | None = None) -> Pick:
    return Pick((seq,), 0, "chosen", score)


def test_a_message_kept_whole_stands_and_one_left_out_does_not(tmp_path: Path) -> None:
    context = shown(tmp_path, talk(CAT, "I see."), [entry(1)])
    assert evidence(context, "Well?", [(1, CAT), (2, "I see.")], ()) == (True, False)


def test_the_question_itself_is_no_evidence_and_no_answer(tmp_path: Path) -> None:
    context = shown(tmp_path, talk(CAT), [], question=CAT)
    assert evidence(context, CAT, [(1, CAT)], ("Tom",)) == (False,)
    assert answer_stands(context, CAT, ("Tom",)) is False


def test_the_same_words_in_another_message_are_no_evidence_of_this_one(tmp_path: Path) -> None:
    context = shown(tmp_path, talk("Yes.", "Yes."), [entry(2)])
    assert evidence(context, "Well?", [(1, "Yes."), (2, "Yes.")], ("yes",)) == (False, True)


@pytest.mark.parametrize(
    ("told", "stands"),
    [
        ("He said: my old grey cat is called Tom. He sleeps on the", True),
        ("My old grey cat is far away.", False),  # four words in a row say nothing
        ("the of it is on my cat old He rain not called shed roof", False),  # all its words, in no order
        ("", False),
    ],
)
def test_an_excerpt_counts_from_half_of_the_words_on(tmp_path: Path, told: str, stands: bool) -> None:
    context = shown(tmp_path, talk(CAT), [Pick((1,), 0, "an excerpt", kind="excerpt", text=told or "nothing")])
    assert evidence(context, "Well?", [(1, CAT)], ()) == (stands,)


def test_a_summary_counts_when_it_tells_the_answer_out_of_the_message(tmp_path: Path) -> None:
    context = shown(tmp_path, talk(CAT, "I see."), [Pick((1,), 0, "a summary", kind="summary", text="The cat's name: TOM!")])
    gold = [(1, CAT)]
    assert evidence(context, "Well?", gold, ("Tom",)) == (True,)
    assert evidence(context, "Well?", gold, ("To",)) == (False,), "a part of a word is no answer"
    assert evidence(context, "Well?", gold, ("name",)) == (False,), "that word is not out of the message"
    assert evidence(context, "Well?", [(2, "I see Tom.")], ("Tom",)) == (False,), "the summary is of another message"


def test_a_clipped_result_counts_by_what_is_left_of_it(tmp_path: Path) -> None:
    numbers = [f"item {at} costs {at * 7}." for at in range(300)]
    text = " ".join(numbers)
    context = shown(tmp_path, [*looked_up(text), Message.user("item 150 costs 1050.")], [entry(3), entry(25)])
    assert {one.verdict for one in context.decisions if one.first <= 3 <= one.last} == {"clipped"}
    assert evidence(context, "Well?", [(3, text)], ()) == (False,), "a third is left"
    assert evidence(context, "Well?", [(3, text)], ("item 3 costs 21",)) == (True,), "the answer is in its head"
    assert evidence(context, "Well?", [(3, text)], ("item 150 costs 1050",)) == (False,), "cut from it, though told beside it"


def test_a_result_of_which_more_than_half_is_left_counts(tmp_path: Path) -> None:
    text = " ".join(f"item {at} costs {at * 7}." for at in range(100))
    context = shown(tmp_path, looked_up(text), [entry(3)])
    assert {one.verdict for one in context.decisions if one.first <= 3 <= one.last} == {"clipped"}
    assert evidence(context, "Well?", [(3, text)], ()) == (True,)


def test_a_message_without_words_counts_only_whole(tmp_path: Path) -> None:
    said = talk("?!", "…")
    assert evidence(shown(tmp_path, said, [entry(2)]), "Well?", [(1, "?!"), (2, "…")], ("?",)) == (False, True)


def test_an_answer_stands_as_whole_words_in_a_row_whatever_their_case_and_signs(tmp_path: Path) -> None:
    context = shown(tmp_path, talk(CAT, "It cost $1,200, in 2023."), [entry(1), entry(2)])
    assert answer_stands(context, "Well?", ("tom he SLEEPS",)) is True
    assert answer_stands(context, "Well?", ("no", "in 2023")) is True
    assert answer_stands(context, "Well?", ("202",)) is False
    assert answer_stands(context, "Well?", ("sleeps Tom",)) is False


def test_without_an_answer_to_look_for_there_is_no_verdict(tmp_path: Path) -> None:
    context = shown(tmp_path, talk(CAT), [entry(1)])
    assert answer_stands(context, "Well?", ()) is None
    assert answer_stands(None, "Well?", ("?!",)) is None


def test_without_a_context_no_answer_stands() -> None:
    assert answer_stands(None, "Well?", ("Tom",)) is False


def test_writing_without_blanks_is_compared_sign_by_sign() -> None:
    assert words("我的猫叫 Tom，它8岁") == ["我", "的", "猫", "叫", "tom", "它", "8", "岁"]
    assert words("ﬁve CAFÉ_1") == ["five", "café_1"]


def test_gold_is_ranked_by_score_and_within_a_pick_by_age(tmp_path: Path) -> None:
    said = talk("one", "two", "three", "four", "five")
    picks = [Pick((3, 4), 0, "chosen", 0.5), entry(5, 0.9), entry(2)]
    assert gold_ranks(shown(tmp_path, said, picks), [5, 3, 4, 2]) == (1, 2, 3, None)


def test_equal_scores_are_ranked_by_age(tmp_path: Path) -> None:
    assert gold_ranks(shown(tmp_path, talk("one", "two"), [entry(2, 1.0), entry(1, 1.0)]), [1, 2]) == (1, 2)


def test_a_strategy_that_scores_nothing_does_not_rank(tmp_path: Path) -> None:
    assert gold_ranks(shown(tmp_path, talk("one"), [entry(1)]), [1]) is None


def test_recall_at_k_is_the_share_of_gold_among_the_first_k() -> None:
    ranks = (1, 3, None, 10)
    assert [recall_at(ranks, k) for k in (1, 3, 5, 10)] == [0.25, 0.5, 0.5, 0.75]


def test_ndcg_is_the_discounted_gain_over_that_of_the_best_order() -> None:
    # gains 1/log2(1+1) + 1/log2(3+1) = 1.5 of 1 + 1/log2(3) = 1.630930
    assert ndcg_at((1, 3), 10) == pytest.approx(1.5 / 1.6309297536)
    assert ndcg_at((1, 2, 3), 10) == pytest.approx(1.0)
    assert ndcg_at((11, None), 10) == 0
    assert ndcg_at(tuple(range(1, 13)), 10) == pytest.approx(1.0), "more gold than places is no loss"
    assert ndcg_at((2,), 10) == pytest.approx(1 / math.log2(3))
