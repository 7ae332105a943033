"""Upkeep: the slow work between turns. One worker a job, resumable, and never in the way of a turn, whatever a model does."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from threadkeep import (
    AsyncMemory,
    Budget,
    Context,
    Memory,
    Message,
    NotFound,
    Pick,
    Recall,
    ScriptedBackend,
    SlidingWindow,
    SQLStore,
    ToolCall,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory import deadline, upkeep, worker
from threadkeep.memory.history import History, Summary
from threadkeep.memory.upkeep_jobs import BATCH
from threadkeep.stores import jobs
from threadkeep.stores.jobs import Jobs
from threadkeep.stores.schema import summaries, vectors
from threadkeep.stores.upkeep_queries import KIND_LENGTH, JobStatus, kind_of

if TYPE_CHECKING:
    from threadkeep.memory.index import Matrix

RUN = 8
"""Entries that one summary stands for."""
LONG = "and so on, at length, " * 8


def brief(texts: Sequence[str]) -> str:
    return f"{len(texts)} were said, the first: {texts[0][:20]}"


@dataclass
class Runs:
    """Summaries of eight entries each, by any function."""

    summarise: Callable[[Sequence[str]], object] = brief
    calls: list[int] = field(default_factory=list)
    recipes: Sequence[str] = ("runs",)

    def __repr__(self) -> str:
        return "Runs()"

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return SlidingWindow().pick(history, budget)

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        first = max((one.last for one in history.summaries(recipe)), default=0) + 1
        if history.head.seq < first + RUN - 1:
            return None
        said = [entry.message.text for entry in history.between(first, first + RUN - 1)]

        def write() -> Summary:
            self.calls.append(first)
            return Summary(1, first, first + RUN - 1, self.summarise(said), 1, "a test")  # type: ignore[arg-type]

        return write


@dataclass
class Watched:
    """Vectors by hashing, unless something else is wanted; every text is noted."""

    wanted: Callable[[Sequence[str]], "Matrix"] = HashedEmbedder().embed
    name: str = "watched"
    texts: list[str] = field(default_factory=list)

    def embed(self, texts: Sequence[str]) -> "Matrix":
        self.texts.extend(texts)
        return self.wanted(texts)


def failing(texts: Sequence[str]) -> "Matrix":
    raise ConnectionError("the service is away")


def opened(url: str, **options: object) -> Memory:
    def reply(context: Context) -> str:
        return f"reply to {str(context.messages[-1]['content'])[:40]} {LONG}"

    return Memory(url, backend=ScriptedBackend(reply), budget=Budget(4000, reply=500), **options)  # type: ignore[arg-type]


def rows(memory: Memory, table: object = vectors) -> int:
    with memory.store.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()  # type: ignore[arg-type]


def models(memory: Memory) -> dict[str, int]:
    with memory.store.read() as connection:
        found = connection.execute(select(vectors.c.model, func.count()).group_by(vectors.c.model))
        return {str(model): int(count) for model, count in found}


def status(memory: Memory) -> list[JobStatus]:
    return Jobs(memory.store).status(None, 100)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed jobs are tried again at once, and a hanging model is left after a moment."""
    monkeypatch.setattr(jobs, "FIRST_RETRY_US", 50_000)
    monkeypatch.setattr(upkeep, "SOON_SECONDS", 0.05)
    monkeypatch.setattr(upkeep, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(upkeep, "CLOSE_SECONDS", 0.3)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging model waits for; opened in the end, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


# What is made, and when.


def test_replies_are_embedded_and_runs_summarised_after_their_turns(url: str) -> None:
    with opened(url, embedder=HashedEmbedder(), strategy=Runs()) as memory:
        session = memory.session("chat")
        for number in range(RUN):
            session.chat(f"message {number} {LONG}")
        eventually(lambda: rows(memory) == 2 * RUN and rows(memory, summaries) == 2)


def test_a_summary_tells_what_it_costs_and_is_seen_from_the_next_turn_on(url: str) -> None:
    seen: list[list[Summary]] = []

    class Looking(Runs):
        def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
            seen.append(list(history.summaries("runs")))
            return super().pick(history, budget)

    with opened(url, strategy=Looking(), upkeep=False) as memory:
        session = memory.session("chat")
        session.append(*[f"message {number} {LONG * 4}" for number in range(40)])
        with session.turn("now") as turn:
            assert turn.context.tokens
            session.upkeep()
            turn.append(Message.assistant("in between"))
            assert turn.context.tokens
            turn.finish("a reply")
        session.context("next")
    assert seen[:2] == [[], []], "a turn changed its mind half way"
    assert [(one.first, one.last) for one in seen[2]] == [(1, 8), (9, 16), (17, 24), (25, 32), (33, 40)]
    counter = ScriptedBackend([]).counter
    assert {one.tokens for one in seen[2]} == {counter.count(Message.system(one.text)).tokens for one in seen[2]}
    assert {one.made_at for one in seen[2]} == {41}


def recalled(context: Context) -> dict[tuple[int, ...], tuple[float | None, str]]:
    """What excerpts were chosen for."""
    return {pick.seqs: (pick.score, pick.reason) for pick in context.picks if pick.kind == "excerpt"}


def test_what_a_turn_recalls_stays_when_vectors_come_between_its_model_calls(url: str) -> None:
    with opened(url, embedder=HashedEmbedder(), strategy=Recall(floor=0), upkeep=False) as memory:
        session = memory.session("chat")
        session.append(*(f"message {number} of the river {LONG}" for number in range(150)))
        with session.turn("What was said of the river, at length?") as turn:
            first = recalled(turn.context)
            session.upkeep()
            turn.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("a river", tool_call_id="a"))
            again = recalled(turn.context)
            assert first.items() >= again.items(), "a turn changed its mind half way"
            assert len(again) > len(first) - 4 > 40, "the call takes little of what excerpts had"
            turn.finish("This.")
        after = recalled(session.context("What was said of the river, at length?"))
    assert not any("meaning" in reason for _, reason in first.values())
    assert any("meaning" in reason for _, reason in after.values())


def test_entries_without_words_get_no_vector_and_are_not_tried_again(url: str) -> None:
    embedder = Watched()
    with opened(url, embedder=embedder, upkeep=False) as memory:
        session = memory.session("chat")
        session.append("", "  \n", "words", Message.tool("late", tool_call_id="nobody's"))
        session.upkeep()
        session.upkeep()
        assert embedder.texts.count("") + embedder.texts.count("  \n") + embedder.texts.count("late") == 0
        assert embedder.texts.count("words") == 1
        assert rows(memory) == 1
        assert [job.done for job in status(memory)] == [4]


def test_after_a_change_of_embedder_all_is_made_anew_and_the_old_goes(url: str) -> None:
    with opened(url, embedder=Watched(name="old"), upkeep=False) as memory:
        memory.session("chat").append(*[f"message {number}" for number in range(200)])
        memory.session("chat").upkeep()
        assert models(memory) == {"old": 200}
    with opened(url, embedder=Watched(failing, name="new"), upkeep=False) as memory:
        memory.session("chat").upkeep()
        assert models(memory) == {"old": 200}, "the old was deleted before the new was there"
    with opened(url, embedder=Watched(name="new"), upkeep=False) as memory:
        (done,) = memory.session("chat").upkeep()
        assert (done.state, done.made) == ("done", 200)
        assert models(memory) == {"new": 200}
        assert [job.kind for job in status(memory)] == ["embed:new"]


def test_all_sessions_of_all_owners_are_looked_after_at_once(url: str) -> None:
    with opened(url, embedder=HashedEmbedder(), upkeep=False) as memory:
        for owner in ("ada", "bob"):
            for name in ("one", "two"):
                memory.session(name, owner=owner).append("first", "second")
        assert [(one.owner, one.session, one.made) for one in memory.upkeep(owner="ada")] == [("ada", "one", 2), ("ada", "two", 2)]
        assert {(one.owner, one.session) for one in memory.upkeep()} == {("bob", "one"), ("bob", "two")}
        assert memory.upkeep() == []
        assert rows(memory) == 8


def test_without_an_embedder_or_summaries_there_is_nothing_to_do(url: str) -> None:
    with opened(url) as memory:
        session = memory.session("chat")
        session.append("words")
        assert session.upkeep() == []
        assert memory.upkeep() == []
        assert status(memory) == []
        with pytest.raises(NotFound):
            memory.session("nobody's").upkeep()


def test_switched_off_it_works_only_when_asked(url: str) -> None:
    embedder, strategy = Watched(), Runs()
    with opened(url, embedder=embedder, strategy=strategy, upkeep=False) as memory:
        session = memory.session("chat")
        for number in range(RUN):
            session.append(f"message {number} {LONG}")
        assert all(lane.idle for lane in worker.LANES)
        assert (embedder.texts, strategy.calls) == ([], [])
        assert [(one.kind, one.state, one.made) for one in session.upkeep()] == [
            ("embed:watched", "done", 8),
            ("summaries:runs", "done", 1),
        ]


def test_the_async_twin_makes_the_same(url: str) -> None:
    async def use() -> list[upkeep.Upkept]:
        backend = ScriptedBackend(lambda _: f"a reply {LONG}")
        async with AsyncMemory(
            url, backend=backend, budget=Budget(4000, reply=500), embedder=HashedEmbedder(), strategy=Runs(), upkeep=False
        ) as memory:
            session = memory.session("chat")
            for number in range(4):
                await session.chat(f"message {number} {LONG}")
            made = await session.upkeep()
            assert await memory.upkeep() == []
            return made

    assert [(one.kind, one.state) for one in asyncio.run(use())] == [("embed:hashed-words-256", "done"), ("summaries:runs", "done")]


# How often models are called.


def test_a_thousand_exchanges_make_a_bounded_number_of_calls_and_a_restart_none(url: str) -> None:
    embedder, strategy = Watched(), Runs()
    with opened(url, embedder=embedder, strategy=strategy) as memory:
        session = memory.session("chat")
        for number in range(1000):
            session.append(f"question {number} {LONG}", Message.assistant(f"answer {number} {LONG}"))
        eventually(lambda: all(job.done == job.entries for job in status(memory)) and len(status(memory)) == 2)
        assert strategy.calls == list(range(1, 2000, RUN))
        assert len(set(embedder.texts)) == 2000
        assert rows(memory) == 2000
        assert len(embedder.texts) == 2000
    again, same = Watched(), Runs()
    with opened(url, embedder=again, strategy=same) as memory:
        assert memory.upkeep() == []
        memory.session("chat").upkeep()
        assert (again.texts, same.calls) == ([], [])


# Models that fail.


def too_long(texts: Sequence[str]) -> str:
    return "very long " * 10 * sum(len(text) for text in texts)


@pytest.mark.parametrize("wrong", [lambda _: 1 / 0, lambda _: "", lambda _: "  ", too_long, lambda _: None])
def test_a_summariser_that_fails_stops_no_turn_and_is_asked_again(url: str, soon: None, wrong: Callable[[Sequence[str]], object]) -> None:
    strategy = Runs(wrong)
    with opened(url, strategy=strategy) as memory:
        session = memory.session("chat")
        for number in range(6):
            assert session.chat(f"message {number} {LONG}").text.startswith("reply to message")
        eventually(lambda: any(job.failures for job in status(memory)))
        assert status(memory)[0].error
        assert rows(memory, summaries) == 0
        strategy.summarise = brief
        eventually(lambda: rows(memory, summaries) == 1 and not status(memory)[0].failures)
        assert status(memory)[0].error is None
        assert len(session.entries()) == 12


def test_a_summariser_that_hangs_is_left_and_stops_nothing_else(url: str, soon: None, gate: threading.Event) -> None:
    strategy = Runs(lambda texts: gate.wait() and brief(texts))
    with opened(url, strategy=strategy, embedder=HashedEmbedder()) as memory:
        session = memory.session("chat")
        for number in range(6):
            assert session.chat(f"message {number} {LONG}").text
        eventually(lambda: rows(memory) == 12)
        eventually(lambda: any("did not come back" in (job.error or "") for job in status(memory)))
        strategy.summarise = brief
        eventually(lambda: rows(memory, summaries) == 1)


def test_no_more_is_called_while_too_many_calls_hang(url: str, soon: None, gate: threading.Event) -> None:
    strategy = Runs(lambda texts: gate.wait() and brief(texts))
    with opened(url, strategy=strategy, upkeep=False) as memory:
        session = memory.session("chat")
        session.append(*[f"message {number} {LONG}" for number in range(RUN)])
        outcomes = [session.upkeep()[0].error for _ in range(deadline.MOST_LEFT + 2)]
        assert len(strategy.calls) == deadline.MOST_LEFT
        assert "nothing more is called" in str(outcomes[-1])
        gate.set()
        eventually(lambda: session.upkeep()[0].state == "done")


@pytest.mark.parametrize(
    "wrong",
    [failing, lambda texts: [], lambda texts: [[float("nan")]] * len(texts), lambda texts: [[3.0, 4.0]] * len(texts), lambda texts: None],
)
def test_an_embedder_that_fails_stops_no_turn_and_is_asked_again(url: str, soon: None, wrong: Callable[[Sequence[str]], "Matrix"]) -> None:
    embedder = Watched(wrong)
    with opened(url, embedder=embedder) as memory:
        session = memory.session("chat")
        for number in range(3):
            assert session.chat(f"message {number}").text.startswith("reply to message")
        eventually(lambda: any(job.failures for job in status(memory)))
        assert "EmbedderError" in str(status(memory)[0].error)
        assert rows(memory) == 0
        embedder.wanted = HashedEmbedder().embed
        eventually(lambda: rows(memory) == 6)
        eventually(lambda: not status(memory)[0].failures)


def test_a_text_that_the_embedder_refuses_stops_none_behind_it(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def particular(texts: Sequence[str]) -> "Matrix":
        if any("13" in text for text in texts):
            raise ValueError("not with me")
        return HashedEmbedder().embed(texts)

    with opened(url, embedder=Watched(particular), upkeep=False) as memory:
        session = memory.session("chat")
        session.append(*[f"message {number}" for number in range(100)])
        (done,) = session.upkeep()
        assert (done.state, done.made, rows(memory)) == ("done", 99, 99)
        assert "entry 14" in caplog.text
        assert session.upkeep()[0].made == 0


def test_a_strategy_whose_question_fails_is_reported(url: str) -> None:
    class Broken(Runs):
        def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
            raise KeyError("a mistake")

    with opened(url, strategy=Broken()) as memory:
        memory.session("chat").append("words")
        eventually(lambda: any("KeyError" in (job.error or "") for job in status(memory)))
        (done,) = memory.session("chat").upkeep()
        assert (done.state, done.error) == ("failed", "KeyError: 'a mistake'")


def test_a_job_that_fails_again_and_again_is_left_alone_for_longer(url: str) -> None:
    with opened(url, embedder=Watched(failing), upkeep=False) as memory:
        session = memory.session("chat")
        session.append("words")
        waits = []
        for failures in range(1, 15):
            (done,) = session.upkeep()
            assert done.state == "failed"
            (job,) = status(memory)
            assert job.failures == failures
            waits.append((job.retry_us - time.time() * 1e6) / 1e6)
        assert 4 < waits[0] <= 10
        assert all(one < 3600.1 for one in waits)
        assert waits[-1] > 1700


def test_a_failed_job_is_not_tried_at_every_turn(url: str) -> None:
    embedder = Watched(failing)
    with opened(url, embedder=embedder) as memory:
        session = memory.session("chat")
        session.append("words")
        eventually(lambda: any(job.failures for job in status(memory)))
        for number in range(5):
            session.append(f"words {number}")
        eventually(lambda: all(lane.idle for lane in worker.LANES))
        assert embedder.texts.count("words") == 1


def test_the_same_summary_twice_is_an_error_and_no_endless_loop(url: str) -> None:
    class Forgetful(Runs):
        def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
            return lambda: Summary(1, 1, 1, "always the same", 3, "a test")

    with opened(url, strategy=Forgetful(), upkeep=False) as memory:
        memory.session("chat").append("words")
        (done,) = memory.session("chat").upkeep()
        assert (done.state, done.made) == ("failed", 1)
        assert "second summary" in str(done.error)


# Several workers, and workers that die.

WORKER = """
import json, os, sys, time
from threadkeep import Budget, Memory, ScriptedBackend
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory import upkeep
from threadkeep.stores import jobs
url, log, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
jobs.CLAIM_US = 1_500_000
upkeep.CLAIM_US = 1_500_000
def note(what):
    with open(log, "a") as file:
        file.write(json.dumps([os.getpid(), time.monotonic(), what]) + chr(10))
class Slow(HashedEmbedder):
    def embed(self, texts):
        note(list(texts))
        time.sleep(pause)
        made = super().embed(texts)
        note(None)
        return made
memory = Memory(url, backend=ScriptedBackend(["a reply"]), budget=Budget(4000, reply=500), embedder=Slow(), upkeep=False)
print(json.dumps([one.state for one in memory.session("chat").upkeep()]))
"""


def filled(url: str, entries: int) -> None:
    with opened(url) as memory:
        memory.session("chat").append(*[f"message {number}" for number in range(entries)])


def noted(log: Path) -> list[tuple[int, float, list[str] | None]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize(("entries", "pause"), [(640, 0.1), (64, 5)], ids=["many short steps", "a step that outlasts a claim"])
def test_two_processes_never_work_at_one_job_together(url: str, tmp_path: Path, entries: int, pause: float) -> None:
    filled(url, entries)
    log = tmp_path / "log"
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, str(log), str(pause)], stdout=subprocess.PIPE) for _ in range(2)]
    outcomes = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [json.loads(outcome) for outcome in outcomes] == [["done"], ["done"]]
    calls = noted(log)
    assert [what is None for _, _, what in calls] == [False, True] * (len(calls) // 2), "two were at it at once"
    texts = [text for _, _, what in calls for text in what or ()]
    assert sorted(texts) == sorted(f"message {number}" for number in range(entries))


def test_a_worker_that_was_asleep_finds_its_job_taken(url: str, tmp_path: Path) -> None:
    filled(url, 640)
    log = tmp_path / "log"
    asleep = subprocess.Popen([sys.executable, "-c", WORKER, url, str(log), "1"], stdout=subprocess.PIPE)
    eventually(lambda: len(noted(log)) >= 3, 60)
    asleep.send_signal(signal.SIGSTOP)
    with opened(url, embedder=HashedEmbedder(), upkeep=False) as memory:
        (done,) = memory.session("chat").upkeep()
        assert (done.state, done.made) == ("done", 640 - BATCH)
        asleep.send_signal(signal.SIGCONT)
        assert json.loads(asleep.communicate(timeout=60)[0]) == ["held"]
        assert [(job.done, job.claimed_until_us) for job in status(memory)] == [(640, 0)]


def test_a_killed_worker_is_taken_over_where_it_was(url: str, tmp_path: Path) -> None:
    filled(url, 640)
    log = tmp_path / "log"
    first = subprocess.Popen([sys.executable, "-c", WORKER, url, str(log), "0.3"], stdout=subprocess.DEVNULL)
    eventually(lambda: len(noted(log)) >= 7, 60)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with opened(url, embedder=HashedEmbedder(), upkeep=False) as memory:
        kept = rows(memory)
        assert 0 < kept < 640
        (done,) = memory.session("chat").upkeep()
        assert (done.state, done.made) == ("done", 640 - kept)
        assert rows(memory) == 640


FORK = """
import os, sys, threading, time
from threadkeep import Budget, Memory, ScriptedBackend
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.stores.schema import vectors
from sqlalchemy import func, select
begun = threading.Event()
class Slow(HashedEmbedder):
    def embed(self, texts):
        if "slow" in texts:
            begun.set()
            time.sleep(3)
        return super().embed(texts)
memory = Memory(sys.argv[1], backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500), embedder=Slow())
memory.session("parent").chat("Hello")
def wait_for(count):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with memory.store.read() as connection:
            if connection.execute(select(func.count()).select_from(vectors)).scalar_one() >= count:
                return
        time.sleep(0.02)
    sys.exit(3)
wait_for(2)
memory.session("parent").append("slow")
begun.wait()
child = os.fork()
if child == 0:
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 3, "a child waits for its parent's worker"
    memory.session("child").chat("Hello again")
    wait_for(4)
    memory.close()
else:
    wait_for(5)
    memory.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_forked_child_has_a_worker_of_its_own(url: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, url], check=True, timeout=60)


ENDING = """
import sys, threading
from threadkeep import Budget, Memory, ScriptedBackend
from threadkeep.embedders.hashed import HashedEmbedder
begun = threading.Event()
class Hanging(HashedEmbedder):
    def embed(self, texts):
        begun.set()
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return super().embed(texts)
memory = Memory(sys.argv[1], backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500), embedder=Hanging())
memory.session("chat").append("Hello")
begun.wait()
"""


def test_the_end_of_the_process_waits_for_no_hanging_model(url: str) -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", ENDING, url], check=True, timeout=60)
    assert time.monotonic() - began < 30


# Closing, and memories that are gone.


def test_closing_lets_the_running_step_finish_and_loses_nothing(url: str, gate: threading.Event) -> None:
    begun = threading.Event()

    def slow(texts: Sequence[str]) -> "Matrix":
        begun.set()
        gate.wait(1)
        return HashedEmbedder().embed(texts)

    memory = opened(url, embedder=Watched(slow))
    memory.session("chat").append(*[f"message {number}" for number in range(200)])
    assert begun.wait(20)
    memory.close()
    assert all(lane.idle for lane in worker.LANES)
    with opened(url, embedder=Watched(), upkeep=False) as again:
        assert rows(again) == BATCH
        (done,) = again.session("chat").upkeep()
        assert (done.state, done.made) == ("done", 200 - BATCH)


def test_closing_leaves_a_step_that_takes_too_long(url: str, soon: None, gate: threading.Event) -> None:
    begun = threading.Event()

    def slow(texts: Sequence[str]) -> "Matrix":
        begun.set()
        gate.wait()
        return HashedEmbedder().embed(texts)

    memory = opened(url, embedder=Watched(slow))
    memory.session("chat").append("words")
    assert begun.wait(20)
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 5
    with opened(url, embedder=Watched(), upkeep=False) as again:
        (done,) = again.session("chat").upkeep()
        assert (done.state, done.made) == ("done", 1)


def test_the_worker_keeps_no_memory_alive(url: str) -> None:
    def used() -> "weakref.ref[SQLStore]":
        memory = opened(url, embedder=HashedEmbedder())
        memory.session("chat").chat("Hello")
        eventually(lambda: rows(memory) == 2)
        return weakref.ref(memory.store)

    store = used()
    eventually(lambda: gc.collect() >= 0 and store() is None)


def test_a_session_that_is_deleted_meanwhile_ends_its_job(url: str, gate: threading.Event) -> None:
    begun = threading.Event()

    def slow(texts: Sequence[str]) -> "Matrix":
        begun.set()
        gate.wait(20)
        return HashedEmbedder().embed(texts)

    with opened(url, embedder=Watched(slow)) as memory:
        memory.session("chat").append("words")
        assert begun.wait(20)
        memory.session("chat").delete()
        gate.set()
        eventually(lambda: all(lane.idle for lane in worker.LANES))
        assert rows(memory) == 0


# Small things.


@pytest.mark.parametrize("name", ["short", "x" * 300, "ünïcödé", "nul \0", "half \ud800", "", "new\nline"])
def test_every_name_makes_a_kind_that_a_column_holds(name: str) -> None:
    kind = kind_of("summaries", name)
    assert len(kind) <= KIND_LENGTH
    assert kind.isascii()
    assert kind.isprintable()
    assert kind == kind_of("summaries", name) != kind_of("summaries", name + "other")
