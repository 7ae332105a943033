"""What all tests share: how hypothesis searches, no real model by accident, and a memory in a file of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("threadkeep.testing", "threadkeep.store_contract")

from threadkeep import Budget, Context, Memory, ScriptedBackend, Session, TiktokenCounter  # noqa: E402  # the rewriting comes first
from threadkeep.backends import llama_cpp, llama_engine  # noqa: E402
from threadkeep.models.fetch import locate  # noqa: E402
from threadkeep.models.registry import MODELS  # noqa: E402

settings.register_profile("threadkeep", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI")))
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
    monkeypatch.setattr(llama_cpp, "locate", lambda model, **more: refuse() if model in MODELS else locate(model, **more))


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


@pytest.fixture
def memory(url: str) -> Iterator[Memory]:
    """A memory in a file, answered by a script."""
    with Memory(url, backend=ScriptedBackend(echo), budget=Budget(4000, reply=500)) as made:
        yield made


@pytest.fixture
def session(memory: Memory) -> Session:
    """A session there."""
    return memory.session("chat", owner="ada")
