"""The promises hold on PostgreSQL and MariaDB, and the same log gives the same bytes on every database."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadkeep import (
    Budget,
    CannotFit,
    Compose,
    Memory,
    Recall,
    RollingSummary,
    ScriptedBackend,
    Session,
    SlidingWindow,
    Strategy,
    SummaryTree,
    TiktokenCounter,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory.message import JSON
from threadkeep.promises import Log
from threadkeep.random_logs import logs, talk
from threadkeep.random_strategies import compositions
from threadkeep.strategies.default import default_strategy
from threadkeep.testing import WINDOW, StrategyContract

FEW = 2
COUNTER = TiktokenCounter("o200k_base")
MONDAY = datetime(2023, 5, 1, 9, 0, tzinfo=UTC)
MARKS: tuple[JSON, ...] = ({"tags": ["fact"], "importance": 0.9}, {"tags": ["home"]}, {"importance": 0.2}, {})
STRATEGIES: tuple[Strategy, ...] = (
    default_strategy(),
    SlidingWindow(),
    Recall(floor=0),
    Recall(scope="owner", floor=0),
    RollingSummary(span=40, tokens=40, recent=100),
    SummaryTree(span=40, fan=2, tokens=30, recent=100),
    Compose(SummaryTree(span=40, fan=2, tokens=30, recent=100), Recall(floor=0), shares=(0.5, 0.5)),
)


class OnServers(StrategyContract):
    """The contract with few examples: how often it is tried is SQLite's business."""

    @pytest.fixture
    def store_url(self, server: databases.Kind) -> str:
        return databases.clean_database(server)

    @pytest.fixture(autouse=True)
    def few(self) -> Iterator[None]:
        settings.register_profile("few", settings.get_profile("threadkeep"), max_examples=FEW)
        settings.load_profile("few")
        yield
        settings.load_profile("threadkeep")


class TestTheDefault(OnServers):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return default_strategy()


class TestRecall(OnServers):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Recall(floor=0)


class TestRollingSummary(OnServers):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return RollingSummary(span=40, tokens=40, recent=100)


class TestSummaryTree(OnServers):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return SummaryTree(span=40, fan=2, tokens=30, recent=100)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of every database there is, SQLite first."""
    here = f"sqlite:///{Path(tmp_path_factory.mktemp('same')) / 'chat.db'}"
    return [here, *(databases.clean_database(kind) for kind in databases.KINDS if not isinstance(databases.server(kind), str))]


_numbers = count(1)


def lay(session: Session, log: Log) -> None:
    """A log with its pins, marked, said a minute apart, with all that upkeep makes before its live message."""
    for at, message in enumerate(log.messages):
        if at and at == log.live - 1:
            session.upkeep()
        session.append(message, metadata=MARKS[at % len(MARKS)], created_at=MONDAY + timedelta(minutes=at * 7))
    for seq in sorted(seq for seq in log.pinned if seq in log.showable or seq <= log.leading):
        session.pin(seq)


def said_of(session: Session, ceiling: int) -> list[str]:
    """All that is told of it: contexts, their records, what became of each entry, what a search finds."""
    told: list[str] = []
    for message in (None, "What of the train and the parcel, number 37?"):
        try:
            made = session.context(message, budget=Budget(ceiling + 7, reply=7))
        except CannotFit as refusal:
            told.append(str(refusal))
            continue
        told += [
            json.dumps(made.messages),
            json.dumps(made.manifest),
            str(made.explain()),
            json.dumps(made.explain().data),
            made.cache_note,
        ]
    for scope in ("session", "owner"):
        told += [str((one.session, one.entry.seq, one.score)) for one in session.search("train parcel 37", scope=scope)]
    told += [str((entry.seq, entry.raw, entry.metadata, entry.tokens, entry.status, entry.created_at)) for entry in session.entries()]
    return told


def everywhere(urls: list[str], strategy: Strategy, given_logs: list[Log], ceiling: int) -> list[list[str]]:
    """The same of every database, of an owner that nobody else is."""
    owner, answers = f"owner {next(_numbers)}", []
    for url in urls:
        with ExitStack() as stack:
            backend = ScriptedBackend(lambda _: "well then", counter=COUNTER, window=WINDOW)
            memory = Memory(url, backend=backend, strategy=strategy, embedder=HashedEmbedder(), upkeep=False)
            stack.enter_context(memory)
            sessions = [memory.session(f"session {number}", owner=owner) for number in range(len(given_logs))]
            for session, log in zip(sessions, given_logs, strict=True):
                lay(session, log)
            answers.append([line for session in sessions for line in said_of(session, ceiling)])
    return answers


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_the_same_log_gives_the_same_bytes_on_every_database(urls: list[str], strategy: Strategy) -> None:
    first, *others = everywhere(urls, strategy, [talk(3, 8), talk(4, 4)], 300)
    assert len(first) > 60
    for other in others:
        assert other == first


def test_random_compositions_give_the_same_bytes_on_every_database(urls: list[str]) -> None:
    @settings(max_examples=FEW)
    @given(compositions, logs().filter(lambda log: bool(log.messages)), st.integers(50, 2000))
    def holds(strategy: Strategy, log: Log, ceiling: int) -> None:
        first, *others = everywhere(urls, strategy, [log], ceiling)
        for other in others:
            assert other == first

    holds()
