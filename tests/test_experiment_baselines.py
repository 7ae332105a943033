"""The baselines choose what their names say."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from threadkeep import Budget, Context, InvalidSetting, Memory, Message, Strategy, TiktokenCounter, ToolCall
from threadkeep.experiments.baselines import BM25Sittings, BM25Turns, LastMessages, RandomMessages

BEGUN = datetime(2026, 1, 1, 9, tzinfo=UTC)
TEXTS = (
    "The ferry to Hydra leaves at noon.",  # 1
    "Bread and olives are on the table.",  # 2
    "The parrot learned a song about ferries.",  # 3
    "Rain is expected in the mountains.",  # 4
    "My dentist moved to another street.",  # 5
    "The tomatoes want water every evening.",  # 6
)
ALL = [LastMessages(), RandomMessages(), BM25Turns(), BM25Turns(neighbours=1), BM25Sittings()]


def asked(tmp_path: Path, strategy: Strategy, *, question: str = "When does the ferry leave?", window: int = 60) -> Context:
    """A context of two sittings, three messages each."""
    said = [(Message.user(text), BEGUN + timedelta(minutes=at, days=at // 3)) for at, text in enumerate(TEXTS)]
    return asked_of(tmp_path, said, strategy, question=question, window=window)


def asked_of(tmp_path: Path, said: Sequence[tuple[Message, datetime]], strategy: Strategy, *, question: str, window: int) -> Context:
    with Memory(f"sqlite:///{tmp_path}/chat.db", counter=TiktokenCounter("o200k_base"), budget=Budget(window)) as memory:
        session = memory.session("chat")
        if not memory.sessions():
            for message, at in said:
                session.append(message, created_at=at)
        return session.context(question, strategy=strategy)


def kept(context: Context) -> list[int]:
    return [seq for one in context.decisions if one.verdict == "kept" for seq in range(one.first, min(one.last, len(TEXTS)) + 1)]


def test_the_last_messages_are_those_that_fit(tmp_path: Path) -> None:
    assert kept(asked(tmp_path, LastMessages(), window=50)) == [4, 5, 6]


def test_bm25_takes_the_best_first_and_then_what_still_fits(tmp_path: Path) -> None:
    context = asked(tmp_path, BM25Turns())
    best, second = [pick for pick in context.picks if pick.score is not None][:2]
    assert (best.seqs, second.seqs) == ((1,), (3,)), "stems: ferry and ferries, leave and leaves"
    assert kept(context) == [1, 2, 3]


def test_bm25_scores_as_its_formula_says(tmp_path: Path) -> None:
    context = asked(tmp_path, BM25Turns(k1=1.2, b=0.5), question="dentist")
    # one message of six holds the word, once: idf = ln(5.5 / 1.5); it has 5 terms, the mean is 25 / 6
    mean = (4 + 3 + 5 + 3 + 5 + 5) / 6
    expected = math.log(5.5 / 1.5) * 2.2 / (1 + 1.2 * (0.5 + 0.5 * 5 / mean))
    scores = {pick.seqs: pick.score for pick in context.picks if pick.score}
    assert scores == {(5,): pytest.approx(expected, abs=1e-5)}


def test_a_hit_brings_its_neighbours_along(tmp_path: Path) -> None:
    context = asked(tmp_path, BM25Turns(neighbours=1), question="Where is the dentist?", window=55)
    assert kept(context) == [4, 5, 6]
    assert next(pick.seqs for pick in context.picks if pick.score) == (4, 5, 6)


def test_sittings_come_whole_and_the_best_first(tmp_path: Path) -> None:
    context = asked(tmp_path, BM25Sittings(), window=60)
    assert kept(context) == [1, 2, 3]
    assert kept(asked(tmp_path, BM25Sittings(), question="tomatoes", window=55)) == [4, 5, 6]


def test_a_sitting_that_does_not_fit_is_passed_over(tmp_path: Path) -> None:
    assert kept(asked(tmp_path, BM25Sittings(), window=30)) == []


def test_what_is_drawn_by_chance_depends_on_the_seed_alone(tmp_path: Path) -> None:
    drawn = [tuple(kept(asked(tmp_path, RandomMessages(seed)))) for seed in range(8)]
    assert drawn == [tuple(kept(asked(tmp_path, RandomMessages(seed)))) for seed in range(8)]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("strategy", ALL, ids=repr)
@pytest.mark.parametrize("window", [20, 40, 60, 85])
def test_every_baseline_keeps_to_its_budget(tmp_path: Path, strategy: Strategy, window: int) -> None:
    assert asked(tmp_path, strategy, window=window).tokens <= window


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_every_baseline_takes_a_tool_call_with_its_result(tmp_path: Path, strategy: Strategy) -> None:
    call = Message.assistant(None, tool_calls=[ToolCall("a", "timetable", '{"ferry": true}')])
    texts = [Message.user("Look."), call, Message.tool("ferry: noon", tool_call_id="a"), *map(Message.user, TEXTS)]
    said = [(message, BEGUN + timedelta(minutes=at)) for at, message in enumerate(texts)]
    context = asked_of(tmp_path, said, strategy, question="ferry", window=70)
    roles = [message["role"] for message in context.messages]
    assert roles.count("tool") == sum("tool_calls" in message for message in context.messages)


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_every_baseline_takes_a_log_that_no_user_message_ends(tmp_path: Path, strategy: Strategy) -> None:
    with Memory(f"sqlite:///{tmp_path}/chat.db", counter=TiktokenCounter("o200k_base"), budget=Budget(40)) as memory:
        session = memory.session("chat")
        session.append(*[Message.assistant(text) for text in TEXTS])
        assert session.context(strategy=strategy).tokens <= 40


@pytest.mark.parametrize(
    "settings", [{"k1": -1}, {"k1": math.nan}, {"b": 1.5}, {"b": -0.1}, {"neighbours": -1}, {"neighbours": True}, {"neighbours": 1.5}]
)
def test_settings_out_of_their_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(settings))):
        BM25Turns(**settings)  # type: ignore[arg-type]  # meant


def test_sittings_take_the_same_bounds() -> None:
    with pytest.raises(InvalidSetting, match="b from 0 to 1"):
        BM25Sittings(b=2)
