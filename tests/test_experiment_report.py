import json
import pickle
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from threadkeep import ThreadkeepError
from threadkeep.experiments.report import ResultsError, comparison_table, read_json, table, write_html, write_json

STRATEGIES = {  # how much each keeps, how fast it grows with the budget, its milliseconds
    "LastMessages()": (0.02, 0.04, 0.9),
    "SlidingWindow(step=0.25)": (0.03, 0.045, 1.2),
    "BM25Turns(k1=1.2)": (0.72, 0.07, 4.2),
    "BM25Neighbours(before=1, after=1)": (0.66, 0.11, 5.1),
    "Recall(k=20, embedder=all-minilm-l6-v2)": (0.83, 0.055, 31.0),
}
BUDGETS = (1024, 2048, 4096, 8192)
CATEGORIES = {
    "longmemeval": ("multi-session", "temporal-reasoning", "knowledge-update", "single-session-user", "single-session-preference"),
    "locomo": ("multi-hop", "temporal", "open-domain", "single-hop", "adversarial"),
}
QUESTIONS = {"longmemeval": 50, "locomo": 302, "sessions": 120}


def sample(seed: int = 0) -> dict[str, object]:
    """Made-up results of three tasks, five strategies and four budgets; `sessions` has no gold."""
    rng = random.Random(seed)
    cells = [_cell(rng, task, name, index) for task in QUESTIONS for name in STRATEGIES for index in range(len(BUDGETS))]
    return {
        "made": {"threadkeep": "0.1.0", "python": "3.11.7", "seed": seed, "counter": "tiktoken/o200k_base", "tiktoken": "0.14.0"},
        "settings": {"tasks": list(QUESTIONS), "strategies": list(STRATEGIES), "budgets": list(BUDGETS), "prices": "gpt-4.1-nano"},
        "tasks": {
            "longmemeval": _facts(50, 24_650, 5_200_000, 50, "3 sessions without a date stand first"),
            "locomo": _facts(2, 1_188, 43_000, 302, "4 evidence ids are broken: left out", "2 lists in one string: split"),
            "sessions": _facts(60, 1_440, 310_000, 120),
        },
        "cells": cells,
        "comparisons": [_comparison(rng, task, budget, a, b) for task in CATEGORIES for budget in BUDGETS for a, b in _pairs()],
    }  # fmt: skip


def _facts(conversations: int, messages: int, tokens: int, questions: int, *notes: str) -> dict[str, object]:
    sizes = {"conversations": conversations, "messages": messages, "tokens": tokens, "questions": questions}
    return {**sizes, "notes": list(notes)}


def _cell(rng: random.Random, task: str, strategy: str, index: int) -> dict[str, object]:
    base, growth, ms = STRATEGIES[strategy]
    budget, gold = BUDGETS[index], task != "sessions"
    used = budget * rng.uniform(0.86, 0.99)
    recent = base < 0.5
    harder = 0.12 if task == "locomo" and not recent else 0.0
    recall = min(1.0, base + growth * index * (0.6 * index if recent else 1.0) + rng.uniform(-0.01, 0.01) - harder)

    def share(about: float) -> float | None:
        return round(min(1.0, max(0.0, about)), 4) if gold else None

    totals = [max(1, round(QUESTIONS[task] * 1.4 * rng.uniform(0.06, 0.14))) for _ in range(10)]
    kept = [
        round(total * min(1.0, (recall * 10 * max(0.0, (age - 7) / 3) / 2) if recent else recall * rng.uniform(0.9, 1.1)))
        for age, total in enumerate(totals)
    ]
    return {
        "task": task, "strategy": strategy, "budget": budget, "questions": QUESTIONS[task], "error": None,
        "evidence_recall": share(recall), "evidence_interval": [share(recall - 0.035), share(recall + 0.03)] if gold else None,
        "all_evidence": share(recall - 0.06), "answer_coverage": share(recall * 0.8),
        "recall_at": {"1": share(recall - 0.4), "5": share(recall - 0.1), "10": share(recall)} if gold and not recent else None,
        "ndcg_at_10": share(recall - 0.15) if gold and not recent else None,
        "tokens": round(used, 1), "fill": round(used / budget, 3), "over_budget": 0, "cannot_fit": 0, "failures": 0,
        "rows_read": round(used / 60, 1), "prefix_reuse": round(rng.uniform(0.88, 0.95) if recent else rng.uniform(0.2, 0.45), 3),
        "cost_usd": f"{used * 1e-7 * (0.4 if recent else 0.9):.8f}",
        "times": {"ms_median": round(ms * (1 + index / 3), 2), "ms_p95": round(ms * (1 + index / 3) * rng.uniform(1.5, 3), 2)},
        "categories": {name: {"questions": 10, "evidence_recall": share(recall + rng.uniform(-0.2, 0.1)), "answer_coverage": share(0.5)}
                       for name in CATEGORIES.get(task, ())},
        "ages": [[one, total] for one, total in zip(kept, totals, strict=True)] if gold else None,
    }  # fmt: skip


def _pairs() -> list[tuple[str, str]]:
    last, _, turns, neighbours, recall = STRATEGIES
    return [(recall, turns), (recall, neighbours), (turns, neighbours), (turns, last)]


def _comparison(rng: random.Random, task: str, budget: int, a: str, b: str) -> dict[str, object]:
    middle = round(STRATEGIES[a][0] - STRATEGIES[b][0] + rng.uniform(-0.04, 0.04), 4)
    bounds = {"difference": middle, "low": round(middle - 0.05, 4), "high": round(middle + 0.05, 4)}
    return {"task": task, "budget": budget, "a": a, "b": b, "metric": "evidence_recall", **bounds}


NO_GOLD = ("evidence_recall", "evidence_interval", "all_evidence", "answer_coverage", "recall_at", "ndcg_at_10", "ages")
TRICKY = "<script>alert('x')</script>&\"\u202e\x00\udc80"


def cells_of(results: dict[str, object]) -> list[dict[str, object]]:
    cells = results["cells"]
    assert isinstance(cells, list)
    return cells


def only(*, budgets: tuple[int, ...] = BUDGETS, strategies: tuple[str, ...] = tuple(STRATEGIES)) -> dict[str, object]:
    results = sample()
    results["cells"] = [cell for cell in cells_of(results) if cell["budget"] in budgets and cell["strategy"] in strategies]
    results["comparisons"] = []
    return results


def with_a_failed_cell() -> dict[str, object]:
    results = sample()
    failed = {
        "task": "locomo",
        "strategy": "BM25Turns(k1=1.2)",
        "budget": 4096,
        "questions": 302,
        "error": "KeyError: 'no entry 9' in question q17",
    }
    results["cells"] = [
        failed if all(cell[key] == failed[key] for key in ("task", "strategy", "budget")) else cell for cell in cells_of(results)
    ]
    return results


class Page(HTMLParser):
    """What a browser would make of the page, as far as these tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def count(self, tag: str, **attributes: str) -> int:
        return sum(1 for name, found in self.tags if name == tag and attributes.items() <= found.items())


def page_of(results: dict[str, object], folder: Path) -> Page:
    write_html(results, folder / "report.html")
    return Page((folder / "report.html").read_text("utf-8"))


def printed(renderable: RenderableType, width: int = 100) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_json(sample(), tmp_path / "results.json")
    assert read_json(tmp_path / "results.json") == sample()


def test_equal_results_are_written_alike_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    turned = dict(reversed(sample().items())) | {"cells": [dict(reversed(cell.items())) for cell in cells_of(sample())]}
    write_json(sample(), tmp_path / "one.json")
    write_json(turned, tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_runs_that_differ_in_time_alone_differ_under_times_alone(tmp_path: Path) -> None:
    slower = sample()
    for cell in cells_of(slower):
        cell["times"] = {"ms_median": 999.5, "ms_p95": 1999.5}
    write_json(sample(), tmp_path / "one.json")
    write_json(slower, tmp_path / "two.json")
    one, two = ((tmp_path / name).read_text().splitlines() for name in ("one.json", "two.json"))
    differing = [line for pair in zip(one, two, strict=True) if pair[0] != pair[1] for line in pair]
    assert differing
    assert all(re.match(r'\s+"ms_(median|p95)": ', line) for line in differing)


def test_an_odd_name_survives_the_file(tmp_path: Path) -> None:
    results = only(strategies=("LastMessages()",))
    for cell in cells_of(results):
        cell["strategy"] = TRICKY + " [\n 1,\n 2\n]"
    write_json(results, tmp_path / "results.json")
    assert read_json(tmp_path / "results.json") == results


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(sample(), path)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match="JSON cannot hold"):
        write_json(sample() | {"settings": {"strategies": [object()]}}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b'{"made": NaN}', "NaN is not a number of JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is an object, not list"),
        (b"{}", "made is missing: is this what `threadkeep experiment run` wrote"),
        (b'{"made": {}, "settings": {}, "tasks": {}}', "cells is missing"),
        (b'{"made": {}, "settings": [], "tasks": {}, "cells": []}', r"settings is an object, not list"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=complaint) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ThreadkeepError)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(ResultsError, match="cannot be read"):
            read_json(path)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("task", None, r"cells\[3\].task is missing"),
        ("strategy", 7, r"cells\[3\].strategy is text, not int 7"),
        ("budget", 10.5, r"cells\[3\].budget is 10.5: it is a whole number"),
        ("budget", 0, r"cells\[3\].budget is 0: it lies between 1 and inf"),
        ("budget", None, r"cells\[3\].budget is missing"),
        ("budget", True, r"cells\[3\].budget is a finite number, not bool True"),
        ("evidence_recall", 93.8, r"cells\[3\].evidence_recall is 93.8: it lies between 0 and 1"),
        ("evidence_recall", float("nan"), r"cells\[3\].evidence_recall is a finite number"),
        ("evidence_interval", [0.1], r"cells\[3\].evidence_interval is \[low, high\], not a list of 1"),
        ("evidence_interval", [0.1, None], r"cells\[3\].evidence_interval.\[1\] is missing"),
        ("cost_usd", "free", r"cells\[3\].cost_usd is an amount such as '0.00123', not 'free'"),
        ("cost_usd", "nan", r"cells\[3\].cost_usd is a finite number"),
        ("cost_usd", -1, r"cells\[3\].cost_usd is -1: it lies between"),
        ("times", [1, 2], r"cells\[3\].times is an object, not list"),
        ("recall_at", {"1": None}, r"cells\[3\].recall_at.1 is missing"),
        ("categories", {"multi": 3}, r"cells\[3\].categories.multi is an object, not int 3"),
        ("ages", [[1, 2]], r"cells\[3\].ages is a list of 10 pairs, not of 1"),
        ("ages", [[1, 2]] * 9 + [[3, 2]], r"cells\[3\].ages\[9\] keeps 3 of 2"),
        ("ages", [[1, 2]] * 9 + ["12"], r"cells\[3\].ages\[9\] is \[kept, total\], not str '12'"),
        ("ages", "0123456789", r"cells\[3\].ages is a list, not str"),
    ],
)
def test_a_wrong_field_is_named_with_its_cell(key: str, value: object, complaint: str) -> None:
    results = sample()
    cells_of(results)[3][key] = value
    with pytest.raises(ResultsError, match=complaint):
        table(results)


def test_the_same_cell_twice_is_refused() -> None:
    results = sample()
    cells_of(results).append(cells_of(results)[2])
    with pytest.raises(ResultsError, match=r"cells\[60\] is the same task, strategy and budget as cells\[2\]"):
        table(results)


def test_notes_that_are_not_text_are_refused() -> None:
    results = sample() | {"tasks": {"locomo": {"notes": [3]}}}
    with pytest.raises(ResultsError, match=r"tasks.locomo.notes\[0\] is text, not int 3"):
        table(results)


def test_an_error_survives_being_sent_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ResultsError("results.json", "cells[3].budget", "is missing")))
    assert (str(error), error.field) == ("results.json: cells[3].budget is missing", "cells[3].budget")


def test_the_terminal_shows_every_task_strategy_and_budget() -> None:
    shown = printed(table(sample()))
    assert all(name in shown for name in (*QUESTIONS, "1,024", "8,192", "BM25Turns(k1=1.2)", "24,650 messages"))
    assert "!" not in shown


def test_the_terminal_shows_no_recall_where_there_is_no_gold() -> None:
    results = only()
    results["cells"] = [cell for cell in cells_of(results) if cell["task"] == "sessions"]
    results["tasks"] = {}
    assert "evidence" not in printed(table(results))
    assert "reuse" in printed(table(results))


def test_the_terminal_names_what_went_wrong() -> None:
    results = with_a_failed_cell()
    cells_of(results)[0]["over_budget"] = 2
    cells_of(results)[1]["cannot_fit"] = 3
    shown = " ".join(printed(table(results), 80).split())
    assert all(text in shown for text in ("! 2 over budget", "! 3 cannot fit", "! error: KeyError"))


def test_markup_of_the_terminal_in_a_name_stays_text() -> None:
    results = only(strategies=("LastMessages()",))
    for cell in cells_of(results):
        cell["strategy"] = "[red]x[/] \x1b[31m"
    assert "[red]x[/]" in printed(table(results))
    assert "\x1b" not in printed(table(results))


def test_comparisons_give_points_with_their_interval_and_say_what_is_clear() -> None:
    pair = {"task": "locomo", "budget": 2048, "a": "A", "b": "B"}
    clear = {"metric": "evidence_recall", "difference": 0.031, "low": 0.004, "high": 0.06}
    unclear = {"metric": "tokens", "difference": -12.5, "low": -20, "high": 3}
    results = sample() | {"comparisons": [pair | clear, pair | unclear]}
    shown = printed(comparison_table(results), 120)
    assert re.search(r"locomo · differences in evidence recall\n.+\n +2,048 +A − B +\+3\.1 +\+0\.4 to \+6\.0", shown)
    assert re.search(r"locomo · differences in tokens\n.+\n +2,048 +A − B +−12\.500 +−20\.000 to \+3\.000", shown)


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(sample(), tmp_path)
    assert page.count("script") == page.count("link") == page.count("img") == 0
    assert all(
        value and value.startswith("#") for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src")
    )
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "default-src 'none'" in str(next(found for tag, found in page.tags if found.get("http-equiv")))
    assert "url(" not in (tmp_path / "report.html").read_text("utf-8")


def test_every_plot_says_what_it_is_and_its_figures_stand_in_a_table_too(tmp_path: Path) -> None:
    page = page_of(sample(), tmp_path)
    following = [page.tags[index + 1][0] for index, (tag, found) in enumerate(page.tags) if tag == "svg" and found.get("role") == "img"]
    assert len(following) > 30
    assert set(following) == {"title"}
    assert page.count("caption") == len(QUESTIONS)
    recalls = [cell["evidence_recall"] for cell in cells_of(sample())]
    assert all(f"{recall * 100:.1f}" in page.text for recall in recalls if isinstance(recall, float))
    for text in ("Evidence recall against budget", "Evidence recall against cost", "Where the kept evidence lies, at 4,096 tokens"):
        assert text in page.text


def test_text_of_the_data_stays_text(tmp_path: Path) -> None:
    results = only(budgets=(2048,))
    results["tasks"] = {TRICKY: {"notes": [TRICKY]}}
    results["made"] = {TRICKY: TRICKY, "threadkeep": TRICKY, "counter": TRICKY}
    results["settings"] = {TRICKY: TRICKY}
    results["comparisons"] = [
        {"task": TRICKY, "budget": 2048, "a": TRICKY, "b": TRICKY, "metric": TRICKY, "difference": 0, "low": 0, "high": 0}
    ]
    for cell in cells_of(results):
        if cell["task"] == "locomo":
            cell.update(task=TRICKY, strategy=f"{TRICKY} {cell['strategy']}", error=TRICKY, categories={TRICKY: {}, "</svg>": {}})
    page = page_of(results, tmp_path)
    assert page.count("script") == 0
    assert "<script>alert('x')</script>&\"" in page.text
    assert not set(page.text) & set("\u202e\x00\udc80")


def test_cells_that_need_a_look_are_flagged_on_the_page(tmp_path: Path) -> None:
    results = with_a_failed_cell()
    cells_of(results)[0]["over_budget"] = 2
    cells_of(results)[1]["cannot_fit"] = 3
    page = page_of(results, tmp_path)
    assert "cells with an error: 1 of 60 · contexts over budget: 2 · questions that could not fit: 3" in page.text
    assert all(flag in page.text for flag in ("⚠ 2 over budget", "⚠ 3 cannot fit", "⚠ error: KeyError: 'no entry 9' in question q17"))
    assert "no context over budget" not in page.text


def test_the_oracle_is_shown_but_never_called_the_best(tmp_path: Path) -> None:
    results = sample()
    oracle = [cell | {"strategy": "oracle", "evidence_recall": 1.0} for cell in cells_of(results) if cell["strategy"] == "LastMessages()"]
    results["cells"] = [*cells_of(results), *oracle]
    page = page_of(results, tmp_path)
    assert "oracle (sees the gold)" in page.text
    assert page.count("b") == len(BUDGETS) * len(CATEGORIES)
    assert "\n100.0%\n" not in page.text
    assert page.count("td", **{"class": "top"}) == page_of(sample(), tmp_path).count("td", **{"class": "top"})


def test_a_cell_whose_questions_failed_in_part_keeps_its_figures(tmp_path: Path) -> None:
    results = only(budgets=(2048,))
    cells_of(results)[0] |= {"error": "KeyError in question q17", "failures": 1, "evidence_recall": 0.4321}
    page = page_of(results, tmp_path)
    assert "43.2" in page.text
    assert "⚠ error: KeyError in question q17" in page.text
    assert "⚠ 1 failed" in page.text


def test_of_many_comparisons_those_of_the_leader_are_drawn_and_all_are_listed(tmp_path: Path) -> None:
    names = [f"s{index}" for index in range(8)]
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    bounds = {"difference": 0.1, "low": -0.1, "high": 0.3, "metric": "evidence_recall", "task": "locomo", "budget": 2048}
    page = page_of(sample() | {"comparisons": [bounds | {"a": a, "b": b} for a, b in pairs]}, tmp_path)
    assert "Drawn are 7 of the 28 pairs" in page.text
    assert page.count("circle") == 7
    assert all(f"{a} − {b}" in page.text for a, b in pairs)


def test_strategies_that_share_the_best_figure_are_all_counted(tmp_path: Path) -> None:
    results = only(budgets=(2048,))
    for cell in cells_of(results):
        cell["evidence_recall"] = 0.5
    assert "LastMessages() and 4 more" in page_of(results, tmp_path).text


def test_a_task_whose_every_cell_failed_is_not_taken_for_one_without_gold(tmp_path: Path) -> None:
    failed = {"task": "locomo", "strategy": "mine", "budget": 2048, "error": "no"}
    page = page_of(sample() | {"cells": [failed], "comparisons": [], "tasks": {"locomo": {}}}, tmp_path)
    assert "Every cell of this task failed." in page.text
    assert "No gold" not in page.text


def test_a_count_that_was_not_taken_is_not_shown_as_none(tmp_path: Path) -> None:
    results = sample()
    cells_of(results)[0]["over_budget"] = None
    assert "cells that do not say whether a context was over budget: 1" in page_of(results, tmp_path).text


def test_a_failed_cell_breaks_the_line_and_keeps_its_row(tmp_path: Path) -> None:
    whole, broken = page_of(sample(), tmp_path), page_of(with_a_failed_cell(), tmp_path)
    assert broken.count("path", **{"class": "band"}) < whole.count("path", **{"class": "band"})
    assert "failed" in broken.text


@pytest.mark.parametrize(
    "results",
    [
        only(budgets=(2048,)),
        only(strategies=("LastMessages()",)),
        only(budgets=(2048,), strategies=("LastMessages()",)),
        sample() | {"cells": [], "comparisons": []},
        sample() | {"cells": [{"task": "t", "strategy": "s", "budget": budget, "error": "no"} for budget in (1, 2)], "comparisons": []},
        sample()
        | {
            "cells": [{"task": "t", "strategy": "s", "budget": 5, "tokens": 0, "cost_usd": "0", "times": {"ms_median": 0}}],
            "tasks": {"other": {}},
        },
        sample() | {"cells": [cell | {"strategy": f"{cell['strategy']} {copy}"} for cell in cells_of(sample()) for copy in range(5)]},
    ],
    ids=["one budget", "one strategy", "one cell a task", "no cells", "all failed", "only zeros", "25 strategies"],
)
def test_smaller_and_larger_results_are_drawn_too(results: dict[str, object], tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    assert page.count("h2") >= 2
    placed = [
        value for _, found in page.tags for name, value in found.items() if name in ("d", "x", "y", "cx", "width", "height", "viewbox")
    ]
    assert not re.search("nan|inf|e[+-]", " ".join(map(str, placed)))
    assert printed(table(results)) is not None


def test_a_task_without_gold_is_drawn_by_what_it_has(tmp_path: Path) -> None:
    results = only()
    results["cells"] = [cell | dict.fromkeys(NO_GOLD) for cell in cells_of(results) if cell["task"] == "sessions"]
    results["tasks"] = {}
    page = page_of(results, tmp_path)
    assert "Prefix reuse against budget" in page.text
    assert "Latency, at 4,096 tokens" in page.text
    assert not re.search("evidence recall against|Where the kept evidence lies", page.text, re.IGNORECASE)


def test_every_colour_stands_out_from_its_background_in_light_and_in_dark(tmp_path: Path) -> None:
    write_html(sample(), tmp_path / "report.html")
    light, dark = (tmp_path / "report.html").read_text("utf-8").split("@media (prefers-color-scheme: dark)")
    for part in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part))
        assert all(contrast(colours[f"s{index}"], colours["card"]) >= 3 for index in range(8))  # WCAG 2.2, 1.4.11: graphics
        assert all(contrast(colours[name], colours["card"]) >= 4.5 for name in ("ink", "soft"))  # 1.4.3: text
        assert contrast(colours["bad"], colours["bad-back"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [channel / 255 for channel in bytes.fromhex(colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
ASK = """<!doctype html><title>waiting</title>
<iframe src="report.html" width="390" height="800" onload="ask(this.contentDocument)"></iframe>
<pre id="answer"></pre><script>
function ask(page) {
  const figures = [...page.querySelectorAll('#task-0 figure.at')];
  const seen = () => figures.filter(figure => figure.offsetHeight > 0).map(figure => figure.dataset.at);
  const answer = {wide: page.documentElement.scrollWidth, first: seen()};
  page.querySelector('#task-0 input[name^=budget][value="1024"]').click();
  answer.chosen = seen();
  const mark = page.querySelector('#task-0 .plot [data-s="1"]');
  mark.style.transition = 'none';
  answer.shown = page.defaultView.getComputedStyle(mark).opacity;
  page.querySelector('#task-0 .legend [data-k="1"] input').click();
  answer.hidden = page.defaultView.getComputedStyle(mark).opacity;
  answer.smallest = Math.min(...[...page.querySelectorAll('.plot text')].filter(text => text.getClientRects().length)
    .map(text => text.getBoundingClientRect().height));
  document.getElementById('answer').textContent = JSON.stringify(answer);
}
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_real_browser_keeps_it_within_a_phone_and_lets_the_reader_choose(tmp_path: Path) -> None:
    write_html(sample(), tmp_path / "report.html")
    (tmp_path / "ask.html").write_text(ASK)
    alone = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
    options = ["--headless", *(f"--{name}" for name in alone.split()), f"--user-data-dir={tmp_path / 'profile'}"]
    address = (tmp_path / "ask.html").as_uri()
    command = [str(CHROMIUM), *options, "--allow-file-access-from-files", "--dump-dom", address]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(re.findall(r'<pre id="answer">(.+?)</pre>', run.stdout, re.DOTALL)[0])
    assert answer["wide"] <= 390
    assert set(answer["first"]) == {"4096"}
    assert set(answer["chosen"]) == {"1024"}
    assert len(answer["first"]) == len(answer["chosen"]) >= 4
    assert (answer["shown"], float(answer["hidden"]) < 0.1) == ("1", True)
    assert answer["smallest"] >= 10
