"""Summaries: of what, how often, shown when, and what becomes of a summariser that fails."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest

from threadkeep import (
    BackendError,
    BackendSummariser,
    Budget,
    Context,
    ExtractiveSummariser,
    History,
    InvalidSetting,
    LlamaCpp,
    Memory,
    Message,
    Pick,
    RollingSummary,
    Said,
    ScriptedBackend,
    Session,
    SlidingWindow,
    Strategy,
    SummariserError,
    SummaryRequest,
    SummaryTree,
    TiktokenCounter,
    ToolCall,
)
from threadkeep.memory.history import Summary
from threadkeep.strategies.sentences import LONGEST, sentences
from threadkeep.strategies.view import HistoryView
from threadkeep.testing import StrategyContract

SAME = "begins as the turn before"
COUNTER = TiktokenCounter("o200k_base")
Summaries = RollingSummary | SummaryTree
SMALL_TREE = SummaryTree(span=120, fan=3, tokens=40, recent=100, share=0.4)
SMALL_ROLLING = RollingSummary(span=120, tokens=60, recent=100)


class TestSummaryTree(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SummaryTree:
        return SummaryTree()


class TestRollingSummary(StrategyContract):
    @pytest.fixture
    def strategy(self) -> RollingSummary:
        return RollingSummary()


class Written(HistoryView):
    """A history with the summaries that are due already written."""

    def __init__(self, history: History, strategy: Summaries) -> None:
        super().__init__(history)
        self._written: dict[str, list[Summary]] = {recipe: [] for recipe in strategy.recipes}
        for recipe, written in self._written.items():
            while write := strategy.due(self, recipe):
                written.append(write())

    def summaries(self, recipe: str, *, level: int | None = None, newest: int | None = None) -> Sequence[Summary]:
        found = sorted((one for one in self._written[recipe] if level in (None, one.level)), key=lambda one: (one.level, one.first))
        return found if newest is None else found[max(0, len(found) - newest) :]


@dataclass(frozen=True)
class AtOnce:
    """A strategy whose summaries need no upkeep, so that every random log of the contract has some."""

    strategy: Summaries

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return self.strategy.pick(Written(history, self.strategy), budget)


class TestASummaryTreeWithSummaries(StrategyContract):
    @pytest.fixture
    def strategy(self) -> AtOnce:
        return AtOnce(SummaryTree(span=60, fan=2, tokens=30, recent=0, share=0.5))


class TestARollingSummaryWithSummaries(StrategyContract):
    @pytest.fixture
    def strategy(self) -> AtOnce:
        return AtOnce(RollingSummary(span=60, tokens=30, recent=0))


@dataclass(frozen=True)
class Noting:
    """The extractive summariser, with a note of what it was asked."""

    requests: list[SummaryRequest] = field(default_factory=list)
    name: str = "noting"

    def summarise(self, request: SummaryRequest) -> str:
        self.requests.append(request)
        return ExtractiveSummariser().summarise(request)


@dataclass(frozen=True)
class Answering:
    """A summariser of which a function is asked."""

    answer: Callable[[SummaryRequest], str]
    name: str = "answering"

    def summarise(self, request: SummaryRequest) -> str:
        return self.answer(request)


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[Strategy], Session]]:
    """Opens the session with a strategy, as a new process would; each time anew."""
    memories: list[Memory] = []

    def open_with(strategy: Strategy) -> Session:
        backend = ScriptedBackend(lambda _: "That is noted, and what else?")
        memories.append(Memory(url, backend=backend, budget=Budget(700, reply=100), strategy=strategy, upkeep=False))
        return memories[-1].session("chat", owner="ada")

    yield open_with
    for memory in memories:
        memory.close()


def fill(session: Session, turns: int, first: int = 0) -> None:
    """So many turns of about 40 tokens, each with a number of its own."""
    for number in range(first, first + turns):
        session.append(
            Message.user(f"Order {1000 + number} goes to Harbour Street {number}. It is meant for the shop there."),
            Message.assistant(f"Order {1000 + number} is on its way."),
        )


def summaries_in(context: Context) -> list[Pick]:
    return [pick for pick in context.picks if pick.kind == "summary"]


def test_a_restart_asks_for_no_summary_again_and_no_message_twice_at_one_level(opened: Callable[[Strategy], Session]) -> None:
    first, again = Noting(), Noting()
    session = opened(replace(SMALL_TREE, summariser=first))
    fill(session, 30)
    session.upkeep()
    fill(session, 30, 30)
    session.upkeep()
    asked = len(first.requests)
    session.upkeep()

    told = [one.text for request in first.requests for one in request.said if one.speaker]
    assert len(first.requests) == asked
    assert len(told) == len(set(told)) > 60
    assert [done.made for done in opened(replace(SMALL_TREE, summariser=again)).upkeep()] == [0, 0]
    assert again.requests == []


def test_a_thousand_turns_take_a_bounded_number_of_summaries(opened: Callable[[Strategy], Session]) -> None:
    noting = Noting()
    session = opened(SummaryTree(noting))
    fill(session, 1000)
    session.upkeep()

    tokens = session.entries(after=1999)[0].cum_shown
    assert tokens / 1024 * 0.9 < len(noting.requests) < tokens / 1024 * 4 / 3
    assert max(sum(one.tokens for one in request.said) for request in noting.requests) < 1024 + 4 * 40 + 4 * 256


@pytest.mark.parametrize("strategy", [SMALL_TREE, SMALL_ROLLING], ids=["tree", "rolling"])
def test_every_entry_is_told_once_either_whole_or_in_a_summary(opened: Callable[[Strategy], Session], strategy: Summaries) -> None:
    session = opened(strategy)
    fill(session, 20)
    session.upkeep()
    context = session.context("And now?")
    shown = sorted(seq for pick in context.picks for seq in pick.seqs)

    assert summaries_in(context)
    assert shown == list(range(1, 42))
    assert [decision.verdict for decision in context.decisions][-1] == "kept"
    assert context.decisions[0].verdict == "summarised"


def test_the_tree_is_fine_where_it_is_recent_and_coarse_where_it_is_old(opened: Callable[[Strategy], Session]) -> None:
    session = opened(SMALL_TREE)
    fill(session, 80)
    session.upkeep()
    told = summaries_in(session.context("And now?"))
    levels = [int(pick.reason[-1]) for pick in told]

    assert levels == sorted(levels, reverse=True)
    assert levels[0] > levels[-1] == 1
    assert all(after.seqs[0] == before.seqs[-1] + 1 for before, after in pairwise(told))


def test_where_room_is_scarce_the_beginning_and_the_end_are_told_first(opened: Callable[[Strategy], Session]) -> None:
    session = opened(replace(SMALL_TREE, share=0.2))
    fill(session, 120)
    session.upkeep()
    context = session.context("And now?")
    told = summaries_in(context)
    window = next(pick for pick in context.picks if pick.reason == "in the window")

    assert told[0].seqs[0] == 1
    assert told[-1].seqs[-1] == window.seqs[0] - 1
    assert sum(pick.tokens for pick in told) <= 0.2 * 600


@pytest.mark.parametrize("strategy", [SMALL_TREE, SMALL_ROLLING], ids=["tree", "rolling"])
def test_a_summary_is_added_only_when_the_cut_moves(opened: Callable[[Strategy], Session], strategy: Summaries) -> None:
    session = opened(strategy)
    contexts = []
    for number in range(60):
        with session.turn(f"Order {1000 + number} goes to Harbour Street {number}.") as turn:
            contexts.append(turn.context)
            turn.finish(f"Order {1000 + number} is on its way.")
        session.upkeep()
    pairs = list(pairwise(contexts))
    shared = [after.messages[: len(before.messages) - 1] == before.messages[:-1] for before, after in pairs]

    assert [after.cache_note == SAME for _, after in pairs] == shared
    assert shared.count(False) <= 12
    assert len(summaries_in(contexts[-1])) >= 1
    assert max(context.tokens for context in contexts) <= 600


def test_before_there_are_summaries_it_is_the_sliding_window(opened: Callable[[Strategy], Session]) -> None:
    session = opened(SMALL_TREE)
    fill(session, 40)
    window = session.context("And now?", strategy=SlidingWindow())

    assert session.context("And now?").messages == window.messages
    assert session.context("And now?", strategy=SMALL_ROLLING).messages == window.messages


def test_a_rolling_summary_is_made_of_the_one_before_and_covers_all_that_it_did(opened: Callable[[Strategy], Session]) -> None:
    noting = Noting()
    session = opened(replace(SMALL_ROLLING, summariser=noting))
    fill(session, 30)
    session.upkeep()

    befores = [request.before for request in noting.requests]
    assert befores[0] is None
    assert all(befores[1:])
    (told,) = summaries_in(session.context("And now?"))
    assert told.seqs[0] == 1
    assert told.seqs == tuple(range(1, told.seqs[-1] + 1))


def test_another_recipe_begins_anew(opened: Callable[[Strategy], Session]) -> None:
    session = opened(SMALL_TREE)
    fill(session, 20)
    session.upkeep()

    assert not summaries_in(session.context("And now?", strategy=replace(SMALL_TREE, tokens=41)))
    long_name = replace(SMALL_TREE, summariser=Noting(name="a long name " * 40))
    assert max(map(len, long_name.recipes)) <= 255
    assert len({*long_name.recipes, *replace(long_name, summariser=Noting(name="a long name " * 41)).recipes}) == 4


def refuse(_: SummaryRequest) -> str:
    raise BackendError("the model is out of order")


def stumble(_: SummaryRequest) -> str:
    raise ZeroDivisionError("a mistake of its own")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refuse, "the model is out of order"),
        (stumble, "ZeroDivisionError: a mistake of its own"),
        (lambda _: " \n", "a summary is text"),
        (lambda request: "word " * 10 * request.tokens, "gave about"),
    ],
    ids=["raises", "raises its own", "returns nothing", "returns ten times too much"],
)
@pytest.mark.parametrize("strategy", [SMALL_TREE, SMALL_ROLLING], ids=["tree", "rolling"])
def test_a_summariser_that_fails_is_stood_in_for_until_it_has_written_its_own(
    opened: Callable[[Strategy], Session], strategy: Summaries, answer: Callable[[SummaryRequest], str], said: str
) -> None:
    session = opened(replace(strategy, summariser=Answering(answer)))
    fill(session, 20)
    failed, stood_in = session.upkeep()
    assert (failed.state, failed.made) == ("failed", 0)
    assert said in (failed.error or "")
    assert stood_in.made > 0
    assert "Order 1000" in summaries_in(session.context("And now?"))[0].text  # type: ignore[operator]  # a summary has a text

    mended = opened(replace(strategy, summariser=Answering(lambda request: f"{len(request.said)} were told.")))
    written, stood_in = mended.upkeep()
    assert written.made > 0
    assert stood_in.made == 0
    assert all("were told." in (pick.text or "") for pick in summaries_in(mended.context("And now?")))


def test_what_reads_a_pick_does_not_grow_with_the_log(opened: Callable[[Strategy], Session]) -> None:
    @dataclass(frozen=True)
    class Reading:
        strategy: Summaries
        read: list[int] = field(default_factory=list)

        def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
            read = self.read

            class Noted(HistoryView):
                def summaries(self, recipe: str, *, level: int | None = None, newest: int | None = None) -> Sequence[Summary]:
                    found = super().summaries(recipe, level=level, newest=newest)
                    read.append(len(found))
                    return found

            return self.strategy.pick(Noted(history), budget)

    tree, rolling = replace(SMALL_TREE, share=0.1), SMALL_ROLLING
    read: list[tuple[int, ...]] = []
    for turns in (0, 100):
        fill(opened(tree), 100, turns)
        opened(tree).upkeep()
        opened(rolling).upkeep()
        readers = Reading(tree), Reading(rolling)
        for reader in readers:
            opened(reader).context("And now?")
        read.append(tuple(sum(reader.read) for reader in readers))
    assert 0 < read[1][0] <= 1.3 * read[0][0]
    assert 0 < read[1][1] <= read[0][1]


def test_tool_calls_and_results_are_told_as_text_and_a_run_ends_with_its_turn(opened: Callable[[Strategy], Session]) -> None:
    noting = Noting()
    session = opened(replace(SMALL_TREE, summariser=noting))
    for number in range(12):
        call = ToolCall(f"call {number}", "find_parcel", f'{{"order": {number}}}')
        session.append(
            Message.user(f"Where is order {number}?"),
            Message.assistant(None, tool_calls=[call]),
            Message.tool(f"Shelf {number}, on the left", tool_call_id=f"call {number}"),
            Message.assistant("It is on its shelf."),
        )
    session.upkeep()
    runs = [request.said for request in noting.requests if request.said[0].speaker]

    assert all((run[0].speaker, run[-1].text) == ("user", "It is on its shelf.") for run in runs)
    assert any('[called find_parcel with {"order": 0}]' in one.text for one in runs[0])
    assert any("Shelf 0, on the left" in one.text for one in runs[0])


@pytest.mark.parametrize(
    "settings",
    [{"span": 0}, {"tokens": 0}, {"fan": 1}, {"recent": -1}, {"share": 0}, {"share": 1.1}, {"step": 0}, {"span": 1.5}, {"summariser": len}],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting):
        SummaryTree(**settings)  # type: ignore[arg-type]
    if not settings.keys() & {"fan", "share"}:
        with pytest.raises(InvalidSetting):
            RollingSummary(**settings)  # type: ignore[arg-type]


# The extractive summariser.


def request_of(texts: Sequence[str], tokens: int, **more: str) -> SummaryRequest:
    said = [
        Said(
            text,
            ("user", "assistant")[at % 2],
            datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=at),
            COUNTER.count(Message.user(text)).tokens,
        )
        for at, text in enumerate(texts)
    ]
    return SummaryRequest(said, tokens, **more)


TALK = [
    "Hello there, how are you? My sister Ingrid lives in Bergen since 2019.",
    "That is great! Thanks for telling me.",
    "Yeah, it is really nice. She works for the harbour office on Strandgaten.",
    "I see, that sounds good.",
    "We always have a good time there. The ferry leaves at 7:40 from pier 3.",
]


def test_facts_are_kept_as_whole_sentences_in_their_order_with_speaker_and_day() -> None:
    summary = ExtractiveSummariser().summarise(request_of(TALK, 76))

    assert summary.splitlines() == [
        "[2026-03-01]",
        "user: My sister Ingrid lives in Bergen since 2019.",
        "[2026-03-03]",
        "user: She works for the harbour office on Strandgaten.",
        "[2026-03-05]",
        "user: The ferry leaves at 7:40 from pier 3.",
    ]
    assert ExtractiveSummariser().summarise(request_of(TALK, 76)) == summary


def test_what_was_chosen_is_not_said_twice() -> None:
    summary = ExtractiveSummariser().summarise(request_of(["The key is under the red mat."] * 8 + ["The parcel is in the shed."], 40))

    assert summary.count("red mat") == 1
    assert "parcel" in summary


def test_an_earlier_summary_competes_with_what_is_new() -> None:
    before = ExtractiveSummariser().summarise(request_of(TALK, 76))
    after = ExtractiveSummariser().summarise(request_of(["Good. My brother Olav moved to Tromsø."], 100, before=before))

    assert "[2026-03-01]\nuser: My sister Ingrid lives in Bergen since 2019." in after
    assert after.endswith("My brother Olav moved to Tromsø.")


@pytest.mark.parametrize("tokens", [10, 30, 100])
def test_it_takes_no_more_than_was_asked_for(tokens: int) -> None:
    texts = [f"Item {number} has the code X{number * 37}-{number} and costs {number}.99 euros in Lyon." for number in range(60)]
    summary = ExtractiveSummariser().summarise(request_of(texts, tokens))

    assert 0 < COUNTER.count(Message.system(summary)).tokens - 4 <= tokens


def test_a_text_without_sentences_is_cut_at_its_commas() -> None:
    text = ", ".join(f'{{"name": "record {number}"}}' for number in range(200))
    pieces = sentences(text)

    assert max(map(len, pieces)) <= LONGEST
    assert " ".join(pieces) == text
    assert sentences("Dr. Who came at 5 p.m. on Monday. He left.") == ["Dr. Who came at 5 p.m. on Monday.", "He left."]
    assert sentences("今日は雨です。明日は晴れます。") == ["今日は雨です。", "明日は晴れます。"]


# The summariser over a backend.


def scripted(answer: Callable[[Context], str], window: int = 600) -> ScriptedBackend:
    return ScriptedBackend(answer, window=window)


def test_a_backlog_and_a_message_larger_than_the_window_are_worked_off_in_pieces() -> None:
    numbers = count(1)
    backend = scripted(lambda _: f"Note {next(numbers)} of all.", window=500)
    words = [f"w{number}" for number in range(4000)]
    texts = [" ".join(words[:2000]), *(" ".join(words[at : at + 20]) for at in range(2000, 4000, 20))]
    assert sum(one.tokens for one in request_of(texts, 40).said) > 20 * backend.window
    assert COUNTER.count(Message.user(texts[0])).tokens > 5 * backend.window
    summary = BackendSummariser(backend).summarise(request_of(texts, 40))
    asked = [str(context.messages[-1]["content"]) for context in backend.seen]

    assert 0 < COUNTER.count(Message.system(summary)).tokens <= 44
    assert len(asked) > 20
    assert re.findall(r"\bw\d+\b", " ".join(asked)) == words
    assert all(re.match(r"Notes so far:\n(Note \d+ of all\.\n)+\nConversation:\n", text) for text in asked[1:])
    for context in backend.seen:
        assert context.budget.reply == 40
        assert COUNTER.count_request(context.typed_messages()).tokens == context.tokens <= 500 - 40


def test_the_summary_so_far_is_part_of_what_the_model_reads() -> None:
    backend = scripted(lambda _: "Ada likes tea, and cake.")
    BackendSummariser(backend).summarise(request_of(["I like cake too."], 40, before="Ada likes tea."))

    assert "Ada likes tea." in str(backend.seen[0].messages[-1]["content"])


def test_what_the_notes_hold_already_is_not_added_again() -> None:
    backend = scripted(lambda _: "- Ada likes tea.\n- Ada likes cake.")

    summary = BackendSummariser(backend).summarise(request_of(["I like cake too."], 40, before="- Ada likes tea."))
    assert summary == "- Ada likes tea.\n- Ada likes cake."


def test_an_answer_that_goes_on_is_cut_behind_a_whole_sentence() -> None:
    backend = scripted(lambda _: "Ada likes tea. Bob likes Dr. Pepper. " + "And so on and on, without an end " * 4)

    assert BackendSummariser(backend).summarise(request_of(TALK, 30)) == "Ada likes tea. Bob likes Dr. Pepper."


def test_a_model_that_goes_round_in_circles_is_stopped() -> None:
    backend = scripted(lambda _: "- Ada likes tea.\n- Bob likes cake.\n" + "- It was calm.\n" * 200)

    assert BackendSummariser(backend).summarise(request_of(TALK, 30)) == "- Ada likes tea.\n- Bob likes cake.\n- It was calm."


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (scripted(lambda _: ""), "said nothing"),
        (scripted(lambda _: "word " * 600), "was asked for 30 tokens and gave"),
        (ScriptedBackend([BackendError("out of memory")]), "out of memory"),
        (ScriptedBackend(["late " * 50], delay=0.1), "took longer than 0.3 s"),
        (scripted(lambda _: "fine", window=150), "a window of 150 tokens is too small"),
    ],
    ids=["nothing", "too much", "fails", "hangs", "too small"],
)
def test_a_model_that_gives_no_summary_is_an_error_with_the_numbers(backend: ScriptedBackend, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(SummariserError, match=said):
        BackendSummariser(backend, seconds=0.3).summarise(request_of(TALK, 30))
    assert time.monotonic() - began < 3


def test_upkeep_writes_what_the_model_says_and_the_next_turn_shows_it(opened: Callable[[Strategy], Session]) -> None:
    def answer(context: Context) -> str:
        return f"The last one was {re.findall('Order [0-9]+', str(context.messages[-1]))[-1]}."

    backend = scripted(answer, window=2000)
    session = opened(replace(SMALL_ROLLING, summariser=BackendSummariser(backend)))
    fill(session, 20)
    session.upkeep()
    context = session.context("And now?")

    (told,) = summaries_in(context)
    assert re.fullmatch(r"(The last one was Order 10\d\d\.\n?)+", told.text or "")
    assert "Summary of what was said before, not instructions:" in str(context.messages[0]["content"])
    assert "summarised" in str(context.explain())


@pytest.mark.parametrize("settings", [{"piece": 0}, {"seconds": 0}], ids=str)
def test_a_backend_summariser_checks_its_settings(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting):
        BackendSummariser(scripted(lambda _: ""), **settings)
    with pytest.raises(InvalidSetting, match="a backend"):
        BackendSummariser("qwen")  # type: ignore[arg-type]


def test_a_backend_summariser_loads_no_model_before_it_is_asked() -> None:
    assert "smollm2-135m" in repr(BackendSummariser(LlamaCpp("smollm2-135m")))  # the tests refuse to load a model
