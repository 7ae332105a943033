"""A model's answers and their scores: SQuAD's rules, LoCoMo's parts, and an answer asked for within its budget."""

import pytest

from threadkeep import Budget, Context, Memory, Message, ScriptedBackend
from threadkeep.experiments.answers import answered_by, contains_answer, exact_match, normalised, parts_f1, scored, token_f1
from threadkeep.experiments.base import Question


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Red\tFox.", "red fox"),
        ("an apple, a pear", "apple pear"),
        ("theatre and anthem", "theatre and anthem"),
        ("U.S.A.", "usa"),
        ("the a an", ""),
        ("", ""),
        ("Café 你好", "café 你好"),
    ],
)
def test_texts_are_compared_without_case_punctuation_articles_and_blanks(text: str, same: str) -> None:
    assert normalised(text) == same


def test_token_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    assert token_f1("a red fox ran", ["The red fox"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("the red fox", ["Red fox!"]) == 1
    assert token_f1("a hen", ["the red fox"]) == 0


def test_token_f1_counts_a_word_as_often_as_both_have_it() -> None:
    assert token_f1("no no no", ["no"]) == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))


def test_token_f1_is_that_of_the_best_answer() -> None:
    assert token_f1("four hens", ["three", "four hens"]) == 1


def test_token_f1_of_nothing_is_1_only_against_nothing() -> None:
    assert token_f1("", ["four"]) == 0
    assert token_f1("the", ["four"]) == 0
    assert token_f1("", ["the"]) == 1


def test_exact_match_is_of_the_whole_reply() -> None:
    assert exact_match("Four hens.", ["three", "four hens"])
    assert not exact_match("four hens, I think", ["four hens"])


def test_a_contained_answer_is_a_run_of_whole_words() -> None:
    assert contains_answer("You have four hens.", ["four hens"])
    assert contains_answer("It was The Fox, not him.", ["fox not"])
    assert not contains_answer("14 hens", ["4"])
    assert not contains_answer("hens: four", ["four hens"])
    assert not contains_answer("four hens", ["the"])


def test_an_answer_in_parts_is_scored_part_by_part() -> None:
    assert parts_f1("chess, running", "Running, chess") == 1
    assert parts_f1("chess", "running, chess") == 0.5
    assert parts_f1("chess", "chess,") == 1
    assert parts_f1("", ",") == 1


def asked(*answers: str, category: str = "") -> Question:
    return Question("q", "c", "What?", 1, answers=answers, category=category)


def test_locomo_questions_are_scored_by_their_category() -> None:
    parts = "running, chess"
    assert scored(asked(parts, category="multi-hop"), "chess, running").f1 == 1
    assert scored(asked(parts, category="multi-hop"), "chess").f1 == 0.5
    assert scored(asked(parts, category="single-hop"), "chess").f1 == pytest.approx(2 / 3)
    assert scored(asked("Likely yes; she said so", category="open-domain"), "likely yes").f1 == 1


def test_a_reply_has_three_scores() -> None:
    scores = scored(asked("four", "4"), "She has 4 hens.")
    assert (scores.f1, scores.exact, scores.contains) == (0.4, 0, 1)


def test_a_backend_is_given_the_context_and_what_the_reply_may_take(memory: Memory) -> None:
    session = memory.session("farm")
    session.append(Message.user("I have four hens."), Message.assistant("Lovely."))
    context = session.context("How many hens do I have?", budget=Budget(1000))
    seen: list[Context] = []

    def reply(context: Context) -> str:
        seen.append(context)
        return "Four hens."

    assert answered_by(ScriptedBackend(reply), context, 20) == "Four hens."
    assert seen[0].messages == context.messages
    assert seen[0].max_tokens == 20
    assert seen[0].budget.ceiling == 1000
