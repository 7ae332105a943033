"""What `context.explain()` shows and holds."""

import io
import json

import pytest
from rich.console import Console

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context, Decision, Pick

AWKWARD = "[red]not markup[/red] \x1b[31mno escape\x1b[0m \ud800 \0 two\nlines " + "long " * 100


@pytest.fixture
def context() -> Context:
    return Context(
        messages=[{"role": "user", "content": "Hello"}],
        budget=Budget(4096, reply=96),
        tokens=1234,
        exact=True,
        counter="tiktoken/o200k_base",
        strategy="sliding window",
        picks=(
            Pick((), 100, "given", kind="instructions"),
            Pick((4,), 40, "close to the question", 0.8123, "excerpt", "Ada lives in Turin."),
            Pick((7, 8, 9), 1000, "newest"),
            Pick((11,), 50, "live"),
        ),
        decisions=(
            Decision(1, 3, "left out", 0, "before the window"),
            Decision(4, 4, "recalled", 40, "close to the question", 0.8123),
            Decision(5, 6, "summarised", 0, AWKWARD),
            Decision(7, 9, "kept", 1000, "newest"),
            Decision(10, 10, "late", 0, "its group had closed"),
            Decision(11, 11, "kept", 50, "live"),
        ),
        tools_tokens=41,
        overhead=3,
        cache_note="the window's cut moved from 5 to 7",
    )


def test_the_data_is_json_and_its_parts_add_up(context: Context) -> None:
    data = context.explain().data
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["parts"] == {"instructions": 100, "entries": 1050, "summaries": 0, "excerpts": 40, "tools": 41, "overhead": 3}
    assert sum(context.explain().parts.values()) == data["tokens"] == 1234
    assert data["budget"] == {"window": 4096, "reply": 96, "ceiling": 4000, "reserved": 0, "live": 0}
    assert (data["exact"], data["counter"], data["strategy"]) == (True, "tiktoken/o200k_base", "sliding window")
    assert data["cache_note"] == "the window's cut moved from 5 to 7"


def test_the_data_holds_every_pick_and_decision(context: Context) -> None:
    data = context.explain().data
    picks, decisions = data["picks"], data["decisions"]
    assert isinstance(picks, list)
    assert isinstance(decisions, list)
    assert picks[1] == {
        "kind": "excerpt",
        "seqs": [[4, 4]],
        "tokens": 40,
        "score": 0.8123,
        "reason": "close to the question",
        "text": "Ada lives in Turin.",
    }
    assert picks[2]["seqs"] == [[7, 9]]
    assert [(decision["first"], decision["last"], decision["verdict"]) for decision in decisions] == [
        (1, 3, "left out"),
        (4, 4, "recalled"),
        (5, 6, "summarised"),
        (7, 9, "kept"),
        (10, 10, "late"),
        (11, 11, "kept"),
    ]


def test_printed_it_fits_80_columns_and_any_pipe(context: Context) -> None:
    shown = str(context.explain())
    assert max(map(len, shown.splitlines())) <= 80
    shown.encode()  # no lone surrogate is left
    assert "\x1b" not in shown
    assert "\0" not in shown


def test_printed_it_says_what_became_of_every_run(context: Context) -> None:
    lines = str(context.explain()).splitlines()
    assert lines[0].startswith("1,234 of 4,000 tokens (31%)")
    assert "exact" in str(context.explain())
    rows = [line.split() for line in lines]
    assert ["1-3", "left", "out", "0", "before", "the", "window"] in rows
    assert ["4", "recalled", "40", "0.812", "close", "to", "the", "question"] in rows
    assert ["7-9", "kept", "1,000", "newest"] in rows
    assert "instructions 100  entries 1,050  excerpts 40  tools 41  overhead 3" in lines
    assert "cache: the window's cut moved from 5 to 7" in lines


def test_what_a_strategy_wrote_is_shown_as_text_and_cut(context: Context) -> None:
    shown = " ".join(str(context.explain()).split())
    assert "[red]not markup[/red]" in shown
    assert "…" in shown
    assert shown.count("long") < 50


def test_on_a_terminal_the_verdicts_have_colours(context: Context) -> None:
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system="standard", width=120).print(context.explain())
    assert "\x1b[32mkept" in screen.getvalue()
    assert "\x1b[36mrecalled" in screen.getvalue()


def test_an_estimate_is_called_one(context: Context) -> None:
    guessed = Context([], Budget(10), 0, False, "by length", "none", (), ())
    shown = str(guessed.explain())
    assert "estimated by by length" in " ".join(shown.split())
    assert "0 of 10 tokens (0%)" in shown
