"""`threadkeep upkeep`: how far the slow work is, and catching up with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from threadkeep import Budget, Memory, ScriptedBackend
from threadkeep.cli import app
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory.errors import EmbedderError

if TYPE_CHECKING:
    from threadkeep.memory.index import Matrix


class Broken(HashedEmbedder):
    def embed(self, texts: Sequence[str]) -> "Matrix":
        raise EmbedderError("no model today")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Two owners with a session each, of which the first is embedded and the second failed."""
    path = tmp_path / "chat.db"
    for owner, embedder in (("ada", HashedEmbedder()), ("bob", Broken())):
        with Memory(
            f"sqlite:///{path}", backend=ScriptedBackend([]), budget=Budget(4000, reply=500), embedder=embedder, upkeep=False
        ) as memory:
            memory.session("chat", owner=owner).append("one", "two", "three")
            memory.session("chat", owner=owner).upkeep()
    return path


def run(database: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["upkeep", "--database", str(database), *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    return done.stderr if code == 2 else done.stdout


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No real model is loaded."""
    monkeypatch.setattr("threadkeep.cli.SentenceTransformerEmbedder", lambda model, cache: HashedEmbedder())


def test_the_status_shows_first_what_fails(database: Path) -> None:
    said = run(database, "--status").splitlines()
    assert said[0].split() == ["owner", "session", "job", "done", "failures", "next", "try", "error"]
    assert said[1].split()[:7] == ["bob", "chat", "embed:hashed-words-256", "0", "of", "3", "1"]
    assert "EmbedderError: no model" in said[1]
    assert said[-1].split() == ["ada", "chat", "embed:hashed-words-256", "3", "of", "3"]


def test_the_status_is_there_for_scripts(database: Path) -> None:
    first, second = json.loads(run(database, "--status", "--json"))
    assert (first["owner"], first["done"], first["entries"], first["failures"]) == ("bob", 0, 3, 1)
    assert first["retry_at"] > "2020"
    assert second["error"] is second["retry_at"] is None
    assert [job["owner"] for job in json.loads(run(database, "--status", "--json", "--owner", "ada"))] == ["ada"]
    assert json.loads(run(database, "--status", "--json", "--limit", "1")) == [first]
    assert run(database, "--status", "--owner", "nobody") == "There are no jobs of upkeep here.\n"


@pytest.mark.usefixtures("hashed")
def test_it_catches_up_with_what_is_missing_whatever_failed_before(database: Path) -> None:
    assert "3 vectors made in 1 sessions." in run(database, "--embedder", "all-minilm-l6-v2")
    assert "0 vectors made in 0 sessions." in run(database, "--embedder", "all-minilm-l6-v2")
    assert [job["done"] for job in json.loads(run(database, "--status", "--json"))] == [3, 3]


def test_what_fails_again_is_said_and_ends_with_an_error(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.cli.SentenceTransformerEmbedder", lambda model, cache: Broken())
    assert "failed: bob / chat: EmbedderError: no model today" in run(database, "--embedder", "all-minilm-l6-v2", code=1)
    (outcome,) = json.loads(run(database, "--embedder", "all-minilm-l6-v2", "--json", code=1))
    assert (outcome["owner"], outcome["state"], outcome["made"]) == ("bob", "failed", 0)


def test_it_has_to_be_told_what_to_do(database: Path) -> None:
    assert "--status" in run(database, code=2)
