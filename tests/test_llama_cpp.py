"""The model that runs in the process: exact counts, streaming, leaving early, a fork, bad input. With the smallest real model."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from threadkeep.backends.base import Backend, Event
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, InvalidSetting, ModelUnavailable
from threadkeep.memory.message import Message, ToolCall
from threadkeep.memory.tokens import TokenCounter

pytestmark = pytest.mark.model
SMALLEST = "smollm2-135m"
FOLDING = (
    "{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.s = m.content %}{% elif m.role == 'user' %}"
    "[INST] {{ ns.s }}\n{{ m.content | trim }} [/INST]{% set ns.s = '' %}{% else %} {{ m.content | trim }} {% endif %}{% endfor %}"
)
STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def context(*messages: Message, reply: int = 8, **more: object) -> Context:
    sent = [message.to_dict() for message in messages]
    return Context(sent, Budget(4096, reply=reply), 0, True, "", "", (), (), **more)  # type: ignore[arg-type]


def prompt_tokens(backend: LlamaCpp, *messages: Message) -> int:
    *_, last = backend.stream(context(*messages, reply=1))
    assert last.usage is not None
    return last.usage.prompt_tokens


@pytest.fixture(scope="module")
def backend() -> Iterator[LlamaCpp]:
    made = LlamaCpp(SMALLEST, window=4096, parallel=2, temperature=0, threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def folding() -> Iterator[LlamaCpp]:
    made = LlamaCpp(SMALLEST, window=2048, parallel=1, temperature=0, threads=1, chat_template=FOLDING)
    yield made
    made.close()


def test_it_is_a_backend_with_a_counter(backend: LlamaCpp) -> None:
    assert isinstance(backend, Backend)
    assert isinstance(backend.counter, TokenCounter)
    assert backend.candidates({}) == [backend]
    assert (backend.name, backend.window) == (SMALLEST, 4096)


def test_the_last_event_says_why_it_ended_and_what_it_took(backend: LlamaCpp) -> None:
    *events, last = backend.stream(context(Message.system("Be brief."), Message.user("What is 2+3?"), reply=5))
    assert "".join(event.text for event in events)
    assert last.finish == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    assert 0 < (last.usage.first_token_ms or 0) <= (last.usage.total_ms or 0)
    assert all(event.finish is None for event in events)


def test_the_same_context_again_is_read_from_the_cache(backend: LlamaCpp) -> None:
    asked = context(Message.user("Tell me of the lighthouse on the northern cape. " * 5), reply=2)
    first = list(backend.stream(asked))[-1].usage
    second = list(backend.stream(asked))[-1].usage
    assert first is not None
    assert second is not None
    assert second.cached_tokens > first.prompt_tokens * 0.9


AWKWARD = [
    [Message.user("hello")],
    [Message.system("Be brief."), Message.user("\n\nhello \n"), Message.assistant(" hi"), Message.user("")],
    [
        Message.user("a<|im_end|>\n<|im_start|>system\nb"),
        Message.assistant("<|im_start|>"),
        Message.system("late"),
        Message.user("<|endoftext|>"),
    ],
    [Message.user("lone \ud800 surrogate, NUL \0, 🙂"), Message.user("twice"), Message.assistant("last")],
    [Message.user("<<|im_end|>|im_end|>")],
]


@pytest.mark.parametrize("messages", AWKWARD)
def test_what_is_counted_is_what_the_engine_takes(backend: LlamaCpp, messages: list[Message]) -> None:
    counts = [backend.counter.count(message).tokens for message in messages]
    taken = prompt_tokens(backend, *messages)
    assert backend.counter.count_request(messages).tokens == taken
    assert backend.counter.count_request(messages, counts=counts).tokens == taken


@pytest.mark.parametrize("messages", AWKWARD[:2])
def test_a_template_that_does_not_add_up_is_counted_whole(folding: LlamaCpp, messages: list[Message]) -> None:
    assert not folding.counter.additive
    counts = [folding.counter.count(message).tokens for message in messages]
    assert folding.counter.count_request(messages, counts=counts).tokens == prompt_tokens(folding, *messages)


def test_a_control_token_in_a_text_stays_text(backend: LlamaCpp) -> None:
    plain = backend.counter.count(Message.user("x")).tokens
    assert backend.counter.count(Message.user("<|im_end|>")).tokens > plain + 3


def test_a_profile_says_what_the_template_shows(backend: LlamaCpp, folding: LlamaCpp) -> None:
    assert (backend.profile.tools, backend.profile.images, backend.profile.system) == (True, False, "anywhere")
    assert not backend.profile.alternation
    assert folding.profile.system == "first"
    strict = LlamaCpp(SMALLEST, window=512, parallel=1, chat_template=STRICT)
    assert strict.profile.alternation
    assert strict.counter.count(Message.user("x")).exact == strict.counter.additive
    strict.close()


def test_equal_names_count_alike_and_another_template_has_another_name(backend: LlamaCpp, folding: LlamaCpp) -> None:
    assert LlamaCpp(SMALLEST).counter.name == backend.counter.name != folding.counter.name


def test_a_call_whose_arguments_are_no_json_can_be_counted(backend: LlamaCpp) -> None:
    call = Message.assistant("I look.", tool_calls=[ToolCall("c1", "look", "not json <|im_end|>")])
    assert backend.counter.count(call).tokens > 0


def wait_until_free(backend: LlamaCpp) -> float:
    began = time.perf_counter()
    while backend.busy:
        assert time.perf_counter() - began < 10
        time.sleep(0.002)
    return time.perf_counter() - began


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_leaving_while_it_speaks_frees_the_slot(backend: LlamaCpp, how: str) -> None:
    stream = backend.stream(context(Message.user("Count from one to one thousand."), reply=500))
    for event in stream:
        if event.text:
            break
    if how == "closed":
        stream.close()
    else:
        del stream
    assert wait_until_free(backend) < 0.5  # alone it is 0.02; the machine may be shared


def test_leaving_while_it_reads_frees_the_slot(backend: LlamaCpp) -> None:
    stream = backend.stream(context(Message.user("lorem ipsum dolor " * 500)))
    assert next(stream) == Event()
    stream.close()
    assert wait_until_free(backend) < 10  # at rest, half a second


def test_a_context_over_the_window_is_the_engines_own_error(backend: LlamaCpp) -> None:
    with pytest.raises(BackendError, match="4096"):
        list(backend.stream(context(Message.user("word " * 5000))))


def test_a_schema_that_is_none_is_a_typed_error(backend: LlamaCpp) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(InvalidSetting, match="nonsense"):
        next(backend.stream(context(Message.user("x"), response_format=schema)))


def speak_in_child(backend: LlamaCpp, said: "multiprocessing.SimpleQueue[str]") -> None:
    said.put("".join(event.text for event in backend.stream(context(Message.user("What is 2+3?"), reply=4))))


@pytest.mark.skipif(sys.platform != "linux", reason="fork() is for Linux")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_an_engine_of_its_own(backend: LlamaCpp) -> None:
    here = "".join(event.text for event in backend.stream(context(Message.user("What is 2+3?"), reply=4)))
    said: multiprocessing.SimpleQueue[str] = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(target=speak_in_child, args=(backend, said))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert said.get() == here


@pytest.mark.skipif(sys.platform != "linux", reason="fork() is for Linux")
@pytest.mark.parametrize("use", ["pass", "assert backend.counter.additive"])
def test_a_child_that_ends_by_itself_ends_well(use: str) -> None:
    program = (
        "import os, sys\n"
        "from threadkeep.backends.llama_cpp import LlamaCpp\n"
        f"backend = LlamaCpp({SMALLEST!r}, window=512, parallel=1)\n"
        "assert backend.counter.additive\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        f"    {use}\n"
        "    sys.exit(7)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = Path(__file__).parent.parent
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (7, "")


@pytest.mark.parametrize(
    "settings", [{"window": 0}, {"parallel": 0}, {"temperature": -1}, {"stop": "x"}, {"threads": 0}, {"seed": "x"}, {"window": True}]
)
def test_a_setting_out_of_range_is_named(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(settings))):
        LlamaCpp(SMALLEST, **settings)  # type: ignore[arg-type]


def test_a_window_larger_than_the_model_was_trained_for_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="8192"):
        _ = LlamaCpp(SMALLEST, window=9000).counter


def test_what_is_no_model_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no model named"):
        LlamaCpp("nobody")
    with pytest.raises(InvalidSetting, match="embedding"):
        LlamaCpp("all-minilm-l6-v2")
    for content in (b"", b"not a model", b"GGUF" + b"\0" * 8 + b"\xff" * 40):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(ModelUnavailable, match=r"bad\.gguf"):
            _ = LlamaCpp(tmp_path / "bad.gguf").counter
