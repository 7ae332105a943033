"""Recall: what was said before about the question, as dated excerpts within the budget."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from threadkeep import (
    Budget,
    Compose,
    Context,
    InvalidSetting,
    Memory,
    Message,
    Pick,
    Recall,
    ScriptedBackend,
    Session,
    SlidingWindow,
    TiktokenCounter,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory.quotation import RECALLED
from threadkeep.strategies.dates import Span, spans_of
from threadkeep.strategies.excerpts import excerpt
from threadkeep.strategies.ranking import rank
from threadkeep.testing import StrategyContract

MONDAY = datetime(2023, 5, 1, 9, 0, tzinfo=UTC)
SMALL_TALK = ("The kettle is on.", "Rain again, all of it sideways.", "My bicycle squeaks.", "Somebody sang in the lift.")


class TestRecall(StrategyContract):
    @pytest.fixture
    def strategy(self) -> Recall:
        return Recall(floor=0)


class TestRecallBehindAWindow(StrategyContract):
    @pytest.fixture
    def strategy(self) -> Compose:
        return Compose(SlidingWindow(), Recall(floor=0.1), shares=(0.25, 0.75))


def say(session: Session, *texts: str, at: datetime = MONDAY, role: str = "user") -> None:
    """Messages of one sitting, a minute apart."""
    for minute, text in enumerate(texts):
        session.append(Message(role, text), created_at=at + timedelta(minutes=minute))  # type: ignore[arg-type]


def chatter(session: Session, days: range, *, sittings: int = 1) -> None:
    """Small talk, a few messages a day."""
    for day in days:
        for sitting in range(sittings):
            say(session, *(f"{text} ({day})" for text in SMALL_TALK), at=MONDAY + timedelta(days=day, hours=3 * sitting))


def recalled(context: Context) -> list[Pick]:
    return [pick for pick in context.picks if pick.kind == "excerpt"]


def block(context: Context) -> str:
    found = [str(message["content"]) for message in context.messages if RECALLED in str(message["content"])]
    return found[0] if found else ""


@pytest.fixture
def fuller(session: Session) -> Session:
    """Forty days of small talk, with a dog on the tenth."""
    chatter(session, range(10))
    say(session, "Our dog is called Biscuit.", "He was born in Lisbon.", at=MONDAY + timedelta(days=10))
    chatter(session, range(11, 40))
    return session


def ask(session: Session, question: str, *, window: int = 400, **settings: Any) -> Context:
    return session.context(question, strategy=Recall(**settings), budget=Budget(window))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"k": 0}, "a number of messages from 1"),
        ({"k": True}, "a number of messages from 1"),
        ({"scope": "world"}, "'session' or 'owner'"),
        ({"floor": -0.1}, "a number from 0 to 1"),
        ({"floor": float("nan")}, "a number from 0 to 1"),
        ({"sitting_minutes": 0}, "minutes above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem):
        Recall(**settings)


def test_what_was_said_long_ago_about_the_question_is_recalled_with_its_date_and_speaker(fuller: Session) -> None:
    context = ask(fuller, "What is our dog called?")
    assert "[2023-05-11 09:00] user: Our dog is called Biscuit." in block(context)
    assert context.messages[-1]["content"] == "What is our dog called?"
    assert context.messages[-2]["content"] == block(context)
    assert any(decision.verdict == "recalled" and decision.first <= 41 <= decision.last for decision in context.decisions)


def test_a_pick_says_what_its_score_is_made_of(fuller: Session) -> None:
    first = recalled(ask(fuller, "What is our dog called?"))[0]
    assert first.seqs == (41,)
    assert first.score is not None
    assert first.reason.startswith("words ")
    assert sum(float(part.split()[1]) for part in first.reason.split(" + ")) == pytest.approx(first.score, abs=0.02)


def test_a_neighbour_in_the_same_sitting_is_lifted_and_the_next_sitting_is_not(fuller: Session) -> None:
    told = "".join(pick.text or "" for pick in recalled(ask(fuller, "What is our dog called?", window=100)))
    assert "born in Lisbon" in told
    assert "kettle" not in told


def test_a_question_about_nothing_that_was_said_recalls_nothing(fuller: Session) -> None:
    context = ask(fuller, "Which vaccine protects against yellow fever?")
    assert recalled(context) == []
    assert block(context) == ""


def test_without_a_floor_the_nearest_is_taken_however_far(fuller: Session) -> None:
    question = "Has the vaccine against yellow fever been delivered to the dog?"
    assert recalled(ask(fuller, question)) == []
    assert recalled(ask(fuller, question, floor=0)) != []


def test_what_the_window_shows_is_not_recalled(fuller: Session) -> None:
    say(fuller, "Biscuit the dog ate my shoe.", at=MONDAY + timedelta(days=40))
    strategy = Compose(SlidingWindow(), Recall(), shares=(0.5, 0.5))
    context = fuller.context("What did our dog Biscuit do?", strategy=strategy, budget=Budget(500))
    kept = {seq for pick in context.picks if pick.kind == "entries" for seq in pick.seqs}
    assert kept
    assert kept.isdisjoint(seq for pick in recalled(context) for seq in pick.seqs)
    assert "Our dog is called Biscuit." in block(context)


def test_what_is_pinned_is_not_recalled(fuller: Session) -> None:
    fuller.pin(41)
    assert 41 not in {seq for pick in recalled(ask(fuller, "What is our dog called?")) for seq in pick.seqs}


def test_k_bounds_the_messages(fuller: Session) -> None:
    assert len(recalled(ask(fuller, "Rain, kettle, bicycle, lift?", window=2000, k=3))) == 3


def test_the_budget_is_filled_and_never_broken(session: Session) -> None:
    chatter(session, range(300))
    for window in (300, 600, 1200, 2400):
        context = ask(session, "Does the bicycle squeak in the rain, or the kettle in the lift?", window=window)
        assert 0.9 * window <= context.tokens <= window


def test_a_long_message_is_excerpted_by_whole_sentences_about_the_question(session: Session) -> None:
    story = [f"On day {day} the caravan went on through sand number {day} and nobody spoke." for day in range(60)]
    story.insert(30, "The spare key lies under the blue flowerpot.")
    say(session, " ".join(story))
    chatter(session, range(1, 30))
    context = ask(session, "Where is the spare key?", window=500)
    told = next(pick.text for pick in recalled(context) if pick.seqs == (1,))
    assert "The spare key lies under the blue flowerpot." in (told or "")
    assert "…" in (told or "")
    kept = (told or "").partition("user: ")[2].split(" … ")
    assert all(part.strip("… ") in " ".join(story) for part in kept)


def test_a_date_stands_once_a_sitting(fuller: Session) -> None:
    lines = block(ask(fuller, "What is our dog called, and where was he born?", window=200)).splitlines()
    at = next(number for number, line in enumerate(lines) if "Biscuit" in line)
    assert lines[at].startswith("[2023-05-11 09:00] user:")
    assert lines[at + 1] == "user: He was born in Lisbon."


def test_whatever_is_given_up_first_no_line_loses_its_date(fuller: Session) -> None:
    picks = recalled(ask(fuller, "The kettle, the rain, the bicycle, the lift, our dog?", window=1500))
    assert len(picks) > 10
    for kept in range(1, len(picks)):
        lines = sorted(picks[:kept], key=lambda pick: pick.said_us)
        days = [(MONDAY + timedelta(microseconds=pick.said_us - int(MONDAY.timestamp() * 1e6))).date() for pick in lines]
        for before, (day, pick) in zip([None, *days], zip(days, lines, strict=True), strict=False):
            assert (pick.text or "").startswith("[") == (day != before)


def test_messages_of_one_moment_stay_in_their_order(session: Session) -> None:
    session.append(*(Message.user(f"Fact number {number} about the harbour.") for number in range(80)), created_at=MONDAY)
    lines = block(ask(session, "What about the harbour?", window=300)).splitlines()[2:-1]
    numbers = [int(line.split("number ")[1].split()[0]) for line in lines]
    assert numbers == sorted(numbers)
    assert sum(line.startswith("[") for line in lines) == 1


def test_a_time_that_the_question_names_is_preferred(session: Session) -> None:
    for month in range(1, 12):
        say(session, f"We hiked up hill number {month}.", at=MONDAY.replace(month=month))
        chatter(session, range(30 * month, 30 * month + 10))
    first = recalled(ask(session, "Which hill did we hike up in July?"))[0]
    assert first.seqs
    assert "hill number 7" in (first.text or "")
    assert "date" in first.reason


def test_the_owners_other_sessions_are_recalled_where_that_is_wanted(memory: Memory) -> None:
    other = memory.session("holidays", owner="ada")
    say(other, "Our dog is called Biscuit.")
    stranger = memory.session("holidays", owner="eve")
    say(stranger, "My dog is called Rex.")
    here = memory.session("work", owner="ada")
    chatter(here, range(30))
    assert recalled(ask(here, "What is our dog called?")) == []
    context = ask(here, "What is our dog called?", scope="owner")
    assert "[2023-05-01 09:00, in holidays] user: Our dog is called Biscuit." in block(context)
    assert "Rex" not in block(context)
    assert recalled(context)[0].seqs == ()


def test_texts_in_scripts_without_blanks_are_found_and_excerpted(session: Session) -> None:
    say(session, "昨天我们去了很远的海边。" * 60 + "备用钥匙在蓝色花盆下面。" + "天气很好，大家都很高兴。" * 60)
    chatter(session, range(1, 30))
    context = ask(session, "备用钥匙在哪里？", window=600)
    assert "备用钥匙在蓝色花盆下面。" in block(context)
    assert "…" in block(context)


class TestWithVectors:
    @pytest.fixture
    def embedded(self, url: str) -> Iterator[Session]:
        backend = ScriptedBackend(["Yes."] * 1000, counter=TiktokenCounter("o200k_base"))
        with Memory(url, backend=backend, embedder=HashedEmbedder(), budget=Budget(4000, reply=500)) as memory:
            session = memory.session("chat")
            chatter(session, range(10))
            say(session, "Our dog is called Biscuit.", at=MONDAY + timedelta(days=10))
            chatter(session, range(11, 40))
            for _ in session.upkeep():
                pass
            yield session

    def test_meaning_counts_beside_words(self, embedded: Session) -> None:
        first = recalled(ask(embedded, "What is our dog called?"))[0]
        assert "words" in first.reason
        assert "meaning" in first.reason
        assert "Biscuit" in (first.text or "")

    def test_a_question_about_nothing_that_was_said_recalls_nothing(self, embedded: Session) -> None:
        assert recalled(ask(embedded, "Which vaccine protects against yellow fever?")) == []

    def test_the_same_question_gives_the_same_bytes(self, embedded: Session) -> None:
        made = [ask(embedded, "What is our dog called, and does the bicycle squeak?", window=900) for _ in range(2)]
        assert made[0].messages == made[1].messages


class TestRanking:
    def test_hits_come_with_parts_that_add_up(self, fuller: Session) -> None:
        seen = Ranked()
        fuller.context("What is our dog called?", strategy=seen, budget=Budget(400))
        hits = seen.hits
        assert [hit.row for hit in hits[:2]] == [40, 41]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert hit.lexical + hit.dense + hit.lift + hit.date == pytest.approx(hit.score, abs=1e-5)

    def test_an_empty_question_finds_nothing(self, fuller: Session) -> None:
        seen = Ranked()
        fuller.context("?", strategy=seen, budget=Budget(400))
        assert seen.hits == []


class Ranked:
    """Keeps the ranking, and picks nothing."""

    def pick(self, history: Any, budget: Budget) -> list[Pick]:
        self.hits = rank(history.index(), history.live.message.text, history.live.created_at).best(10)
        return []


class TestTimesInQuestions:
    ASKED = datetime(2024, 3, 13, 15, 0, tzinfo=UTC)  # a Wednesday

    @pytest.mark.parametrize(
        ("text", "begin", "end"),
        [
            ("on 2023-05-20", "2023-05-20", "2023-05-21"),
            ("on 20 May 2023", "2023-05-20", "2023-05-21"),
            ("on May 20th, 2023", "2023-05-20", "2023-05-21"),
            ("in May 2023", "2023-05-01", "2023-06-01"),
            ("in December 2023?", "2023-12-01", "2024-01-01"),
            ("during 2023", "2023-01-01", "2024-01-01"),
            ("2023年5月20日", "2023-05-20", "2023-05-21"),
            ("2023年5月", "2023-05-01", "2023-06-01"),
            ("yesterday", "2024-03-12", "2024-03-13"),
            ("three days ago", "2024-03-10", "2024-03-11"),
            ("last Monday", "2024-03-11", "2024-03-12"),
            ("last Wednesday", "2024-03-06", "2024-03-07"),
        ],
    )
    def test_they_are_spans(self, text: str, begin: str, end: str) -> None:
        spans = spans_of(f"What did I say {text}", self.ASKED, datetime(2023, 1, 1, tzinfo=UTC))
        assert Span(*(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (begin, end))) in spans

    def test_a_month_alone_is_that_month_of_every_year_of_the_log(self) -> None:
        spans = spans_of("What happened in February?", self.ASKED, datetime(2022, 6, 1, tzinfo=UTC))
        assert [span.begin.year for span in spans] == [2022, 2023, 2024]

    @pytest.mark.parametrize("text", ["What may I do?", "on 31 February 2023", "I march on", "May I ask?", "at 12:30", "in 300 steps", ""])
    def test_what_names_no_time_has_none(self, text: str) -> None:
        assert spans_of(text, self.ASKED, datetime(2023, 1, 1, tzinfo=UTC)) == []


def test_an_excerpt_of_nothing_that_fits_is_empty() -> None:
    assert excerpt("One sentence that is rather long.", 3, 0.25, {}) == ""


def test_importing_threadkeep_does_not_load_numpy(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, threadkeep; threadkeep.Recall(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
