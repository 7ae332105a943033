"""Strategies are asked for by name, with settings, out of a stranger's module or file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from threadkeep import ClearToolResults, Compose, InvalidSetting, Recall, SlidingWindow
from threadkeep.experiments.baselines import BM25Turns, RandomMessages
from threadkeep.experiments.named import code_of, known, named

MINE = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    note: str = ""

    def pick(self, history, budget):
        return []

class Other:
    def choose(self):
        return []

nothing = 3
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strangers.py").write_text(MINE)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_built_in_strategy_needs_only_its_name() -> None:
    assert named("SlidingWindow").strategy == SlidingWindow()
    assert {"SlidingWindow", "LastMessages", "BM25Turns", "BM25Sittings", "RandomMessages"} <= set(known())
    assert not {"Strategy", "Pick", "History"} & set(known())


def test_a_built_in_strategy_may_be_written_as_its_file_is() -> None:
    assert named("sliding_window(step=0.5)").strategy == SlidingWindow(0.5)
    assert named("bm25_turns").strategy == BM25Turns()


def test_a_strategy_may_have_others_as_its_parts() -> None:
    asked = named("Compose(SlidingWindow(step=0.5), recall(floor=0), shares=(0.3, 0.7))")
    assert repr(asked.strategy) == repr(Compose(SlidingWindow(step=0.5), Recall(floor=0), shares=(0.3, 0.7)))
    assert repr(named("ClearToolResults(inner=SlidingWindow())").strategy) == repr(ClearToolResults(SlidingWindow()))


@pytest.mark.parametrize("text", ["Compose(3, shares=(1,))", "Compose(Nothing(), shares=(1,))", "Compose(SlidingWindow(), shares=(2,))"])
def test_a_part_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidSetting, match="Compose"):
        named(text)


def test_settings_are_read_and_the_name_in_reports_is_what_was_asked() -> None:
    asked = named("BM25Turns(k1=1.2, neighbours=2)")
    assert asked.strategy == BM25Turns(k1=1.2, neighbours=2)
    assert asked.name == "BM25Turns(k1=1.2, neighbours=2)"
    assert named(" RandomMessages( seed = 3 ) ").strategy == RandomMessages(3)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("place", ["strangers", "strangers.py", "./strangers.py"])
def test_a_strangers_strategy_is_found_in_his_module_or_file(place: str) -> None:
    made = named(f"{place}:Mine(note='a: b (c)')").strategy
    assert repr(made) == "Mine(note='a: b (c)')", "a setting may hold colons and brackets"


@pytest.mark.usefixtures("modules")
def test_a_file_that_bears_the_name_of_a_module_hides_it_from_nobody() -> None:
    Path("random.py").write_text(MINE)
    import random

    assert repr(named("random.py:Mine").strategy) == "Mine(note='')"
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Sliding", "there is no strategy 'Sliding': there are BM25Sittings, "),
        ("", "write Name"),
        ("SlidingWindow(", "write Name"),
        ("SlidingWindow(0.5)", "write Name"),
        ("SlidingWindow(**{'step': 1})", "is not read"),
        ("SlidingWindow(step=open('x'))", "write Name"),
        ("SlidingWindow(step={[]: 1})", "write Name"),
        ("SlidingWindow + SlidingWindow", "write Name"),
        ("SlidingWindow(step=3)", "a share of the budget"),
        ("SlidingWindow(pace=3)", "could not be made: TypeError"),
        ("nowhere.py:Mine", "there is no file nowhere.py"),
        ("no_such_module:Mine", "no_such_module could not be imported: ModuleNotFoundError"),
        ("broken.py:Mine", "broken.py could not be imported: ZeroDivisionError"),
        ("strangers:Nobody", "strangers has no class 'Nobody'"),
        ("strangers.py:nothing", "strangers.py has no class 'nothing'"),
        ("strangers.py:Other", r"Other has no method pick\(history, budget\)"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_to_write(modules: Path, text: str, said: str) -> None:
    (modules / "broken.py").write_text("1 / 0")
    with pytest.raises(InvalidSetting, match=said):
        named(text)


@pytest.mark.usefixtures("modules")
def test_another_text_of_the_file_is_another_code() -> None:
    first = code_of(named("strangers.py:Mine").strategy)
    assert first == code_of(named("strangers.py:Mine(note='x')").strategy)
    Path("strangers.py").write_text(MINE + "# mended\n")
    assert code_of(named("strangers.py:Mine").strategy) not in ("", first)


def test_a_strategy_without_a_file_has_no_code() -> None:
    made = type("Typed", (), {"pick": lambda self, history, budget: [], "__module__": "builtins"})
    assert code_of(made()) == ""
