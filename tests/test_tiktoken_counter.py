"""Counting as OpenAI's models do."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadkeep.backends.tiktoken_counter import PIECE, TiktokenCounter
from threadkeep.backends.vocabulary import vocabulary
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import ImagePart, Message, OpaquePart, TextPart, ToolCall
from threadkeep.memory.tokens import Count, TokenCounter
from threadkeep.models.fetch import locate

# The two examples of OpenAI's cookbook, with the prompt tokens that it reports for gpt-4o.
CORPORATE = [
    Message.from_dict({"role": role, "content": content, **({"name": name} if name else {})})
    for role, name, content in [
        ("system", None, "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        (
            "system",
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
        ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
    ]
]
CORPORATE_TOKENS = 124
WEATHER = [
    Message.system("You are a helpful assistant that can answer to questions about the weather."),
    Message.user("What's the weather like in San Francisco?"),
]
WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        },
    },
}
WEATHER_TOKENS = 101

counter = TiktokenCounter("gpt-4o")


def tokens_of(text: str) -> int:
    return len(vocabulary("o200k_base").encode_ordinary(text))


def test_it_is_a_token_counter() -> None:
    assert isinstance(counter, TokenCounter)
    assert counter.additive


def test_messages_cost_what_openai_reports() -> None:
    assert counter.count_request(CORPORATE) == Count(CORPORATE_TOKENS)


def test_functions_cost_what_openai_reports() -> None:
    assert counter.count_request(WEATHER, tools=[WEATHER_TOOL]) == Count(WEATHER_TOKENS)


def test_a_request_is_the_sum_of_its_messages_and_reads_no_text_twice() -> None:
    counts = [counter.count(message).tokens for message in CORPORATE]
    assert counter.count_request(CORPORATE, counts=counts) == Count(CORPORATE_TOKENS)
    assert counter.count_request(CORPORATE, counts=[1000] * 6) == Count(6003)
    assert counter.count_request([]) == Count(3)


def test_counts_for_other_messages_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="counts has 1 numbers for 2 messages"):
        counter.count_request(WEATHER, counts=[5])


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "tiktoken/o200k_base"),
        ("gpt-4.1", "tiktoken/o200k_base"),
        ("gpt-5", "tiktoken/o200k_base"),
        ("o3-mini", "tiktoken/o200k_base"),
        ("o200k_base", "tiktoken/o200k_base"),
        ("gpt-4.1-nano", "tiktoken/o200k_base+gpt-4.1-nano"),
        ("gpt-4o-mini-2024-07-18", "tiktoken/o200k_base+gpt-4o-mini"),
        ("gpt-4", "tiktoken/cl100k_base"),
        ("gpt-3.5-turbo-0125", "tiktoken/cl100k_base"),
        ("cl100k_base", "tiktoken/cl100k_base"),
    ],
)
def test_equal_names_count_alike(model: str, name: str) -> None:
    assert TiktokenCounter(model).name == name


@pytest.mark.parametrize("model", ["llama-3", "", "text-davinci-003", "gpt2", "p50k_base"])
def test_an_unknown_model_is_refused_with_the_choices(model: str) -> None:
    with pytest.raises(InvalidSetting, match=r"gpt-4\.1.*o4-mini.*o200k_base, cl100k_base") as caught:
        TiktokenCounter(model)
    assert repr(model) in str(caught.value)


def test_text_that_looks_like_a_control_token_is_text() -> None:
    plain = counter.count(Message.user("<|endoftext|>")).tokens
    assert plain == 4 + tokens_of("<|endoftext|>") > 4 + 1


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_counted_by_the_vocabulary(text: str) -> None:
    assert counter.count(Message.user(text)) == Count(4 + tokens_of(text))


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_every_role_is_one_token(role: Any) -> None:
    assert tokens_of(role) == 1
    assert counter.count(Message(role, "")) == Count(4)


def test_one_text_part_counts_as_its_text() -> None:
    assert counter.count(Message.user([TextPart("Good morning")])) == counter.count(Message.user("Good morning"))


@pytest.mark.parametrize(
    "message",
    [
        Message.assistant(tool_calls=[ToolCall("call_1", "weather", '{"city": "Turin"}')]),
        Message.tool("Sunny", tool_call_id="call_1"),
        Message.user([TextPart("What is"), TextPart("this?")]),
        Message.user([TextPart("Who is it?"), ImagePart("https://example.org/a.png")]),
        Message.user([OpaquePart("input_audio", {"type": "input_audio", "input_audio": {"data": "UklGRg=="}})]),
        Message.user([]),
        Message("assistant", None, extra={"refusal": "I will not."}),
        Message("assistant", "See", extra={"audio": {"id": "audio_1"}}),
        Message.assistant(),
    ],
)
def test_what_no_published_rule_covers_is_an_estimate(message: Message) -> None:
    assert not counter.count(message).exact
    assert not counter.count_request([message]).exact
    assert counter.count_request([message], counts=[10]).exact  # of what it adds itself


def test_calls_cost_their_name_arguments_and_id() -> None:
    calls = [ToolCall("call_1", "weather", '{"city": "Turin"}'), ToolCall("call_2", "weather", '{"city": "Oslo"}')]
    texts = sum(tokens_of(text) for call in calls for text in (call.id, call.name, call.arguments))
    assert counter.count(Message.assistant(tool_calls=calls)).tokens == 4 + 2 * 4 + texts
    assert counter.count(Message.tool("Sunny", tool_call_id="call_1")).tokens == 4 + tokens_of("Sunny") + tokens_of("call_1")


@pytest.mark.parametrize(
    ("model", "detail", "tokens"),
    [
        ("gpt-4o", "low", 85),
        ("gpt-4o", "high", 1445),
        ("gpt-4o", "auto", 1445),
        ("gpt-4o", None, 1445),
        ("gpt-4o-mini", "low", 2833),
        ("gpt-4o-mini", "high", 48169),
        ("gpt-4.1-nano", None, 3779),
    ],
)
def test_a_picture_costs_the_most_that_its_detail_can(model: str, detail: str | None, tokens: int) -> None:
    assert TiktokenCounter(model).count(Message.user([ImagePart("https://example.org/a.png", detail)])).tokens == 4 + tokens


def test_keys_that_are_not_sent_cost_nothing() -> None:
    plain = counter.count(Message.assistant("Hi"))
    assert counter.count(Message("assistant", "Hi", extra={"refusal": None, "annotations": [], "vendor": "x" * 1000})) == plain


def function(parameters: object, **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "f", "description": "Does.", "parameters": parameters, **more}}


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search", "filters": {"allowed_domains": ["example.org"]}},
        {"type": "function", "function": "f"},
        {"type": "function", "function": {"name": "f"}},
        function({"type": "object", "properties": {"a": {"type": "string"}}}),
        function({"type": "object", "properties": {"a": {"type": ["string", "null"], "description": "A"}}}),
        function({"type": "object", "properties": {"a": {"type": "integer", "description": "A", "enum": [1, 2]}}}),
        function({"type": "object", "properties": {"a": {"type": "array", "description": "A", "items": {"type": "string"}}}}),
        function({"type": "object", "properties": {"a": True}}),
        function({"type": "object", "properties": ["a"]}),
        function({"type": "object", "properties": {}, "$defs": {"b": {"type": "string"}}}),
        function("a"),
    ],
)
def test_tools_beyond_the_published_rule_are_estimated(tool: dict[str, object]) -> None:
    bare = counter.count_request(WEATHER).tokens
    count = counter.count_request(WEATHER, tools=[tool])
    assert not count.exact
    assert count.tokens > bare + 12 + 7


def test_a_function_without_parameters_is_exact() -> None:
    tool = {"type": "function", "function": {"name": "now", "description": "Says the time."}}
    bare = counter.count_request(WEATHER).tokens
    assert counter.count_request(WEATHER, tools=[tool]) == Count(bare + 12 + 7 + tokens_of("now:Says the time"))


def test_a_larger_schema_costs_more() -> None:
    inner = {"type": "object", "properties": {"street": {"type": "string", "description": "Street and number"}}}
    flat = function({"type": "object", "properties": {"home": {"type": "object", "description": "Where"}}})
    deep = function({"type": "object", "properties": {"home": {"type": "object", "description": "Where", **inner}}})
    assert counter.count_request([], tools=[deep]).tokens > counter.count_request([], tools=[flat]).tokens + 10


def test_a_response_format_is_an_estimate() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object", "properties": {}}}}
    count = counter.count_request(WEATHER, response_format=schema)
    assert not count.exact
    assert count.tokens > counter.count_request(WEATHER).tokens + 20


@pytest.mark.parametrize("text", ["a", " ", "\t", "\n", "漢", "ab", "/", "=", " \n", "\u3000"])
def test_a_megabyte_of_one_thing_is_counted_in_seconds_and_not_too_low(text: str) -> None:
    run = text * (1_000_000 // len(text)) + "x"
    began = time.perf_counter()
    count = counter.count(Message.user(run))
    assert time.perf_counter() - began < 10
    assert not count.exact
    shorter = text * 65_536  # what tiktoken can be asked at once
    assert counter.count(Message.user(shorter)).tokens >= 4 + tokens_of(shorter)
    assert count.tokens >= 15 * tokens_of(text * (65_536 // len(text)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=300), min_size=1), st.sampled_from([" ", ". ", "，", "\n\n", "  ", ") "]))
def test_a_long_text_with_words_costs_what_it_costs_at_once(words: list[str], between: str) -> None:
    text = between.join([*words, "end"]) + " and so on"
    long = text * (3 * PIECE // len(text))
    count = counter.count(Message.user(long))
    if count.exact:
        assert count.tokens == 4 + tokens_of(long)
    else:
        assert count.tokens >= tokens_of(long)


def test_a_book_is_counted_exactly() -> None:
    book = "It was the best of times, it was the worst of times; 1,859 pages…\n\n" * 5000
    assert counter.count(Message.user(book)) == Count(4 + tokens_of(book))
    assert counter.count_request([Message.user(book)], counts=[7]) == Count(10)


IN_A_NEW_PROCESS = """
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.message import Message
print(TiktokenCounter("{model}").count(Message.user("Good morning")).tokens)
"""


def in_a_new_process(model: str, cache: Path | str) -> "subprocess.CompletedProcess[str]":
    """Count where OpenAI cannot be reached and tiktoken's cache is as given."""
    nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS.format(model=model)],
        env={**os.environ, **nowhere, "TIKTOKEN_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_offline_the_vocabulary_comes_from_the_registry_and_is_kept_for_tiktoken(tmp_path: Path) -> None:
    locate("o200k_base")
    cache = tmp_path / "new" / "folder"
    came = in_a_new_process("gpt-4o", cache)
    assert (came.stdout, came.stderr) == ("6\n", "")
    (kept,) = cache.iterdir()
    assert kept.name == "fb374d419588a4632f3f557e76b4b70aebbca790"


def test_a_broken_file_in_the_cache_is_replaced(tmp_path: Path) -> None:
    locate("o200k_base")
    broken = tmp_path / "fb374d419588a4632f3f557e76b4b70aebbca790"
    broken.write_text("half a file")
    assert in_a_new_process("gpt-4o", tmp_path).stdout == "6\n"
    assert broken.stat().st_size == 3_613_922


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("", "ModelUnavailable: TIKTOKEN_CACHE_DIR is empty, which turns tiktoken's cache off: unset it, or name a folder"),
        ("/dev/null/folder", "ModelUnavailable: /dev/null/folder/fb374d419588a4632f3f557e76b4b70aebbca790 cannot be written"),
    ],
)
def test_a_cache_that_cannot_hold_it_is_named(cache: str, said: str) -> None:
    locate("o200k_base")
    came = in_a_new_process("gpt-4o", cache)
    assert came.returncode == 1
    assert said in came.stderr


def test_a_vocabulary_that_cannot_be_had_is_asked_for(tmp_path: Path) -> None:
    came = in_a_new_process("gpt-4", tmp_path)
    assert came.returncode == 1
    assert "ModelUnavailable: https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken cannot be reached" in came.stderr
    assert f"put the file to {tmp_path / '9b5ad71b2ce5302211f9c61530b329a4922fc6a4'}" in came.stderr


def test_eight_threads_load_one_vocabulary() -> None:
    loaded: list[object] = []
    threads = [threading.Thread(target=lambda: loaded.append(vocabulary("o200k_base"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 8
    assert len(set(map(id, loaded))) == 1
