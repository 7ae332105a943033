"""What all tests share: how hypothesis searches, no real model by accident, and a memory in a file of its own."""

import importlib.machinery
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite(
    "threadkeep.testing",
    "threadkeep.store_contract",
    "threadkeep.blob_contract",
    "threadkeep.owner_contract",
    "threadkeep.branch_contract",
    "threadkeep.embedder_contract",
)

import databases  # noqa: E402  # the rewriting comes first

from threadkeep import Budget, Context, Memory, ScriptedBackend, Session, TiktokenCounter  # noqa: E402
from threadkeep.backends import llama_cpp, llama_engine  # noqa: E402
from threadkeep.embedders import sentence_transformer  # noqa: E402
from threadkeep.models.fetch import locate  # noqa: E402
from threadkeep.models.registry import MODELS  # noqa: E402

CI = bool(os.environ.get("CI"))
settings.register_profile(  # where the examples are always the same, more of them tell less
    "threadkeep", max_examples=25 if CI else 60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=CI
)
settings.register_profile("thorough", settings.get_profile("threadkeep"), max_examples=10_000, derandomize=False)  # --hypothesis-profile
settings.load_profile("threadkeep")


@pytest.fixture(autouse=True)
def no_model_by_accident(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is not marked `model` fails when it starts one."""
    if request.node.get_closest_marker("model") is not None:
        return

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("this test asks a real model: mark it with @pytest.mark.model, or give its Memory a ScriptedBackend")

    monkeypatch.setattr(llama_engine, "_start", refuse)
    for module in (llama_cpp, sentence_transformer):
        monkeypatch.setattr(module, "locate", lambda model, **more: refuse() if model in MODELS else locate(model, **more))


def echo(context: Context) -> str:
    """A reply that names the message it answers."""
    return f"reply to {context.messages[-1]['content']}"


@pytest.fixture
def counter() -> TiktokenCounter:
    return TiktokenCounter("o200k_base")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'chat.db'}"


@pytest.fixture(params=databases.KINDS)
def server(request: pytest.FixtureRequest) -> databases.Kind:
    """Each kind of database server, one after the other."""
    kind: databases.Kind = request.param
    return kind


@pytest.fixture
def server_url(server: databases.Kind) -> str:
    """A server's database with this release's tables and no rows."""
    return databases.clean_database(server)


@pytest.fixture(params=("sqlite", *databases.KINDS))
def any_url(request: pytest.FixtureRequest, url: str) -> str:
    """A database without any session: a SQLite file, and each server's."""
    return url if request.param == "sqlite" else databases.clean_database(request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for kind in databases.KINDS:
        terminalreporter.write_line(f"{databases.NAMES[kind]}: {databases.version(kind)}")


@pytest.fixture
def memory(url: str) -> Iterator[Memory]:
    """A memory in a file, answered by a script."""
    with Memory(url, backend=ScriptedBackend(echo), budget=Budget(4000, reply=500)) as made:
        yield made


@pytest.fixture
def session(memory: Memory) -> Session:
    """A session there."""
    return memory.session("chat", owner="ada")


class FakeLibrary:
    """Stands for sentence-transformers and what it needs: three numbers a text, and the record of what it was asked."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.asked: list[list[str]] = []
        self.fails: str | None = None
        self.number = 1.0

    def load(self, folder: str, *, local_files_only: bool) -> "FakeLibrary":
        if self.fails:
            raise OSError(self.fails)
        self.loaded.append(folder)
        return self

    max_seq_length = 256
    device = SimpleNamespace(type="cpu")

    def encode(self, texts: list[str], *, batch_size: int, convert_to_numpy: bool, show_progress_bar: bool) -> object:
        if self.fails:
            raise RuntimeError(self.fails)
        self.asked.append(texts)
        found = [[1 + 9 * (word in text.casefold()) for word in ("hen", "boat", "rain")] for text in texts]
        return np.array(found, dtype=np.float32) * self.number


@pytest.fixture
def fake_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    """A library in the place of the real one, whether that is installed or not."""
    library = FakeLibrary()
    bars = SimpleNamespace(is_progress_bar_enabled=lambda: True, disable_progress_bar=lambda: None, enable_progress_bar=lambda: None)
    torch: dict[str, object] = {"autocast": lambda device, dtype, enabled: nullcontext(), "bfloat16": None, "cpu": SimpleNamespace()}
    modules: dict[str, dict[str, object]] = {
        "sentence_transformers": {"SentenceTransformer": library.load},
        "transformers": {},
        "transformers.utils": {"logging": bars},
        "torch": torch,
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return library
