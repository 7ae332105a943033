"""Selective history: what it chooses, what it reads for that, and what may be said of an entry when it is appended."""

import asyncio
from itertools import pairwise

import pytest
from sqlalchemy import event

from threadkeep import (
    AsyncMemory,
    Budget,
    Compose,
    Context,
    InvalidMessage,
    InvalidSetting,
    Memory,
    Message,
    Profile,
    ScriptedBackend,
    Selective,
    Session,
    SlidingWindow,
    ToolCall,
)
from threadkeep.memory.history import Entry
from threadkeep.testing import StrategyContract

BUDGET = Budget(1000)


class TestSelective(StrategyContract):
    @pytest.fixture
    def strategy(self) -> Selective:
        return Selective(roles=("user", "tool"))


def kept(context: Context) -> list[int]:
    """Seqs of what stands in a context, the live turn apart."""
    return [
        seq
        for decision in context.decisions
        if decision.verdict == "kept" and decision.reason != "the live turn"
        for seq in range(decision.first, decision.last + 1)
    ]


@pytest.fixture
def told(session: Session) -> Session:
    """200 messages, by turns the user's and the assistant's; every tenth is a fact, and one of a hundred is important."""
    for number in range(100):
        metadata = {"tags": ["fact", "home"] if number % 5 == 0 else ["chatter"], "importance": 0.9 if number % 50 == 0 else 0.1}
        session.append(Message.user(f"{number}: some words about it"), Message.assistant("and more words"), metadata=metadata)
    return session


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (Selective(importance=0.9), [1, 2, 101, 102]),
        (Selective(roles=("user",), importance=0.9), [1, 101]),
        (Selective(tags=("fact",), roles=("assistant",)), list(range(2, 201, 10))),
        (Selective(tags=("fact", "home"), importance=0.5), [1, 2, 101, 102]),
        (Selective(tags=("nowhere",)), []),
        (Selective(importance=2), []),
    ],
    ids=repr,
)
def test_it_chooses_what_has_all_that_is_asked_for(told: Session, strategy: Selective, wanted: list[int]) -> None:
    assert kept(told.context("And now?", strategy=strategy, budget=BUDGET)) == wanted


def test_the_newest_stand_where_not_all_fit(told: Session) -> None:
    chosen = kept(told.context("And now?", strategy=Selective(roles=("user",)), budget=BUDGET))

    assert 40 < len(chosen) < 100
    assert chosen == list(range(chosen[0], 200, 2))


def test_a_match_brings_its_group_and_pays_for_it(session: Session) -> None:
    for number in range(60):
        session.append(
            Message.user("Look."),
            Message.assistant(tool_calls=[ToolCall("a", "look", "{}"), ToolCall("b", "look", "{}")]),
            Message.tool("a parcel " * 20, tool_call_id="a"),
            Message.tool("a letter", tool_call_id="b"),
        )
        session.append("It is there.", metadata={"tags": ["found"]} if number == 0 else None)
    context = session.context("And now?", strategy=Selective(roles=("tool",)), budget=BUDGET)

    chosen = kept(context)
    assert {seq % 5 for seq in chosen} == {2, 3, 4}
    assert context.tokens > 700


def test_its_choice_begins_with_the_same_entry_for_many_turns(memory: Memory) -> None:
    session = memory.session("s")
    strategy = Compose(SlidingWindow(), Selective(tags=("fact",)), shares=(0.6, 0.2))
    contexts = []
    for number in range(80):
        session.append(f"fact {number}", metadata={"tags": ["fact"]})
        with session.turn(f"question {number}, with some words around it", max_tokens=3000, strategy=strategy) as turn:
            contexts.append(turn.context)
            turn.finish(f"answer {number}, and as many words around this one")
    moved = [after.cache_note for _, after in pairwise(contexts)].count("the cut moved")

    assert "tagged fact" in {decision.reason for decision in contexts[-1].decisions}
    assert 3 <= moved <= 30


@pytest.mark.parametrize("alternation", [False, True])
def test_a_question_that_is_left_out_joins_its_neighbours_where_roles_take_turns(url: str, alternation: bool) -> None:
    backend = ScriptedBackend(["Yes."], profile=Profile(alternation=alternation))
    with Memory(url, backend=backend, strategy=Selective(roles=("assistant",)), budget=Budget(200)) as memory:
        session = memory.session("s", instructions="Be kind.")
        session.append(*(Message.assistant(f"answer {number}, at some length") for number in range(20)))
        contexts = []
        for number in range(2):
            with session.turn(f"question {number}") as turn:
                contexts.append(turn.context)
                turn.finish("Yes.")
    before, after = contexts
    shared = after.messages[: len(before.messages) - 1] == before.messages[:-1]

    assert shared != alternation
    assert ("the last question was left out" in after.cache_note) == alternation


def test_pinned_entries_and_those_of_the_live_turn_take_nothing_of_its_share(told: Session) -> None:
    for seq in range(1, 12, 10):
        told.pin(seq)
    context = told.context("And now?", strategy=Selective(tags=("fact",), roles=("user",)), budget=BUDGET)

    assert kept(context) == list(range(1, 201, 10))
    assert {decision.reason for decision in context.decisions if decision.first in (1, 11)} == {"pinned"}


def test_it_says_why(told: Session) -> None:
    strategy = Selective(roles=("user", "assistant"), tags=("fact",), importance=0.5)
    context = told.context("And now?", strategy=strategy, budget=BUDGET)

    assert context.decisions[0].reason == "of user or assistant, tagged fact, of importance 0.5 or more"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"roles": ("users",)},
        {"roles": "user"},
        {"tags": ["fact"]},
        {"tags": (3,)},
        {"importance": "high"},
        {"importance": float("nan")},
        {"tags": ("fact",), "step": 0},
    ],
)
def test_settings_are_checked(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match="Selective"):
        Selective(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"tags": "fact"}, "metadata.tags"),
        ({"tags": ["fact", ""]}, "metadata.tags[1]"),
        ({"tags": ["x" * 65]}, "metadata.tags[0]"),
        ({"tags": [7]}, "metadata.tags[0]"),
        ({"tags": ["a\0b"]}, "metadata.tags[0]"),
        ({"tags": ["half \ud800"]}, "metadata.tags[0]"),
        ({"importance": "high"}, "metadata.importance"),
        ({"importance": True}, "metadata.importance"),
        ({"importance": 10**400}, "metadata.importance"),
    ],
)
def test_tags_are_short_texts_and_an_importance_is_a_finite_number(session: Session, metadata: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidMessage) as refusal:
        session.append("It is in Rome.", metadata=metadata)

    assert refusal.value.field == field


def matching(session: Session, before: int = 10**6, limit: int = 100, **wanted: object) -> list[int]:
    """Seqs, asked of the history itself."""
    seen: list[Entry] = []

    class Asks:
        def pick(self, history: object, budget: object) -> list[object]:
            seen.extend(history.matching(before=before, limit=limit, **wanted))  # type: ignore[attr-defined]
            return []

    session.context(strategy=Asks(), budget=Budget(60))  # type: ignore[arg-type]
    return [entry.seq for entry in seen]


def test_a_history_gives_the_newest_that_match_before_a_seq(told: Session) -> None:
    assert matching(told, tags=["fact"], limit=3) == [182, 191, 192]
    assert matching(told, tags=["fact"], before=191, limit=3) == [172, 181, 182]
    assert matching(told, roles=["assistant"], before=7) == [2, 4, 6]
    assert matching(told, before=4) == [1, 2, 3]
    assert matching(told, before=1, tags=["fact"]) == []


def test_late_results_and_instructions_never_match(session: Session) -> None:
    session.append(Message.system("Be kind."), "Look.", Message.tool("too late", tool_call_id="x"), *("word " * 20 for _ in range(9)))

    assert matching(session, before=5) == [2, 4]
    assert matching(session, roles=["tool", "system"]) == []


def test_a_turns_user_message_may_have_tags_too(session: Session, url: str) -> None:
    session.chat("I am allergic to nuts.", metadata={"tags": ["fact"]})
    with session.turn("And to cats.", metadata={"tags": ["fact"]}) as turn:
        turn.finish("Noted.")

    async def another() -> None:
        async with AsyncMemory(url, backend=ScriptedBackend(["Noted."]), budget=Budget(4000)) as memory:
            await memory.session("chat", owner="ada").chat("And to dogs.", metadata={"tags": ["fact"]})

    asyncio.run(another())
    session.append(*("word " * 20 for _ in range(9)))  # or all of it fits, and nobody is asked
    assert matching(session, tags=["fact"]) == [1, 3, 5]
    with pytest.raises(InvalidMessage, match="importance"):
        session.chat("And to mice.", metadata={"importance": "high"})


@pytest.mark.parametrize(
    "wanted",
    [
        {"tags": ["fact", "home"]},
        {"importance": 0.5},
        {"roles": ["user"]},
        {"tags": ["fact"], "roles": ["user"]},
        {"tags": ["fact"], "importance": 0.5},
        {"importance": 0.5, "roles": ["user"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("analysed", [False, True], ids=["before ANALYZE", "after ANALYZE"])
def test_every_condition_is_read_off_a_key_the_newest_first(
    memory: Memory, told: Session, wanted: dict[str, object], analysed: bool
) -> None:
    engine = memory.store.engine
    if analysed:
        with engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")
        engine.dispose()  # a connection reads the statistics when it opens
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(_1: object, _2: object, statement: str, parameters: tuple[object, ...], _3: object, _4: object) -> None:
        if "LIMIT" in statement and "seq DESC" in statement:
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    matching(told, **wanted)  # type: ignore[arg-type]
    event.remove(engine, "before_cursor_execute", note)
    assert asked
    with engine.connect() as connection:
        steps = [
            row[3] for statement, parameters in asked for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step], steps
    searches = [step for step in steps if step.startswith("SEARCH")]
    assert all("owner_id=? AND branch_id=? AND" in step for step in searches), steps
    leads = next(step for step in searches)
    if "tags" in wanted:
        assert "threadkeep_tags USING PRIMARY KEY (owner_id=? AND branch_id=? AND tag=? AND seq>? AND seq<?)" in leads
    elif "importance" in wanted:
        assert "threadkeep_importances USING PRIMARY KEY (owner_id=? AND branch_id=? AND seq>? AND seq<?)" in leads
    else:
        assert "COVERING INDEX ix_threadkeep_messages_role (owner_id=? AND branch_id=? AND role=? AND seq>? AND seq<?)" in leads


def test_it_reads_along_the_lineage_of_a_fork(told: Session) -> None:
    told.fork("other", at=100)
    told.append("a fact of the fork", metadata={"tags": ["fact"], "importance": 1})

    assert matching(told, tags=["fact"], limit=3) == [91, 92, 101]
    assert matching(told, importance=0.5) == [1, 2, 101]
    assert matching(told, roles=["user"], limit=2) == [99, 101]
