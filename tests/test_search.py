"""Searching a session: the ranking of recall, with what each score is made of."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from threadkeep import AsyncMemory, Budget, InvalidSetting, Memory, NotFound, TiktokenCounter
from threadkeep.cli import app
from threadkeep.embedders.hashed import HashedEmbedder

LOG = (
    "The ferry to Hydra leaves at noon.",
    "Thank you.",
    "My dentist moved to Elm Street.",
    "I will remember that.",
)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    memory = Memory(f"sqlite:///{tmp_path}/chat.db", counter=TiktokenCounter("o200k_base"), budget=Budget(100), upkeep=False)
    memory.session("travel").append(*LOG[:2])
    memory.session("health").append(*LOG[2:])
    memory.session("travel", owner="bob").append("Bob's dentist is in Rome.")
    return memory


def test_a_search_finds_what_was_said_with_its_score_explained(memory: Memory) -> None:
    best, *others = memory.session("travel").search("When does the ferry leave?")
    assert best.entry.message.text == LOG[0]
    assert best.session == "travel"
    assert best.score == pytest.approx(best.words + best.meaning + best.neighbours + best.date, abs=1e-5)
    assert best.words > 0
    assert best.meaning == 0, "without an embedder it ranks by words alone"
    assert all(other.score < best.score for other in others)


def test_a_search_of_the_owner_finds_what_other_sessions_said_and_nothing_of_other_owners(memory: Memory) -> None:
    session = memory.session("travel")
    assert [found.entry.message.text for found in session.search("dentist")] == []
    found = session.search("dentist", scope="owner")
    assert (found[0].session, found[0].entry.message.text) == ("health", LOG[2])
    assert not any("Bob" in one.entry.message.text for one in found)


def test_a_search_gives_no_more_than_it_was_asked_for(memory: Memory) -> None:
    assert len(memory.session("health").search("dentist", 1)) == 1


def test_a_search_by_meaning_takes_the_vectors_that_upkeep_made(tmp_path: Path) -> None:
    with Memory(
        f"sqlite:///{tmp_path}/chat.db",
        counter=TiktokenCounter("o200k_base"),
        budget=Budget(100),
        embedder=HashedEmbedder(),
        upkeep=False,
    ) as memory:
        session = memory.session("chat")
        session.append(*LOG)
        session.upkeep()
        assert session.search("the ferry to Hydra")[0].meaning > 0


def test_a_search_stores_nothing(memory: Memory) -> None:
    session = memory.session("travel")
    session.search("ferry")
    assert len(session.entries()) == 2


def test_the_async_twin_finds_the_same(memory: Memory, tmp_path: Path) -> None:
    async def found() -> list[object]:
        async with AsyncMemory(f"sqlite:///{tmp_path}/chat.db", counter=TiktokenCounter("o200k_base"), budget=Budget(100)) as twin:
            return [one.entry.seq for one in await twin.session("travel").search("ferry", scope="owner")]

    assert asyncio.run(found()) == [one.entry.seq for one in memory.session("travel").search("ferry", scope="owner")]


@pytest.mark.parametrize(("text", "k", "scope"), [(5, 1, "session"), ("x", 0, "session"), ("x", True, "session"), ("x", 1, "world")])
def test_a_search_refuses_what_it_cannot_do(memory: Memory, text: str, k: int, scope: str) -> None:
    with pytest.raises(InvalidSetting, match="search"):
        memory.session("travel").search(text, k, scope=scope)  # type: ignore[arg-type]


def test_a_search_of_no_session_is_an_error(memory: Memory) -> None:
    with pytest.raises(NotFound, match="no session 'nowhere'"):
        memory.session("nowhere").search("x")


def test_the_command_line_searches(memory: Memory, tmp_path: Path) -> None:
    database = f"{tmp_path}/chat.db"
    told = CliRunner().invoke(app, ["search", "travel", "ferry", "-d", database])
    assert told.exit_code == 0
    assert LOG[0] in told.stdout
    assert "words" in told.stdout
    told = CliRunner().invoke(app, ["search", "travel", "dentist", "--everywhere", "--json", "-d", database])
    (first, *_) = json.loads(told.stdout)
    assert (first["session"], first["message"]["content"]) == ("health", LOG[2])
    assert "Nothing was said about it." in CliRunner().invoke(app, ["search", "travel", "zebra", "-d", database]).stdout
