"""A model's answers and their scores: SQuAD's rules, LoCoMo's parts, and an answer asked for within its budget."""

from dataclasses import replace
from pathlib import Path

import pytest

from threadkeep import Backend, BackendError, Budget, Context, InvalidSetting, LlamaCpp, Memory, Message, ScriptedBackend
from threadkeep.experiments.answers import answered_by, contains_answer, exact_match, normalised, parts_f1, scored, token_f1
from threadkeep.experiments.base import Conversation, Dataset, Question, Said
from threadkeep.experiments.named import named
from threadkeep.experiments.report_figures import figures
from threadkeep.experiments.report_shape import Cell, results_from
from threadkeep.experiments.run import Plan, run
from threadkeep.experiments.summary import summarise


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


class Farm:
    """A conversation of two long messages and a short one; two questions with answers, one without."""

    name = "farm"
    about = "hens"

    def load(self, path: Path | str | None) -> Dataset:
        texts = ("My hens are called Ada and Bea." + " They lay well." * 40, "How nice." * 60, "It rains today.")
        roles = ("user", "assistant", "user")
        said = tuple(Said(Message.from_dict({"role": role, "content": text})) for role, text in zip(roles, texts, strict=True))
        questions = [
            Question("hens", "c", "How are my hens called?", 3, gold=(0,), answers=("Ada and Bea",), category="names"),
            Question("weather", "c", "What is the weather?", 3, gold=(2,), answers=("rain", "it rains"), category="weather"),
            Question("nothing", "c", "Who am I?", 3),
        ]
        return Dataset({"c": Conversation("c", said)}, questions)


def truthful(context: Context) -> str:
    """Answers from what stands in the context alone."""
    told, question = "".join(m.text for m in context.typed_messages()[:-1]), context.typed_messages()[-1].text
    if "hens" in question:
        return "Ada and Bea." if "Ada" in told else "I do not know."
    return "The rain" if "rains" in told else "I do not know."


def farm(folder: Path, backend: Backend | None, *, budgets: tuple[int, ...] = (150, 1000)) -> Plan:
    return Plan([(Farm(), None)], [named("LastMessages")], budgets, folder, answers=backend)


def cells_of(plan: Plan) -> dict[tuple[str, int], Cell]:
    results = results_from(summarise(plan, run(plan, lambda task, done, total: None)))
    return {(cell.strategy, cell.budget): cell for cell in results.cells}


def test_a_run_has_a_model_answer_from_every_context(tmp_path: Path) -> None:
    backend = ScriptedBackend(truthful)
    cells = cells_of(farm(tmp_path, backend))
    small, large = cells["LastMessages", 150], cells["LastMessages", 1000]
    assert (large.answer_f1, large.answer_em, large.answer_contains) == (1, 1, 1)
    assert (small.answer_f1, small.answer_em, small.answer_contains) == (0.5, 0.5, 0.5)
    assert cells["oracle", 1000].answer_f1 == 1
    assert len(backend.seen) == 2 * 2 * 2  # questions with an answer, budgets, the strategy and the oracle
    assert all(context.max_tokens == 64 and context.typed_messages()[0].role == "system" for context in backend.seen)


def test_what_a_context_cannot_hold_is_answered_wrongly(tmp_path: Path) -> None:
    backend = ScriptedBackend(truthful)
    cell = cells_of(farm(tmp_path, backend, budgets=(20,)))["LastMessages", 20]
    assert cell.cannot_fit == 3
    assert (cell.answer_f1, cell.answer_em, cell.answer_contains) == (0, 0, 0)
    assert backend.seen == []


def test_a_run_without_a_model_has_no_such_figures(tmp_path: Path) -> None:
    cells = cells_of(farm(tmp_path, None))
    assert all(cell.answer_f1 is cell.answer_em is cell.answer_contains is None for cell in cells.values())
    assert "answer F1" not in [figure.head for figure in figures(list(cells.values()))]


def test_finished_answers_are_kept_and_not_taken_for_those_of_a_run_without_a_model(tmp_path: Path) -> None:
    before = cells_of(farm(tmp_path, None))
    backend = ScriptedBackend(truthful)
    cells = cells_of(farm(tmp_path, backend))
    assert "answer F1" in [figure.head for figure in figures(list(cells.values()))]
    asked = len(backend.seen)
    assert asked > 0
    again = cells_of(farm(tmp_path, backend))
    assert len(backend.seen) == asked
    assert again["LastMessages", 1000].answer_f1 == cells["LastMessages", 1000].answer_f1
    assert cells_of(farm(tmp_path, None))["LastMessages", 1000].answer_f1 is before["LastMessages", 1000].answer_f1 is None


def test_a_model_that_fails_is_named_with_the_strategy_and_the_question(tmp_path: Path) -> None:
    def fails(context: Context) -> str:
        if "rains" in "".join(message.text for message in context.typed_messages()) and "hens" in context.typed_messages()[-1].text:
            raise BackendError("out of order")
        return "Ada"

    cells = cells_of(farm(tmp_path, ScriptedBackend(fails)))
    assert cells["LastMessages", 1000].error == "scripted failed with LastMessages at question hens: BackendError: out of order"
    assert cells["LastMessages", 1000].answer_f1 is None


def test_a_model_whose_window_is_too_small_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="scripted has a window of 1000 tokens: too small for a context of 1000 and an answer of 64"):
        farm(tmp_path, ScriptedBackend(truthful, window=1000))


@pytest.mark.model
def test_a_bundled_model_answers_the_same_each_time(tmp_path: Path) -> None:
    backend = LlamaCpp("smollm2-135m", window=1280, parallel=1, temperature=0, seed=1, threads=1)
    try:
        first, second = (
            cells_of(replace(farm(tmp_path / name, backend, budgets=(1000,)), oracle=False))["LastMessages", 1000]
            for name in ("first", "second")
        )
    finally:
        backend.close()
    assert first.error is None
    assert first.answer_contains is not None
    assert (first.answer_f1, first.answer_em, first.answer_contains) == (second.answer_f1, second.answer_em, second.answer_contains)
