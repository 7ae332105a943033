"""Branches: random programs against a model of them, what is shared of slow work, what a fork costs, and who comes between."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from branch_programs import COUNTER, Program, faults, opened, programs
from hypothesis import HealthCheck, given, settings
from test_index import Looking, seen
from test_rows_read import filled, plan, statements, work_of
from test_summaries import SMALL_ROLLING, SMALL_TREE, Noting, Summaries, fill

from threadkeep import (
    AsyncMemory,
    Branch,
    Budget,
    Conflict,
    Memory,
    Message,
    ScriptedBackend,
    Session,
    TiktokenCounter,
    ToolCall,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.stores import index_queries

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
CALL = Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")])
FOUND = Message.tool("there", tool_call_id="a")


def test_random_programs_leave_every_branch_as_its_model_is() -> None:
    with opened("sqlite://") as memory:

        @settings(max_examples=max(1, settings().max_examples // 5), deadline=None, suppress_health_check=SLOW)
        @given(programs)
        def run(program: Sequence[tuple[object, ...]]) -> None:
            Program(memory).run(program)

        run()
        assert faults(memory) == []


def test_random_programs_do_so_on_servers(server_url: str) -> None:
    with opened(server_url) as memory:

        @settings(max_examples=max(1, settings().max_examples // 15), deadline=None, suppress_health_check=SLOW)
        @given(programs)
        def run(program: Sequence[tuple[object, ...]]) -> None:
            Program(memory).run(program)

        run()
        assert faults(memory) == []


# Slow work is shared.


@pytest.fixture
def embedding(url: str) -> Iterator[Session]:
    """A session whose entries get vectors when upkeep is asked for."""
    backend = ScriptedBackend(lambda _: "a reply")
    with Memory(url, backend=backend, budget=Budget(4000, reply=500), embedder=HashedEmbedder(), upkeep=False) as memory:
        yield memory.session("chat", owner="ada")


def test_vectors_of_shared_entries_are_made_once_whichever_branch_makes_them(embedding: Session) -> None:
    embedding.append("one", "two", "three", "four")
    embedding.fork("other", at=2)
    embedding.append("five")
    assert [done.made for done in embedding.upkeep()] == [3]
    assert [any(vector) for vector in seen(embedding).vectors or ()] == [True] * 3
    embedding.switch("main")
    assert [any(vector) for vector in seen(embedding).vectors or ()] == [True, True, False, False]
    assert [done.made for done in embedding.upkeep()] == [2]
    assert [any(vector) for vector in seen(embedding).vectors or ()] == [True] * 4
    embedding.fork("third", at=4)
    assert [done.made for done in embedding.upkeep()] == [0]


def test_a_turn_on_a_fork_does_not_see_vectors_that_are_made_meanwhile(embedding: Session) -> None:
    embedding.append(*(f"number {number}" for number in range(6)))
    embedding.fork("other", at=4)
    looking = Looking()
    with embedding.turn("And now?", strategy=looking) as turn:
        assert turn.request
        embedding.upkeep()
        turn.append(CALL, FOUND)
        assert turn.request
        turn.finish("Now.")
    with embedding.turn("And then?", strategy=looking) as turn:
        assert turn.request
    before, meanwhile, after = (found.vectors for found in looking.seen)
    assert before == meanwhile is None
    assert after is not None
    assert [any(vector) for vector in after[:4]] == [True] * 4


def test_a_regenerated_message_is_recalled_for_by_its_meaning(embedding: Session) -> None:
    embedding.append("one", Message.assistant("two"))
    embedding.chat("What was one?")
    looking = Looking()
    with embedding.turn(None, strategy=looking) as turn:
        assert turn.request
    assert looking.seen[-1].query is not None
    embedding.edit(3, "What was two?")
    with embedding.turn(None, strategy=looking) as turn:
        assert turn.request
    assert looking.seen[-1].query is not None
    assert looking.seen[-1].query != looking.seen[-2].query


def test_a_fork_reads_only_what_it_does_not_share_for_its_index(embedding: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding.append(*(f"parcel {number}" for number in range(300)))
    embedding.upkeep()
    embedding.chat("Where is it?")
    before = seen(embedding, "parcel", question=None)
    read: list[int] = []
    columns, within = index_queries.columns, index_queries.vectors_within

    def noted(pages: object) -> object:
        for page in pages:  # type: ignore[attr-defined]
            read.append(len(page))
            yield page

    monkeypatch.setattr(index_queries, "columns", lambda *given: noted(columns(*given)))
    monkeypatch.setattr(index_queries, "vectors_within", lambda *given: noted(within(*given)))
    for _ in range(3):
        embedding.regenerate()
        assert seen(embedding, "parcel", question=None) == before
    embedding.fork("early", at=100)
    embedding.append("a letter", "a parcel")
    found = seen(embedding, "parcel")
    assert found.texts == [*(f"parcel {number}" for number in range(100)), "a letter", "a parcel"]
    assert len(found.postings["parcel"]) == 101
    assert sum(read) < 20
    embedding.switch("main")
    again = seen(embedding, "parcel", question=None)
    assert (again.rows, again.texts, again.postings, again.vectors) == (before.rows, before.texts, before.postings, before.vectors)


def test_an_index_that_is_in_use_stays_as_it_is_when_the_branch_changes(embedding: Session) -> None:
    embedding.append("one", "two", "three", "four")
    embedding.upkeep()
    store = embedding._setup.store
    assert seen(embedding).texts == ["one", "two", "three", "four"]
    with store.history("ada", "chat", model=HashedEmbedder().name) as (history, _, _):
        index = history.index()
        seqs, vectors = index.seqs.tolist(), None if index.vectors is None else index.vectors.tolist()
        embedding.fork("other", at=1)
        embedding.append("second", "third")
        embedding.upkeep()
        assert seen(embedding).texts == ["one", "second", "third"]
        assert (index.seqs.tolist(), None if index.vectors is None else index.vectors.tolist()) == (seqs, vectors)


@pytest.mark.parametrize("kind", [SMALL_TREE, SMALL_ROLLING], ids=["tree", "rolling"])
def test_summaries_of_shared_runs_are_made_once_whichever_branch_makes_them(url: str, kind: Summaries) -> None:
    noting = Noting()
    strategy = replace(kind, summariser=noting)
    with Memory(url, counter=COUNTER, budget=Budget(900, reply=100), strategy=strategy, upkeep=False) as memory:
        session = memory.session("chat")
        fill(session, 30)
        session.fork("first", at=20)
        fill(session, 10, 100)
        session.upkeep()
        told = [one.text for request in noting.requests for one in request.said if one.speaker]
        session.switch("main")
        session.upkeep()
        session.fork("second", at=40)
        fill(session, 10, 200)
        session.upkeep()
        session.switch("first")
        session.upkeep()
        every = [one.text for request in noting.requests for one in request.said if one.speaker]
        assert told
        twice = {text for text in every if every.count(text) > 1}
        of_cut_runs = [f"Order {1000 + number} " for number in (7, 8, 9, 17, 18, 19)]
        assert all(text.startswith(tuple(of_cut_runs)) for text in twice), "none but those of a run that a fork cut"
        assert {f"Order {1000 + number} is on its way." for number in range(8)} <= set(told)
        session.append("And now?")
        with memory.store.history("default", "chat") as (history, _, _):
            found = history.summaries(strategy.recipes[0])
            assert max(one.last for one in found) > 20
            assert all("Order 1020" not in one.text for one in found), "it tells nothing of what its parent got later"


def test_a_turn_on_a_fork_does_not_see_summaries_that_are_made_meanwhile(url: str) -> None:
    with Memory(url, counter=COUNTER, budget=Budget(700, reply=100), strategy=SMALL_TREE, upkeep=False) as memory:
        session = memory.session("chat")
        fill(session, 30)
        session.fork("other", at=52)
        with session.turn("And now?") as turn:
            before = turn.messages
            assert sum(done.made for done in session.upkeep()) > 3
            turn.choose_tool(None)
            assert turn.messages == before
            turn.finish("Now.")
        assert any(pick.kind == "summary" for pick in session.context("And then?").picks)
        assert session.context(as_of=turn).messages == before


def test_upkeep_of_a_fork_begins_where_it_was_done_before(embedding: Session) -> None:
    embedding.append(*(f"number {number}" for number in range(10)))
    embedding.upkeep()
    jobs = embedding._setup.upkeep.jobs
    for at, done in ((None, 10), (4, 4), (3, 3)):
        embedding.fork(f"at {at}", at=at)
        found = jobs.find("ada", "chat")
        assert found is not None
        session, known = found
        assert {job.done_seq for job in known.values()} == {done}
        claim = jobs.claim(session, next(iter(known)), early=False)
        assert claim is not None
        assert claim.done_seq == done
        jobs.leave(claim)


# What a fork costs, and what it asks the database.


def test_a_fork_costs_the_same_in_a_session_ten_times_as_long(counter: TiktokenCounter, tmp_path_factory: pytest.TempPathFactory) -> None:
    costs = []
    for messages in (300, 3000):
        with filled(f"sqlite:///{tmp_path_factory.mktemp('chat')}/chat.db", counter, messages) as (memory, session):

            def change(session: Session = session, at: int = messages - 50) -> None:
                session.fork("other", at=at)
                session.edit(at - 10, "edited")
                with session.turn(None) as turn:
                    turn.finish("answered")
                session.switch("main")
                session.branches()

            costs.append(work_of(memory, change))
    assert costs[1] <= 1.2 * costs[0]


@pytest.mark.parametrize("analysed", [False, True], ids=["before ANALYZE", "after ANALYZE"])
def test_every_statement_about_branches_finds_its_rows_by_a_key(url: str, counter: TiktokenCounter, analysed: bool) -> None:
    with filled(url, counter, 300) as (memory, session):
        for number in range(30):
            session.switch("main")
            session.fork(f"fork {number}", at=100 + number)
            session.append("a message", key="k")
        if analysed:
            with memory.store.engine.begin() as connection:
                connection.exec_driver_sql("ANALYZE")
            memory.store.engine.dispose()
        with statements(memory) as made:
            session.fork("other", at=100)
            session.append("once", key="k")
            session.edit(50, "edited")
            with session.turn(None) as turn:
                assert turn.request
                turn.finish("answered")
            with session.turn(None) as turn:
                assert turn.request
                turn.finish("answered")
            session.switch("main")
            session.branches(after="fork 20", limit=5)
            session.entries(branch="fork 3")
        with memory.store.engine.connect() as connection:
            steps = {
                step
                for sql, parameters in dict(made).items()
                if sql.split()[0] not in ("BEGIN", "PRAGMA") and not sql.startswith("INSERT")
                for step in plan(connection, sql, parameters)
            }
    assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step]
    assert all("owner_id=?" in step or "name=?" in step for step in steps if "SEARCH" in step)


# Who comes between.


def test_forks_switches_turns_and_appends_at_once_leave_every_message_on_one_branch(any_url: str) -> None:
    with opened(any_url) as memory:
        memory.session("chat", owner="ada").append("begun")
        appended: list[str] = []
        failures: list[BaseException] = []

        def work(number: int) -> None:
            session = memory.session("chat", owner="ada")
            try:
                for at in range(8):
                    text = f"message {at} of {number}"
                    if number == 0:
                        session.fork(f"fork {at}", at=1)
                    elif number == 1:
                        session.switch("main")
                    elif number == 2:
                        with session.turn(text) as turn:
                            turn.finish(f"reply to {text}")
                        appended.extend((text, f"reply to {text}"))
                    else:
                        session.append(text)
                        appended.append(text)
            except BaseException as error:  # noqa: BLE001  # it is raised below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        session = memory.session("chat", owner="ada")
        told = [
            entry.message.text
            for branch in session.branches()
            for entry in session.entries(after=branch.at, limit=1000, branch=branch.name)
        ]
        assert sorted(told) == sorted(["begun", *appended])
        for branch in session.branches():
            said = [entry.message.text for entry in session.entries(limit=1000, branch=branch.name)]
            assert all(
                said[at + 1] == f"reply to {text}" for at, text in enumerate(said) if text.endswith("of 2") and not text.startswith("reply")
            )
        assert faults(memory) == []


def test_async_code_has_branches_too(url: str) -> None:
    async def talk() -> list[str]:
        backend = ScriptedBackend(lambda _: "a reply")
        async with AsyncMemory(url, backend=backend, budget=Budget(4000, reply=500)) as memory:
            session = memory.session("chat")
            await session.chat("one")
            assert (await session.regenerate()).seq == 2
            forked = await session.fork("other", at=1)
            assert isinstance(forked, Branch)
            assert (await session.edit(1, "first", name="edited", metadata={"a": 1})).metadata == {"a": 1}
            async with session.turn(None) as turn:
                for change in (session.fork("x", timeout=0.01), session.switch("main", timeout=0), session.edit(1, "x", timeout=0)):
                    with pytest.raises(Conflict):
                        await change
                await turn.finish("a late reply")
            waiting = asyncio.create_task(session.switch("main"))
            assert (await waiting).active
            assert [entry.message.text for entry in await session.entries(branch="edited")] == ["first", "a late reply"]
            return [branch.name for branch in await session.branches()]

    assert set(asyncio.run(talk())) == {"main", "1-again-2", "other", "edited"}
