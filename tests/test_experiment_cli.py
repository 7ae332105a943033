"""Experiments from the command line, as the docs tell them."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import FakeLibrary
from typer.testing import CliRunner

from threadkeep import ScriptedBackend
from threadkeep.cli import app
from threadkeep.experiments.cli import Bars

DOCS = Path(__file__).parent.parent / "docs" / "experiments.md"
MINE = """
from __future__ import annotations

from dataclasses import dataclass

from threadkeep import Budget, History, Pick


@dataclass(frozen=True)
class Beginning:
    first: int = 2

    def pick(self, history: History, budget: Budget) -> list[Pick]:
        return [Pick.of(history.between(1, self.first), "how it began")]
"""
BROKEN = MINE.replace("        return [", "        history.nothing_of_that_name()\n        return [")


class Terminal:
    """Runs `threadkeep experiment …` in this process, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stdout = self.stderr = ""

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What it printed: a command that fails, on stderr."""
        done = CliRunner().invoke(app, ["experiment", *arguments], env={"THREADKEEP_DATA": None, **environment})
        assert done.exit_code == code, (done.exit_code, done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        self.stdout, self.stderr = done.stdout, done.stderr
        return done.stderr if code else done.stdout

    def planted(self, *arguments: str, out: str = "out", code: int = 0) -> str:
        wanted = ["run", "--task", "planted", "--tokens", "10000", "--budget", "1024", "--out", out]
        return self.run(*wanted, *arguments, code=code)

    def results(self, out: str = "out") -> dict[str, object]:
        """A run's results without its times."""
        return json.loads(self.text(out))  # type: ignore[no-any-return]  # JSON

    def text(self, out: str = "out") -> str:
        text = (self.folder / out / "results.json").read_text()
        untimed, times = re.subn(r'"times": \{[^}]*\}', '"times": {}', text)
        assert times
        return untimed

    def chats(self, name: str = "locomo10.json", people: tuple[str, ...] = ("Ada", "Bo", "Cy")) -> Path:
        """A small file as LoCoMo is published: one conversation for each of `people`, with a friend."""
        (self.folder / name).parent.mkdir(exist_ok=True, parents=True)
        (self.folder / name).write_text(json.dumps([chat(one) for one in people]))
        return self.folder / name


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path)


def chat(person: str) -> dict[str, object]:
    said = [f"My parrot is called {person}let.", "A fine name.", "It likes walnuts.", "Mine likes plums.", "We should meet.", "On Friday?"]
    turns = [{"speaker": (person, "Friend")[at % 2], "dia_id": f"D1:{at + 1}", "text": text} for at, text in enumerate(said)]
    asked = [("What is the parrot called?", f"{person}let", "D1:1"), ("What does the parrot like?", "walnuts", "D1:3")]
    return {
        "sample_id": f"chat-{person}",
        "conversation": {
            "speaker_a": person,
            "speaker_b": "Friend",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": turns,
        },
        "qa": [{"question": question, "answer": answer, "evidence": [turn], "category": 4} for question, answer, turn in asked],
    }


def cells_of(results: dict[str, object]) -> dict[str, dict[str, object]]:
    """By strategy, the first cell of each."""
    cells = results["cells"]
    assert isinstance(cells, list)
    return {cell["strategy"]: cell for cell in reversed(cells)}


def test_the_tasks_are_listed_with_what_they_read(terminal: Terminal) -> None:
    said = terminal.run("tasks")

    assert all(name in said for name in ("longmemeval", "locomo10.json", "realmem", "bfcl_memory", "planted", "sessions"))


def test_a_run_shows_a_table_and_says_where_its_results_are(terminal: Terminal) -> None:
    said = terminal.planted("--strategy", "BM25Turns", "--strategy", "LastMessages")

    assert re.search(r"1,024 BM25Turns", said)
    assert "oracle" in said
    assert said.splitlines()[-2:] == [str(Path("out", "results.json")), str(Path("out", "report.html"))]
    assert "<svg" in (terminal.folder / "out" / "report.html").read_text()
    assert [cell["over_budget"] for cell in cells_of(terminal.results()).values()] == [0, 0, 0]


def test_without_the_oracle_there_is_no_row_of_it(terminal: Terminal) -> None:
    terminal.planted("--strategy", "LastMessages", "--no-oracle")

    assert list(cells_of(terminal.results())) == ["LastMessages"]


def test_a_strangers_strategy_is_run_out_of_its_file(terminal: Terminal) -> None:
    (terminal.folder / "my_strategy.py").write_text(MINE)

    terminal.planted("--strategy", "my_strategy.py:Beginning(first=3)", "--strategy", "LastMessages")

    cell = cells_of(terminal.results())["my_strategy.py:Beginning(first=3)"]
    assert cell["error"] is None
    assert 0 < cell["tokens"] < 1024  # type: ignore[operator]  # JSON


def test_the_strategy_that_the_docs_show_runs_as_they_say(terminal: Terminal) -> None:
    page = DOCS.read_text()
    [code] = re.findall(r"```python\n(.*?class WithNumbers.*?)```", page, re.DOTALL)
    [command] = re.findall(r"^threadkeep experiment (.*my_strategy.py.*)$", page, re.MULTILINE)
    (terminal.folder / "my_strategy.py").write_text(code)

    terminal.run(*shlex.split(command), "--budget", "1024", "--tokens", "10000")

    cells = cells_of(terminal.results("mine"))
    assert cells["my_strategy.py:WithNumbers(longest=100)"]["evidence_recall"] > cells["LastMessages"]["evidence_recall"]  # type: ignore[operator]  # JSON


def test_a_broken_strategy_is_named_with_its_question_and_the_others_finish(terminal: Terminal) -> None:
    (terminal.folder / "my_strategy.py").write_text(BROKEN)

    said = terminal.planted("--strategy", "my_strategy.py:Beginning", "--strategy", "LastMessages", code=1)

    assert re.search(r"^error: strategy my_strategy.py:Beginning failed at question planted-10000-0/0: AttributeError", said, re.MULTILINE)
    assert "Traceback" not in said
    assert re.search(r"LastMessages +\d", terminal.stdout)
    cells = cells_of(terminal.results())
    assert cells["LastMessages"]["error"] is None
    assert cells["LastMessages"]["evidence_recall"] is not None
    assert cells["my_strategy.py:Beginning"]["evidence_recall"] is None


def test_a_mended_strategy_is_run_again_by_the_same_command(terminal: Terminal) -> None:
    (terminal.folder / "my_strategy.py").write_text(BROKEN)
    terminal.planted("--strategy", "my_strategy.py:Beginning", code=1)

    (terminal.folder / "my_strategy.py").write_text(MINE)
    terminal.planted("--strategy", "my_strategy.py:Beginning")

    assert cells_of(terminal.results())["my_strategy.py:Beginning"]["error"] is None


def test_a_changed_strategy_is_run_again_by_the_same_command(terminal: Terminal) -> None:
    (terminal.folder / "my_strategy.py").write_text(MINE)
    terminal.planted("--strategy", "my_strategy.py:Beginning")
    before = cells_of(terminal.results())["my_strategy.py:Beginning"]["tokens"]

    (terminal.folder / "my_strategy.py").write_text(MINE.replace("first: int = 2", "first: int = 5"))
    terminal.planted("--strategy", "my_strategy.py:Beginning")

    assert cells_of(terminal.results())["my_strategy.py:Beginning"]["tokens"] > before  # type: ignore[operator]  # JSON


def test_a_model_answers_from_every_context_and_is_scored(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int, float]] = []

    def open_backend(console: object, model: str, window: int, cache: Path | None, *, temperature: float) -> ScriptedBackend:
        opened.append((model, window, temperature))
        return ScriptedBackend(lambda context: "Walnuts!", window=window)

    monkeypatch.setattr("threadkeep.experiments.cli.open_backend", open_backend)

    terminal.run(
        "run", "--task", f"locomo={terminal.chats()}", "--strategy", "LastMessages", "--budget", "256", "--answers", "any", "--out", "out"
    )

    cell = cells_of(terminal.results())["LastMessages"]
    assert (cell["answer_f1"], cell["answer_em"], cell["answer_contains"]) == (0.5, 0.5, 0.5)
    assert opened == [("any", 448, 0)]


def test_messages_are_given_vectors_by_the_model_that_is_named(
    terminal: Terminal, fake_sentence_transformers: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    (terminal.folder / "model").mkdir()
    monkeypatch.setattr("threadkeep.experiments.embeddings.default_path", lambda: terminal.folder / "embeddings.db")
    wanted = "run", "--task", f"locomo={terminal.chats()}", "--strategy", "LastMessages", "--budget", "256", "--embedder", "model"

    terminal.run(*wanted, "--out", "first")
    asked = sum(len(texts) for texts in fake_sentence_transformers.asked)
    terminal.run(*wanted, "--out", "second")

    assert asked > 0
    assert sum(len(texts) for texts in fake_sentence_transformers.asked) == asked
    assert terminal.results("first")["settings"]["embedder"].startswith("model@")  # type: ignore[index]  # JSON


def test_the_same_command_twice_gives_the_same_bytes_but_for_times(terminal: Terminal) -> None:
    strategies = ["--strategy", "BM25Turns", "--strategy", "RandomMessages"]
    terminal.planted(*strategies)
    first = terminal.text()
    terminal.planted(*strategies)
    terminal.planted(*strategies, out="afresh")

    assert terminal.text() == first
    assert terminal.text("afresh") == first


def test_an_interrupted_run_goes_on_and_agrees_with_one_that_was_not(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["run", "--task", f"locomo={terminal.chats()}", "--strategy", "BM25Turns", "--strategy", "LastMessages", "--budget", "64"]
    told = Bars.told
    seen: list[int] = []

    def interrupted(bars: Bars, task: str, done: int, total: int) -> None:
        seen.append(done)
        told(bars, task, done, total)
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bars, "told", interrupted)
        said = terminal.run(*command, "--out", "halted", code=130)
    kept = (terminal.folder / "halted" / "locomo.jsonl").read_bytes()
    assert not (terminal.folder / "halted" / "results.json").exists()
    terminal.run(*command, "--out", "halted")
    terminal.run(*command, "--out", "whole")

    assert seen == [0, 1, 2]
    assert "the same command again" in said
    assert "halted" in said
    assert kept.count(b"chat-Bo") > 0 == kept.count(b"chat-Cy")
    assert (terminal.folder / "halted" / "locomo.jsonl").read_bytes().startswith(kept)
    assert terminal.text("halted") == terminal.text("whole")
    assert cells_of(terminal.results("halted"))["BM25Turns"]["questions"] == 6


def test_datasets_are_found_in_their_folder(terminal: Terminal) -> None:
    terminal.chats("data/locomo/locomo10.json")

    terminal.run("run", "--task", "locomo", "--strategy", "LastMessages", "--out", "out", THREADKEEP_DATA="data")

    assert terminal.results()["settings"]["tasks"] == {"locomo": "locomo10.json"}  # type: ignore[index]  # JSON


def test_of_several_datasets_one_is_to_be_named(terminal: Terminal) -> None:
    terminal.chats("data/locomo_a.json")
    terminal.chats("data/locomo_b.json")

    said = terminal.run("run", "--task", "locomo", "--data", "data", code=1)

    assert said == "error: data, task locomo: could read locomo_a.json, locomo_b.json: name one with --task locomo=PATH\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "memory"], "there is no task 'memory': there are longmemeval, locomo"),
        (["--task", "locomo"], "task locomo, path: is missing: give locomo10.json"),
        (["--task", "locomo=nowhere.json"], "nowhere.json, path: does not exist"),
        (["--task", "locomo", "--data", "nowhere"], "nowhere, task locomo: is no folder of datasets"),
        (["--task", "locomo", "--data", "."], "task locomo: found none of locomo*.json"),
        (["--task", "planted", "--task", "planted"], "task planted is asked for twice"),
        (["--task", "planted", "--tokens", "12"], "planted(tokens=12): a whole number from 10000"),
        (["--task", "planted", "--strategy", "Everything"], "there is no strategy 'Everything': there are BM25Sittings"),
        (["--task", "planted", "--strategy", "other.py:Everything"], "there is no file other.py"),
        (["--task", "planted", "--strategy", "syntax.py:Mine"], "syntax.py could not be imported: SyntaxError"),
        (["--task", "planted", "--strategy", "RandomMessages(sed=1)"], "unexpected keyword argument 'sed'"),
        (["--task", "planted", "--out", "syntax.py"], "syntax.py cannot be written: File exists"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(terminal: Terminal, arguments: list[str], said: str) -> None:
    (terminal.folder / "syntax.py").write_text("class Mine\n")

    error = terminal.run("run", *arguments, code=1).splitlines()[-1]

    assert error.startswith("error: ")
    assert said in error


def test_a_malformed_dataset_is_named_with_its_record(terminal: Terminal) -> None:
    chats = json.loads(terminal.chats().read_text())
    del chats[1]["conversation"]["speaker_b"]
    (terminal.folder / "locomo10.json").write_text(json.dumps(chats))

    said = terminal.run("run", "--task", "locomo=locomo10.json", code=1)

    assert said.splitlines()[-1].startswith("error: locomo10.json, record 1 (chat-Bo).conversation: has no 'speaker_b'")


def test_cells_of_other_data_are_not_taken_for_these(terminal: Terminal) -> None:
    terminal.planted("--strategy", "LastMessages")

    said = terminal.planted("--strategy", "LastMessages", "--seed", "1", code=1)

    assert "holds cells of another run" in said


def test_two_strategies_are_compared_either_way_round(terminal: Terminal) -> None:
    terminal.planted("--strategy", "BM25Turns", "--strategy", "LastMessages", "--strategy", "SlidingWindow")
    results = str(Path("out", "results.json"))

    every, above, below = (
        terminal.run("compare", results, *two) for two in ([], ["BM25Turns", "LastMessages"], ["LastMessages", "BM25Turns"])
    )

    assert every.count(" − ") == 3
    [shown] = re.findall(r"BM25Turns − LastMessages +\+([\d.]+) +\+([\d.]+) to \+([\d.]+)", above)
    [turned] = re.findall(r"LastMessages − BM25Turns +−([\d.]+) +−([\d.]+) to −([\d.]+)", below)
    assert shown == (turned[0], turned[2], turned[1])


def test_what_cannot_be_compared_is_said(terminal: Terminal) -> None:
    terminal.planted("--strategy", "LastMessages", "--strategy", "SlidingWindow")
    results = str(Path("out", "results.json"))

    assert "has no strategy 'Everything': it has LastMessages, SlidingWindow, oracle" in terminal.run(
        "compare", results, "Everything", "LastMessages", code=1
    )
    assert "compares no such strategies" in terminal.run("compare", results, "oracle", "LastMessages", code=1)
    assert "two strategies are compared, not 1" in terminal.run("compare", results, "LastMessages", code=2)
    assert "nowhere.json: cannot be read" in terminal.run("compare", "nowhere.json", code=1)


def test_a_report_is_made_again_from_its_results(terminal: Terminal) -> None:
    shown = terminal.planted("--strategy", "LastMessages")

    again = terminal.run("report", str(Path("out", "results.json")), "--html", str(Path("pages", "page.html")))

    assert again.splitlines()[:-1] == shown.splitlines()[:-2]
    assert (terminal.folder / "pages" / "page.html").read_bytes() == (terminal.folder / "out" / "report.html").read_bytes()


def test_a_missing_extra_is_named_before_anything_runs(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.delitem(sys.modules, "threadkeep.experiments.summary", raising=False)

    said = terminal.planted("--strategy", "LastMessages", code=1)

    assert said == "error: genai-prices is not installed: pip install 'threadkeep[experiments]'\n"
    assert not (terminal.folder / "out").exists()
