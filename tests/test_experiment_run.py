"""A run: every question with every strategy at every budget, kept on disk as it goes, and made into results."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threadkeep import (
    BackendError,
    Budget,
    Context,
    EmbedderError,
    History,
    InvalidSetting,
    Message,
    Pick,
    ScriptedBackend,
    TiktokenCounter,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.experiments import cells as cells_file
from threadkeep.experiments import run as run_file
from threadkeep.experiments.base import Conversation, Dataset, DatasetError, Question, Said
from threadkeep.experiments.cells import Cell, Cells, fingerprint, release
from threadkeep.experiments.named import Named, named
from threadkeep.experiments.report import write_json
from threadkeep.experiments.run import Plan, Ran, run
from threadkeep.experiments.summary import interval, summarise
from threadkeep.experiments.tasks import Planted
from threadkeep.memory.history import Summary

BEGUN = datetime(2026, 1, 1, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Made:
    """A task out of given data."""

    dataset: Dataset
    name: str = "made"
    about: str = "made up here"

    def load(self, path: Path | str | None) -> Dataset:
        return self.dataset


def conversation(name: str, *texts: str) -> Conversation:
    """The texts by turns, a minute apart."""
    roles = (Message.user, Message.assistant)
    return Conversation(name, tuple(Said(roles[at % 2](text), BEGUN + timedelta(minutes=at)) for at, text in enumerate(texts)))


def small() -> Dataset:
    """Two conversations, each with a fact at its beginning and more talk than 60 tokens hold behind it."""
    told = {
        "ada": conversation("ada", "My cat is called Tom.", *(f"We spoke of the weather, day {day}." for day in range(9))),
        "bob": conversation(
            "bob", "I live in Riga.", "Noted.", "My dog is Rex.", *(f"Nothing new on day {day}, I fear." for day in range(8))
        ),
    }
    return Dataset(
        told,
        [
            Question("cat", "ada", "What is my cat called?", 10, (0,), ("Tom",), "pets"),
            Question("town", "bob", "Where do I live?", 11, (0,), ("Riga",), "places"),
            Question("dog", "bob", "What is my dog called?", 11, (2,), ("Rex",), "pets"),
            Question("early", "bob", "Where do I live, again?", 2, (0,), ("Riga",)),
        ],
    )


def plan(folder: Path, *strategies: Named, dataset: Dataset | None = None, budgets: Sequence[int] = (60,), **more: Any) -> Plan:
    rows = strategies or (named("SlidingWindow"), named("BM25Turns"))
    return Plan([(Made(dataset or small()), None)], rows, budgets, folder, **more)


def silently(task: str, done: int, total: int) -> None:
    """No progress shown."""


def results(made: Plan) -> dict[str, Any]:
    return summarise(made, run(made, silently))


def row(found: Mapping[str, Any], strategy: str, budget: int = 60) -> dict[str, Any]:
    (cell,) = [cell for cell in found["cells"] if (cell["strategy"], cell["budget"]) == (strategy, budget)]
    return dict(cell)


def without_times(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, "cells": [{**cell, "times": None} for cell in found["cells"]]}


@dataclass
class Spy:
    """Chooses by a function, and remembers what it was shown."""

    choose: Callable[[History, Budget], Sequence[Pick]] = lambda history, budget: []
    heads: list[int] = field(default_factory=list)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        self.heads.append(history.head.seq)
        return self.choose(history, budget)

    def __repr__(self) -> str:
        return "Spy()"


def raising(history: History, budget: Budget) -> Sequence[Pick]:
    if history.live is not None and "dog" in history.live.message.text:
        raise KeyError("dog")
    return []


# ---- what a run comes to ----


def test_every_row_comes_out_and_the_oracle_is_perfect(tmp_path: Path) -> None:
    found = results(plan(tmp_path, budgets=(60, 2000)))
    assert [(cell["strategy"], cell["budget"]) for cell in found["cells"]] == [
        (name, budget) for name in ("SlidingWindow", "BM25Turns", "oracle") for budget in (60, 2000)
    ]
    for cell in found["cells"]:
        assert (cell["questions"], cell["over_budget"], cell["cannot_fit"], cell["failures"], cell["error"]) == (4, 0, 0, 0, None)
    assert row(found, "oracle")["evidence_recall"] == row(found, "oracle")["all_evidence"] == row(found, "oracle")["answer_coverage"] == 1
    assert row(found, "SlidingWindow", 2000)["evidence_recall"] == 1, "all of it fits"
    assert row(found, "SlidingWindow")["evidence_recall"] == 0.25, "only where little had been said"
    assert row(found, "BM25Turns")["recall_at"]["1"] == 1
    assert row(found, "BM25Turns")["ndcg_at_10"] == 1
    assert row(found, "SlidingWindow")["recall_at"] is None
    assert found["tasks"]["made"] == {"conversations": 2, "messages": 21, "questions": 4, "notes": []}


def test_figures_are_kept_by_category_and_by_age(tmp_path: Path) -> None:
    cell = row(results(plan(tmp_path)), "oracle")
    pets = cell["categories"]["pets"]
    assert (pets["questions"], pets["evidence_recall"], pets["all_evidence"], pets["answer_coverage"]) == (2, 1, 1, 1)
    assert set(cell["categories"]) == {"pets", "places"}
    assert cell["ages"] == [[3, 3], [0, 0], [1, 1], *[[0, 0]] * 7]


def test_a_question_is_asked_once_its_moment_has_come(tmp_path: Path) -> None:
    spy = Spy()
    results(plan(tmp_path, Named("spy", spy), budgets=(20,)))
    assert spy.heads[-5:] == [3, 3, 12, 12, 12], "of bob, the messages said until then, and the question; each log's first one twice"


def test_a_question_before_the_first_message_is_asked_of_nothing(tmp_path: Path) -> None:
    dataset = Dataset({"ada": conversation("ada", "Hello.")}, [Question("first", "ada", "Hello?", 0)])
    cell = row(results(plan(tmp_path, dataset=dataset)), "SlidingWindow")
    assert (cell["questions"], cell["evidence_recall"], cell["answer_coverage"], cell["failures"]) == (1, None, None, 0)


def test_two_runs_are_equal_but_for_times(tmp_path: Path) -> None:
    rows = [named("SlidingWindow"), named("RandomMessages"), named("BM25Turns(neighbours=1)"), named("BM25Sittings")]
    written = []
    for name in ("one", "two"):
        asked = Plan([(Planted(10_000), None), (Made(small()), None)], rows, (512,), tmp_path / name)
        written.append(without_times(results(asked)))
        write_json(written[-1], tmp_path / f"{name}.json")
    assert written[0] == written[1]
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_the_gold_reaches_no_strategy(tmp_path: Path) -> None:
    """Whatever the gold is, and whether the oracle runs or not: the contexts of the others stay as they are."""
    bare = replace(small(), questions=[replace(question, gold=(), answers=()) for question in small().questions])
    seen = []
    for name, dataset, oracle in (("a", small(), True), ("b", bare, True), ("c", small(), False)):
        found = results(plan(tmp_path / name, dataset=dataset, oracle=oracle))
        seen.append([(row(found, each)["tokens"], row(found, each)["rows_read"]) for each in ("SlidingWindow", "BM25Turns")])
        assert any(cell["strategy"] == "oracle" for cell in found["cells"]) is oracle
    assert seen[0] == seen[1] == seen[2]


def test_a_strategy_may_name_the_arguments_of_a_history(tmp_path: Path) -> None:
    def choose(history: History, budget: Budget) -> Sequence[Pick]:
        assert history.tokens == history.head.tokens
        return [Pick.of(history.between(first=1, last=2), "the first"), Pick.of(history.tail(shown_tokens=10), "the last")]

    cell = row(results(plan(tmp_path, Named("spy", Spy(choose)), budgets=(60,))), "spy")
    assert (cell["error"], cell["evidence_recall"]) == (None, 0.75)


def test_a_question_too_long_for_the_budget_is_counted_and_keeps_nothing(tmp_path: Path) -> None:
    found = results(plan(tmp_path, budgets=(8,)))
    cell = row(found, "SlidingWindow", 8)
    assert (cell["cannot_fit"], cell["evidence_recall"], cell["answer_coverage"], cell["tokens"], cell["times"]["ms_median"]) == (
        4,
        0,
        0,
        None,
        None,
    )
    assert cell["cost_usd"] is None


# ---- prefix reuse ----


def test_prefix_reuse_is_what_consecutive_contexts_share_from_their_beginning(tmp_path: Path) -> None:
    """All fits: each context holds that of the user message before, and two messages more."""
    texts = ("One.", "Two of them.", "Three, says Ada.", "Four.", "Five at last.")
    counter = TiktokenCounter("o200k_base")
    costs = [counter.count(Message.user(text)).tokens for text in texts]
    closing = counter.count_request([Message.user(texts[0])]).tokens - costs[0]
    shared = costs[0] + sum(costs[:3])
    total = sum(costs[:3]) + sum(costs) + 2 * closing
    dataset = Dataset({"ada": conversation("ada", *texts)}, [Question("q", "ada", "What?", 5)])
    assert row(results(plan(tmp_path, dataset=dataset, budgets=(500,))), "SlidingWindow", 500)["prefix_reuse"] == round(shared / total, 6)


def test_a_context_with_a_steady_beginning_reuses_more_than_one_without(tmp_path: Path) -> None:
    steady = Named("steady", Spy(lambda history, budget: [Pick.of(history.between(1, 2), "the first")]))
    found = results(plan(tmp_path, Named("nothing", Spy()), steady))
    assert row(found, "nothing")["prefix_reuse"] < row(found, "steady")["prefix_reuse"]
    assert row(found, "oracle")["prefix_reuse"] is None


def test_only_the_newest_user_messages_of_the_first_conversation_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_file, "REPLAYED", 1)
    cell = row(results(plan(tmp_path)), "SlidingWindow")
    assert cell["prefix_reuse"] is None, "one context has none before it"


# ---- a model's answers ----


def test_a_backend_answers_from_every_context_and_is_scored(tmp_path: Path) -> None:
    def reply(context: Context) -> str:
        text = str(context.messages)
        return "Tom" if "called Tom" in text else "Rex, he said" if "Rex" in text else "Paris"

    found = results(plan(tmp_path, named("BM25Turns"), Named("nothing", Spy()), budgets=(80,), answers=ScriptedBackend(reply)))
    oracle, nothing = row(found, "oracle", 80), row(found, "nothing", 80)
    assert (oracle["answer_em"], oracle["answer_f1"], oracle["answer_contains"]) == (0.25, 0.375, 0.5)
    assert nothing["answer_em"] == 0
    assert found["settings"]["answers"] == "scripted"
    assert row(results(plan(tmp_path / "alone", budgets=(80,))), "oracle", 80)["answer_f1"] is None


def test_what_the_model_is_told_to_do_is_no_answer(tmp_path: Path) -> None:
    asked = [Question("q", "ada", "What is my cat called?", 10, (0,), ("as few words as possible",))]
    made = plan(
        tmp_path, Named("nothing", Spy()), dataset=replace(small(), questions=asked), answers=ScriptedBackend(lambda context: "Tom")
    )
    assert row(results(made), "nothing")["answer_coverage"] == 0


def test_a_question_that_does_not_fit_scores_nothing_and_one_without_answers_is_not_put_to_the_model(tmp_path: Path) -> None:
    dataset = replace(small(), questions=[small().questions[0], Question("open", "bob", "How are you?", 11)])
    found = results(plan(tmp_path, dataset=dataset, budgets=(8,), answers=ScriptedBackend(["never asked"])))
    assert (row(found, "oracle", 8)["cannot_fit"], row(found, "oracle", 8)["answer_f1"], row(found, "oracle", 8)["questions"]) == (2, 0, 2)


def test_a_question_without_evidence_is_scored_by_its_answer_alone(tmp_path: Path) -> None:
    bare = replace(small(), questions=[replace(question, gold=()) for question in small().questions])
    found = row(results(plan(tmp_path, dataset=bare, answers=ScriptedBackend(lambda context: "Tom"))), "BM25Turns")
    assert (found["evidence_recall"], found["answer_coverage"], found["answer_em"]) == (None, 1, 0.25)


def test_a_backend_that_fails_is_named_and_its_cells_are_run_again(tmp_path: Path) -> None:
    broken = ScriptedBackend([BackendError("no more"), *["Tom"] * 3])
    found = results(plan(tmp_path, named("BM25Turns"), oracle=False, answers=broken))
    assert row(found, "BM25Turns")["error"] == "scripted failed with BM25Turns at question cat: BackendError: no more"
    found = results(plan(tmp_path, named("BM25Turns"), oracle=False, answers=ScriptedBackend(["Tom"])))
    assert (row(found, "BM25Turns")["error"], row(found, "BM25Turns")["questions"]) == (None, 4), "bob's were answered before"


def test_a_model_with_too_small_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="scripted has a window of 100 tokens: too small for a context of 60"):
        plan(tmp_path, answers=ScriptedBackend(["Tom"], window=100))


# ---- what fails ----


def test_a_broken_strategy_is_named_with_the_question_and_the_others_finish(tmp_path: Path) -> None:
    found = results(plan(tmp_path, Named("mine.py:Mine", Spy(raising)), named("BM25Turns"), named("LastMessages")))
    failed = row(found, "mine.py:Mine")
    assert failed["error"] == "strategy mine.py:Mine failed at question dog: KeyError: 'dog'"
    assert (failed["failures"], failed["evidence_recall"], failed["tokens"], failed["prefix_reuse"]) == (1, None, None, None)
    assert row(found, "BM25Turns")["evidence_recall"] == 1
    assert [(one["a"], one["b"]) for one in found["comparisons"]] == [("BM25Turns", "LastMessages")]


def test_picks_that_are_none_are_an_error_of_the_strategy(tmp_path: Path) -> None:
    wrong: Callable[[History, Budget], Sequence[Pick]] = lambda history, budget: [Pick((99,), 0, "nowhere")]  # noqa: E731
    found = results(plan(tmp_path, Named("spy", Spy(wrong))))
    assert "strategy spy failed at question cat: StrategyError" in row(found, "spy")["error"]


def test_a_mended_strategy_runs_again_and_only_where_it_failed(tmp_path: Path) -> None:
    results(plan(tmp_path, Named("mine", Spy(raising))))
    mended = Spy()
    cell = row(results(plan(tmp_path, Named("mine", mended))), "mine")
    assert (cell["error"], cell["questions"]) == (None, 4)
    assert max(mended.heads) == 12, "bob's questions"
    assert 11 not in mended.heads, "ada's cell was finished"


def test_a_strategy_whose_file_changed_is_run_anew(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    def pick(self, history, budget):\n        return []\n")
    first = row(results(plan(tmp_path / "run", named(f"{file}:Mine"))), f"{file}:Mine")
    file.write_text(
        "from threadkeep import Pick\n"
        "class Mine:\n    def pick(self, history, budget):\n        return [Pick.of(history.between(1, 3), 'the first')]\n"
    )
    second = row(results(plan(tmp_path / "run", named(f"{file}:Mine"))), f"{file}:Mine")
    assert (first["evidence_recall"], second["evidence_recall"]) == (0.25, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": []}, "at least one task"),
        ({"strategies": []}, "at least one task"),
        ({"budgets": ()}, "at least one task"),
        ({"budgets": (0,)}, "numbers of tokens from 1"),
        ({"budgets": ("60",)}, "numbers of tokens from 1"),
        ({"budgets": (60, 60)}, "stands once"),
        ({"tasks": [(Made(small()), None)] * 2}, "stands once"),
        ({"seed": -1}, "a seed is a whole number"),
        ({"strategies": [named("SlidingWindow")] * 2}, "each strategy stands once"),
        ({"strategies": [Named("oracle", Spy())]}, "none is called 'oracle'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        replace(plan(tmp_path), **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conversation": "eve"}, "question cat: is asked after 10 messages of 'eve'"),
        ({"after": 11}, "question cat: is asked after 11 messages"),
        ({"after": -1}, "question cat: is asked after -1 messages"),
        ({"gold": (10,)}, "question cat: has the evidence"),
        ({"gold": (0, 0)}, "each once"),
        ({"name": "dog"}, "question dog: is there twice"),
    ],
)
def test_a_question_that_could_never_be_asked_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    first, *others = small().questions
    with pytest.raises(DatasetError, match=said):
        results(plan(tmp_path, dataset=replace(small(), questions=[replace(first, **change), *others])))


# ---- what is kept on disk ----


def test_an_interrupted_run_goes_on_where_it_was_and_agrees(tmp_path: Path) -> None:
    def interrupted(task: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan(tmp_path / "half"), interrupted)
    spy = Spy()
    whole = results(plan(tmp_path / "whole"))
    assert without_times(results(plan(tmp_path / "half"))) == without_times(whole)
    kept = (tmp_path / "half" / "made.jsonl").read_text()
    assert results(plan(tmp_path / "half")) == results(plan(tmp_path / "half")), "nothing is left to run: even the times stay"
    assert (tmp_path / "half" / "made.jsonl").read_text() == kept
    assert spy.heads == []


def test_progress_is_told_by_conversations(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(plan(tmp_path), lambda *what: told.append(what))
    assert told == [("made", 0, 2), ("made", 1, 2), ("made", 2, 2)]


def test_another_budget_is_run_beside_those_that_are_finished(tmp_path: Path) -> None:
    first = results(plan(tmp_path))
    both = results(plan(tmp_path, budgets=(60, 80)))
    assert row(both, "BM25Turns") == row(first, "BM25Turns")
    assert row(both, "BM25Turns", 80)["questions"] == 4


def test_a_line_that_a_crash_cut_is_taken_off_and_its_cell_run_again(tmp_path: Path) -> None:
    first = results(plan(tmp_path))
    file = tmp_path / "made.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert without_times(results(plan(tmp_path))) == without_times(first)
    assert file.read_bytes().count(b"\n") == whole.count(b"\n")
    file.write_bytes(whole[:10])
    assert without_times(results(plan(tmp_path))) == without_times(first)


@pytest.mark.parametrize("line", [b"not JSON", b"[]", b"{}", b'{"cell": [1], "source": "", "outcomes": []}', b"\xff\xfe"])
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, line: bytes) -> None:
    run(plan(tmp_path), silently)
    file = tmp_path / "made.jsonl"
    lines = file.read_bytes().splitlines()
    for at in (0, 2):
        file.write_bytes(b"\n".join([*lines[:at], line, *lines[at + 1 :]]) + b"\n")
        with pytest.raises(InvalidSetting, match=f"made.jsonl, line {at + 1}: is no cell of a run"):
            run(plan(tmp_path), silently)


def test_cells_of_another_run_are_refused(tmp_path: Path) -> None:
    run(plan(tmp_path), silently)
    fewer = replace(small(), questions=small().questions[1:])
    for other in (plan(tmp_path, seed=1), plan(tmp_path, dataset=fewer)):
        with pytest.raises(InvalidSetting, match="holds cells of another run"):
            run(other, silently)


def test_the_fingerprint_is_of_every_word_and_date(monkeypatch: pytest.MonkeyPatch) -> None:
    told = small().conversations["ada"]
    later = Conversation("ada", (*told.said[:-1], replace(told.said[-1], at=None)))
    longer = Conversation("ada", (*told.said[:-1], Said(Message.user("\ud800 half a sign"))))
    prints = {fingerprint(replace(small(), conversations={"ada": one}), seed) for one in (told, later, longer) for seed in (0, 1)}
    assert len(prints) == 6
    assert fingerprint(small(), 0) == fingerprint(small(), 0)
    before = fingerprint(small(), 0)
    monkeypatch.setattr(cells_file, "version", lambda name: "99.0")
    assert release() == "99.0"
    assert fingerprint(small(), 0) != before


def test_a_checkout_that_is_not_installed_is_a_release_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cells_file, "version", none)
    assert release() == "a checkout that is not installed"


def test_a_cell_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    (ran,) = run(plan(tmp_path), silently)
    kept = Cells(tmp_path / "made.jsonl", fingerprint(small(), 0), ran.cells._sources)
    for strategy in ("SlidingWindow", "BM25Turns", "oracle"):
        for name in ("ada", "bob"):
            cell = Cell("made", name, strategy, 60)
            assert kept.outcomes(cell) == ran.cells.outcomes(cell) != []
            assert kept.reuse(cell) == ran.cells.reuse(cell)
    assert kept.outcomes(Cell("made", "eve", "SlidingWindow", 60)) == []
    assert json.loads((tmp_path / "made.jsonl").read_text().splitlines()[0])["fingerprint"] == fingerprint(small(), 0)


# ---- figures ----


def test_the_interval_of_a_mean_is_the_same_for_a_seed_and_holds_the_mean() -> None:
    differences = np.array([0.0, 1.0, 0.5, -0.5, 1.0, 0.0, 0.25, 1.0])
    low, high = interval(differences, 7)
    assert (low, high) == interval(differences, 7)
    assert -0.5 <= low < differences.mean() < high <= 1
    # the normal approximation: mean 0.40625, standard error 0.19
    assert low == pytest.approx(0.41 - 1.96 * 0.19, abs=0.06)
    assert high == pytest.approx(0.41 + 1.96 * 0.19, abs=0.06)
    assert interval(np.array([0.25, 0.25, 0.25]), 0) == (0.25, 0.25)


def test_strategies_are_compared_question_by_question(tmp_path: Path) -> None:
    found = results(plan(tmp_path, named("BM25Turns"), named("SlidingWindow")))
    (one,) = found["comparisons"]
    assert (one["a"], one["b"], one["budget"], one["metric"], one["difference"]) == (
        "BM25Turns",
        "SlidingWindow",
        60,
        "evidence_recall",
        0.75,
    )
    assert (one["low"], one["high"]) == interval(np.array([1.0, 1.0, 0.0, 1.0]), 0)


def test_without_gold_nothing_is_compared(tmp_path: Path) -> None:
    bare = replace(small(), questions=[replace(question, gold=()) for question in small().questions])
    found = results(plan(tmp_path, dataset=bare))
    assert found["comparisons"] == []
    assert row(found, "BM25Turns")["evidence_interval"] is None


def test_a_context_over_its_budget_is_counted(tmp_path: Path) -> None:
    made = plan(tmp_path, named("SlidingWindow"), oracle=False)
    (ran,) = run(made, silently)
    cell = Cell("made", "ada", "SlidingWindow", 60)
    (outcome,) = ran.cells.outcomes(cell)
    ran.cells.add(cell, [replace(outcome, tokens=61)], None)
    assert row(summarise(made, [ran]), "SlidingWindow")["over_budget"] == 1


def test_times_are_quantiles_in_milliseconds(tmp_path: Path) -> None:
    made = plan(tmp_path, named("SlidingWindow"), oracle=False)
    (ran,) = run(made, silently)
    for name in ("ada", "bob"):
        cell = Cell("made", name, "SlidingWindow", 60)
        timed = {"cat": 1.0, "early": 2.0, "dog": 3.0, "town": 10.0}
        ran.cells.add(cell, [replace(one, milliseconds=timed[one.question]) for one in ran.cells.outcomes(cell)], None)
    assert row(summarise(made, [Ran(ran.task, ran.dataset, ran.cells)]), "SlidingWindow")["times"] == {"ms_median": 2.5, "ms_p95": 8.95}


def test_cached_tokens_are_cheaper(tmp_path: Path) -> None:
    """gpt-4.1-nano: 0.10 dollars for a million tokens, 0.025 where they are cached."""
    dataset = Dataset({"ada": conversation("ada", *["The same words again and again."] * 9)}, [Question("q", "ada", "What?", 9)])
    cell = row(results(plan(tmp_path, dataset=dataset, budgets=(500,))), "SlidingWindow", 500)
    tokens, cached = round(cell["tokens"]), round(round(cell["tokens"]) * cell["prefix_reuse"])
    assert float(cell["cost_usd"]) == pytest.approx((tokens - cached) * 0.1e-6 + cached * 0.025e-6)


def test_the_settings_of_a_run_stand_in_its_results(tmp_path: Path) -> None:
    found = results(plan(tmp_path, seed=5))
    assert found["made"]["seed"] == 5
    assert found["made"]["counter"] == TiktokenCounter("o200k_base").name
    settings = {"tasks": {"made": None}, "strategies": ["SlidingWindow", "BM25Turns"], "budgets": [60], "oracle": True}
    assert found["settings"].items() >= settings.items()


# ---- upkeep: vectors and summaries ----


@dataclass(frozen=True)
class Nearest:
    """The entry whose vector is nearest to the question's."""

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        index = history.index()
        if index.vectors is None or index.query is None:
            return []
        assert np.linalg.norm(index.vectors, axis=1) == pytest.approx(np.ones(len(index)), abs=1e-2), "every entry before has a vector"
        row = int(np.argmax(index.vectors @ index.query))
        return [Pick.of(index.lookup.entries([row]), "near")]


def test_an_embedder_gives_what_was_said_its_vectors_before_anything_is_asked(tmp_path: Path) -> None:
    found = results(plan(tmp_path, Named("nearest", Nearest()), embedder=HashedEmbedder()))
    assert row(found, "nearest")["evidence_recall"] == 1
    assert found["settings"]["embedder"] == "hashed-words-256"
    without = row(results(plan(tmp_path / "none", Named("nearest", Nearest()))), "nearest")
    assert without["evidence_recall"] == 0.25, "one of four is asked when all fits"


def test_cells_without_vectors_are_not_taken_for_those_with(tmp_path: Path) -> None:
    without = row(results(plan(tmp_path, Named("nearest", Nearest()))), "nearest")
    assert row(results(plan(tmp_path, Named("nearest", Nearest()), embedder=HashedEmbedder())), "nearest") != without


def test_an_embedder_that_fails_ends_the_run_with_its_words(tmp_path: Path) -> None:
    class Fails(HashedEmbedder):
        def embed(self, texts: Sequence[str]) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
            raise EmbedderError("the model is gone")

    with pytest.raises(EmbedderError, match="the model is gone"):
        results(plan(tmp_path, Named("nearest", Nearest()), embedder=Fails()))


@dataclass
class Summarised:
    """Shows the summaries that upkeep made of it."""

    fails: bool = False
    recipes: Sequence[str] = ("first words",)

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        last = max((summary.last for summary in history.summaries(recipe)), default=0)
        if last >= history.head.seq:
            return None
        if self.fails:
            raise OSError("no words came")
        said = history.entries([last + 1])[0].message.text
        return lambda: Summary(1, last + 1, last + 1, said, 0, "test")

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return [Pick((one.first,), one.tokens, "summed up", kind="summary", text=one.text) for one in history.summaries("first words")[:1]]


def test_a_strategys_summaries_are_made_before_anything_is_asked(tmp_path: Path) -> None:
    found = results(plan(tmp_path, Named("summarised", Summarised())))
    assert row(found, "summarised")["answer_coverage"] > 0


def test_a_strategy_whose_summaries_fail_is_named_and_the_others_finish(tmp_path: Path) -> None:
    found = results(plan(tmp_path, Named("summarised", Summarised(fails=True)), named("SlidingWindow")))
    assert "upkeep of summaries:first words failed: OSError: no words came" in row(found, "summarised")["error"]
    assert row(found, "SlidingWindow")["error"] is None
