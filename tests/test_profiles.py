"""One log, sent to each provider as that provider takes it; the log stays as it is. What each takes is written here a second time."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from openai_server import serving

from threadkeep import Memory, Message, OpenAIBackend, Profile, Session, ToolCall
from threadkeep.backends.profiles import ANTHROPIC, COMPATIBLE, DEEPSEEK, GEMINI, MISTRAL, OPENAI, PROFILES, is_publisher, profile_for

TOOL = {"type": "function", "function": {"name": "look_up", "description": "", "parameters": {"type": "object", "properties": {}}}}
Sent = Sequence[dict[str, Any]]


def calling(*ids: str, text: str | None = None) -> Message:
    return Message.assistant(text, tool_calls=[ToolCall(identity, "look_up", '{"order": 66}') for identity in ids])


LOG = (
    Message.user("Where is my order?", name="Ada L."),
    Message.assistant("Let me look.", tool_calls=()),
    calling("functions.look_up:0", "ünï/cödé", text="Two at once."),
    Message.tool("It is in Linz.", tool_call_id="functions.look_up:0", name="look_up"),
    Message.tool("It is paid.", tool_call_id="ünï/cödé"),
    Message("assistant", "It is in Linz.", extra={"reasoning_content": "hm"}),
    Message.system("The shop closes at six."),
    Message("developer", "Answer in one sentence."),
    Message.user("And the other one?"),
    calling("functions.look_up:0"),
    Message.tool("It is in Graz.", tool_call_id="functions.look_up:0"),
    Message.assistant("In Graz."),
    Message.user("Wait."),
    Message.user("One more: " + "c" * 60),
    calling("call_" + "x" * 60),
    Message.assistant("I was interrupted."),
    Message.user("Say something."),
    Message.assistant(""),
    Message.user("Call it."),
    calling("quiet"),
    Message.tool("", tool_call_id="quiet"),
    Message.assistant("Where were we?"),
)


@pytest.fixture
def sent(url: str) -> Iterator[Callable[[Profile], tuple[Sent, Session]]]:
    """The request that a session with this log becomes for a profile, as the server got it."""
    memories = []

    def send(profile: Profile) -> tuple[Sent, Session]:
        with serving() as server:
            backend = OpenAIBackend("any-model", base_url=server.url, window=8000, profile=profile)
            memory = Memory(url, backend=backend, instructions="You help Ada.")
            memories.append((memory, backend))
            session = memory.session("chat")
            session.append(Message.system("You are kind."), *LOG)
            session.pin(7)
            before = [entry.message for entry in session.entries()]
            with session.stream("And now?", tools=[TOOL]) as stream:
                for _ in stream:
                    pass
            assert [entry.message for entry in session.entries()[: len(before)]] == before
            assert stream.context.tokens <= 8000
            messages = json.loads(json.dumps(server.asked[0].body["messages"]))
        return messages, session

    yield send
    for memory, backend in memories:
        memory.close()
        backend.close()


def ids_of(messages: Sent) -> list[str]:
    return [call["id"] for message in messages for call in message.get("tool_calls", ())]


def paired(messages: Sent) -> None:
    """What all of them demand: each call has its result right behind it, under an id that no other call has."""
    ids = ids_of(messages)
    assert len(ids) == len(set(ids)) == 5
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
        else:
            assert not open_calls
        open_calls += [call["id"] for call in message.get("tool_calls", ())]
    assert not open_calls
    assert messages[-1] == {"role": "user", "content": messages[-1]["content"]}
    assert messages[-1]["content"].endswith("And now?")


def one_system_message(messages: Sent) -> None:
    assert [message["role"] for message in messages].count("system") == 1
    assert messages[0]["role"] == "system"
    assert {message["role"] for message in messages} <= {"system", "user", "assistant", "tool"}
    assert "You help Ada." in messages[0]["content"]
    assert "You are kind." in messages[0]["content"]
    told = "\n".join(message["content"] for message in messages if message["role"] == "user")
    assert "The shop closes at six." in told
    assert "Answer in one sentence." in told


def in_turns(messages: Sent) -> None:
    assert messages[1]["role"] == "user"
    for one, after in pairwise(messages[1:]):
        assert (one["role"], after["role"]) not in (("user", "user"), ("assistant", "assistant"))
        assert after["role"] != "tool" or one["role"] in ("assistant", "tool")


def keys_of(messages: Sent) -> set[str]:
    return {key for message in messages for key in message}


def none_empty(messages: Sent) -> None:
    assert all(message["content"].strip() for message in messages if not message.get("tool_calls"))


def takes_openai(messages: Sent) -> None:
    assert all(len(identity) <= 40 for identity in ids_of(messages))
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", message["name"]) for message in messages if "name" in message)
    assert keys_of(messages) <= {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio"}
    roles = [message["role"] for message in messages]
    assert "developer" in roles
    assert "system" in roles[2:], "a late one stays late"


def takes_anthropic(messages: Sent) -> None:
    one_system_message(messages)
    in_turns(messages)
    none_empty(messages)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", identity) for identity in ids_of(messages))


def takes_mistral(messages: Sent) -> None:
    one_system_message(messages)
    in_turns(messages)
    none_empty(messages)
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", identity) for identity in ids_of(messages))
    assert keys_of(messages) <= {"role", "content", "name", "tool_calls", "tool_call_id"}
    assert {key for message in messages for call in message.get("tool_calls", ()) for key in call} == {"id", "type", "function"}


def takes_gemini(messages: Sent) -> None:
    one_system_message(messages)
    in_turns(messages)
    none_empty(messages)
    for one, after in pairwise(messages):
        assert not after.get("tool_calls") or one["role"] in ("user", "tool")
    assert all("extra_content" in call for message in messages for call in message.get("tool_calls", ()))


def takes_deepseek(messages: Sent) -> None:
    one_system_message(messages)
    in_turns(messages)
    assert keys_of(messages) <= {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
    thoughts = [message.get("reasoning_content") for message in messages if message["role"] == "assistant"]
    assert set(thoughts) == {"hm", " "}
    assert not any("reasoning_content" in message for message in messages if message["role"] != "assistant")


def takes_compatible(messages: Sent) -> None:
    one_system_message(messages)
    in_turns(messages)
    assert keys_of(messages) <= {"role", "content", "name", "tool_calls", "tool_call_id"}


TAKES = {
    "openai": takes_openai,
    "anthropic": takes_anthropic,
    "mistral": takes_mistral,
    "gemini": takes_gemini,
    "deepseek": takes_deepseek,
    "compatible": takes_compatible,
}


@pytest.mark.parametrize("name", PROFILES)
def test_one_log_becomes_a_valid_request_for_each_provider(name: str, sent: Callable[[Profile], tuple[Sent, Session]]) -> None:
    messages, _ = sent(PROFILES[name])

    paired(messages)
    TAKES[name](messages)


@pytest.mark.parametrize(
    ("base_url", "model", "profile"),
    [
        (None, "gpt-4.1-nano", OPENAI),
        (None, "ft:gpt-4o:ada::1", OPENAI),
        ("https://api.openai.com/v1/", "o4-mini", OPENAI),
        ("https://ada.openai.azure.com/openai/v1/", "my-deployment", OPENAI),
        ("https://openrouter.ai/api/v1", "openai/gpt-4.1-nano", OPENAI),
        ("https://openrouter.ai/api/v1", "openai/gpt-oss-120b", COMPATIBLE),
        ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5", ANTHROPIC),
        ("https://openrouter.ai/api/v1", "mistralai/devstral-2512", MISTRAL),
        ("https://openrouter.ai/api/v1", "google/gemini-2.5-flash", GEMINI),
        ("https://openrouter.ai/api/v1", "qwen/qwen3-32b", COMPATIBLE),
        ("https://api.anthropic.com/v1/", "claude-opus-4-5", ANTHROPIC),
        ("https://api.mistral.ai/v1", "open-model", MISTRAL),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-2.5-pro", GEMINI),
        ("https://europe-west1-aiplatform.googleapis.com/v1/x", "google/gemini-2.5-pro", GEMINI),
        ("https://api.deepseek.com", "deepseek-v4-pro", DEEPSEEK),
        ("https://openrouter.ai/api/v1", "deepseek/deepseek-v4-pro", COMPATIBLE),
        ("http://localhost:8000/v1", "Qwen/Qwen3-8B", COMPATIBLE),
        ("http://localhost:8000/v1", "mistralai/Mistral-7B-Instruct-v0.3", MISTRAL),
        ("http://localhost:8080/v1", "gpt-oss-20b", COMPATIBLE),
        ("https://api.openai.com.evil.example/v1", "any", COMPATIBLE),
    ],
)
def test_the_profile_is_chosen_by_family_then_host_then_name(base_url: str | None, model: str, profile: Profile) -> None:
    assert profile_for(base_url, model) is profile


def test_only_providers_of_their_own_models_are_left_to_keep_control_tokens_apart() -> None:
    assert is_publisher("https://api.openai.com/v1")
    assert not is_publisher("https://openrouter.ai/api/v1")
    assert not is_publisher("https://api.deepseek.com")
    assert not is_publisher("http://localhost:8000/v1")


def test_a_profile_of_ones_own_goes_first() -> None:
    mine = Profile(name="mine", developer=False)
    backend = OpenAIBackend("claude-sonnet-4-5", base_url="https://api.anthropic.com/v1/", profile=mine)

    assert backend.profile is mine


def test_behind_a_tools_result_the_user_speaks_only_after_the_assistant(url: str) -> None:
    """Where a turn died before its reply. Mistral: "Unexpected role 'user' after role 'tool'" (mistralai/mistral-common#169)."""
    with serving() as server:
        backend = OpenAIBackend("mistral-small", base_url=server.url, window=8000)
        with Memory(url, backend=backend) as memory:
            session = memory.session("chat")
            session.append(Message.user("Look."), calling("x"), Message.tool("In Linz.", tool_call_id="x"))
            session.chat("And now?")
        backend.close()

    assert [message["role"] for message in server.asked[0].body["messages"]] == ["user", "assistant", "tool", "assistant", "user"]  # type: ignore[attr-defined]
