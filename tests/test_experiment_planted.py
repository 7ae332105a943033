"""The made-up conversation: sound, of the length asked for, the same everywhere, and its answers where they should be."""

import hashlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken

from threadkeep import InvalidSetting
from threadkeep.experiments.base import Dataset, DatasetError, Said
from threadkeep.experiments.tasks import Planted


def said_in(data: Dataset) -> tuple[Said, ...]:
    (conversation,) = data.conversations.values()
    return conversation.said


def test_planted_answers_stand_in_their_evidence_and_nowhere_else() -> None:
    data = Planted(tokens=60_000, seed=4).load(None)
    said = said_in(data)
    for question in data.questions:
        holding = [at for at, one in enumerate(said) if question.answers[0] in json.dumps(one.message.to_dict(), ensure_ascii=False)]
        assert holding == list(question.gold)
        assert question.answers[0] not in question.text


def test_planted_asks_for_facts_updates_and_tool_results() -> None:
    data = Planted().load(None)
    assert {question.category for question in data.questions} == {"fact", "updated fact", "fact from a tool result"}
    said = said_in(data)
    for question in data.questions:
        role = said[question.gold[0]].message.role
        assert role == ("tool" if question.category == "fact from a tool result" else "user")


def test_planted_tool_traffic_has_parallel_calls_and_one_without_a_result() -> None:
    messages = [one.message for one in said_in(Planted().load(None))]
    calls = [call.id for message in messages for call in message.tool_calls]
    results = [message.tool_call_id for message in messages if message.role == "tool"]
    assert max(len(message.tool_calls) for message in messages) > 1
    assert len(set(calls)) == len(calls)
    assert len(set(calls) - set(results)) == 1
    assert set(results) <= set(calls)


@pytest.mark.parametrize("tokens", [10_000, 100_000])
def test_planted_is_about_as_long_as_asked_for(tokens: int) -> None:
    encoding = tiktoken.get_encoding("o200k_base")
    counted = sum(len(encoding.encode(one.message.text)) + 4 for one in said_in(Planted(tokens).load(None)))
    assert counted == pytest.approx(tokens, rel=0.1)


def test_planted_has_more_questions_the_longer_it_is() -> None:
    assert [len(Planted(tokens).load(None).questions) for tokens in (10_000, 100_000, 1_000_000)] == [31, 46, 196]


def digest(data: Dataset) -> str:
    """Of all that was said and is asked."""
    said = [[one.message.to_dict(), str(one.at)] for one in said_in(data)]
    asked = [[question.name, question.text, question.after, question.gold, question.answers] for question in data.questions]
    return hashlib.sha256(json.dumps([said, asked]).encode()).hexdigest()[:16]


def test_planted_is_the_same_in_every_process() -> None:
    code = "from threadkeep.experiments.tasks import Planted; print(hash('x'), Planted(10_000, seed=7).load(None))"
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True).stdout.split(
            " ", 1
        )
        for seed in ("1", "2")
    ]
    assert runs[0][0] != runs[1][0]
    assert runs[0][1] == runs[1][1]


def test_planted_is_the_same_on_every_machine_and_in_every_version_of_python() -> None:
    assert digest(Planted(10_000, seed=7).load(None)) == "3b843c1b59ea2a4a"
    assert digest(Planted(10_000, seed=8).load(None)) != "3b843c1b59ea2a4a"


def test_planted_times_go_forward_with_long_pauses_between_sittings() -> None:
    times = [one.at for one in said_in(Planted().load(None)) if one.at is not None]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert min(gaps) > 0
    assert sum(gap > 3600 for gap in gaps) > 5
    assert sum(gap < 120 for gap in gaps) > 100


@pytest.mark.parametrize(("tokens", "seed"), [(9_999, 0), (10_000_001, 0), (True, 0), ("20k", 0), (20_000, -1), (20_000, 0.5)])
def test_planted_says_what_it_cannot_make(tokens: int, seed: int) -> None:
    with pytest.raises(InvalidSetting, match="a whole number from"):
        Planted(tokens, seed)


def test_planted_reads_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="reads no file"):
        Planted().load(tmp_path)
