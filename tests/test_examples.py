"""Every example runs as its reader would run it."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from threadkeep import Memory
from threadkeep.memory.quotation import summarised

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str, folder: Path, said: str = "", environment: dict[str, str] | None = None) -> str:
    """An example's output; it runs in an empty folder, its warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        cwd=folder,
        input=said,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        check=False,  # what it wrote to stderr says more
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Provider(BaseHTTPRequestHandler):
    """A server on loopback that speaks as much of OpenAI's protocol as a client needs."""

    asked: list[dict[str, object]]

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "gpt-4.1-nano-2025-04-14",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer {len(self.asked)}"}}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        """A test says nothing of its own."""


@pytest.fixture
def provider() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A provider's URL, and what it was asked."""
    asked: list[dict[str, object]] = []
    handler = type("Provider", (Provider,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()
        serving.join()


def test_a_strategy_of_ones_own_keeps_the_beginning_and_the_end(tmp_path: Path) -> None:
    output = run("custom_strategy.py", folder=tmp_path)

    assert "how it began" in output
    assert "left out" in output
    assert "the newest" in output
    assert "BeginningAndEnd(first=2)" in output


def test_owner_memory(tmp_path: Path) -> None:
    output = run("owner_memory.py", folder=tmp_path)
    assert output.count("XJ-4471") == 2
    assert "in monday] user: The serial number" in output
    assert "QQ-9000" not in output


def test_a_summariser_of_ones_own_writes_what_the_window_no_longer_shows(tmp_path: Path) -> None:
    output = run("own_summariser.py", folder=tmp_path)

    assert output == f"{summarised(['My lamp broke. The shade is cracked.'])}\n"


def test_a_client_of_ones_own_is_asked_once_for_each_request(tmp_path: Path, provider: tuple[str, list[dict[str, object]]]) -> None:
    url, asked = provider
    environment = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none is needed here"}

    first = run("own_client.py", folder=tmp_path, environment=environment)
    again = run("own_client.py", folder=tmp_path, environment=environment)

    assert first == again
    assert first.splitlines()[1::2] == ["  answer 1", "  answer 2"]
    assert len(asked) == 2
    assert [message["content"] for message in asked[1]["messages"]][2:] == ["answer 1", "Which order was it?"]  # type: ignore[attr-defined]  # JSON
    assert asked[1]["max_tokens"] == 500
    with Memory(f"sqlite:///{tmp_path / 'own_client.db'}") as memory:
        assert [call.prompt_tokens for call in memory.session("support-42", owner="ada").calls()] == [40, 40]


def test_two_strategies_are_compared(tmp_path: Path) -> None:
    output = run("compare_strategies.py", folder=tmp_path)

    assert "1024 SlidingWindow" in output
    assert "4096 oracle                   evidence recall 1.00" in output
    assert "SlidingWindow − BM25Turns(neighbours=1) = −" in output.replace("-", "−")


@pytest.mark.model
def test_a_local_chat_goes_on_where_it_was(tmp_path: Path) -> None:
    said = run("local_chat.py", "smollm2-135m", folder=tmp_path, said="Say good morning.\n")
    run("local_chat.py", "smollm2-135m", folder=tmp_path, said="And good night.\n")

    assert "completion_tokens" in said
    with Memory(f"sqlite:///{tmp_path / 'local_chat.db'}") as memory:
        entries = memory.session("local").entries()
    assert [entry.role for entry in entries] == ["user", "assistant"] * 2
    assert all(entry.message.text for entry in entries)


@pytest.mark.model
def test_a_function_is_called_inside_the_turn(tmp_path: Path) -> None:
    lines = run("weather_tool.py", "smollm2-135m", folder=tmp_path).splitlines()

    assert [line.split(":")[0] for line in lines[:3]] == ["user", "assistant", "tool"]
    assert re.fullmatch(r'assistant: weather\({"city": "(Oslo|Bergen|Palermo)".*}\)', lines[1])
    assert '"sky":"clear"' in lines[2]
    assert lines[3].startswith("assistant: ")


@pytest.mark.model
def test_a_text_becomes_an_object(tmp_path: Path) -> None:
    lines = run("extract_json.py", "smollm2-135m", folder=tmp_path).splitlines()

    assert re.fullmatch("order [0-9]{1,5}, paid by (card|cash|invoice)", lines[0])
    assert 1 <= len(lines[1:]) <= 3
    assert all(re.fullmatch("[0-9]{1,2} x .*", line) for line in lines[1:])


@pytest.mark.model
def test_two_models_share_a_conversation(tmp_path: Path) -> None:
    output = run("two_models.py", "smollm2-135m", "smollm2-135m", folder=tmp_path)

    assert "tier 1" in output
    assert "tier 2" in output
    assert output.endswith("0.00 dollars\n")


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text()

    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tests] == []
