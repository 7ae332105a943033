"""Messages: what goes in comes out, and what is no message is named."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from threadkeep.memory.errors import InvalidMessage
from threadkeep.memory.message import ImagePart, Message, OpaquePart, TextPart, ToolCall, read_message

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Turin"}'}}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4.1-nano",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [CALL]},
        }
    ],
}

loosely: Any = Message  # for what a type checker would refuse

texts = st.text(st.characters(exclude_categories=[]))  # NUL and lone surrogates included
names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def extras(*taken: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(texts.filter(lambda key: key not in taken), values, max_size=2)


@st.composite
def parts(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["text", "image_url", "input_audio", "file", "reasoning"]))
    beside = draw(extras("type", "text", "image_url"))
    if kind == "text":
        return {"type": kind, "text": draw(texts), **beside}
    if kind == "image_url":
        detail = draw(st.sampled_from([{}, {"detail": "low"}, {"detail": "high"}]))
        return {"type": kind, "image_url": {"url": draw(texts), **detail, **draw(extras("url", "detail"))}, **beside}
    return {"type": kind, **beside}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    kind, given_as = draw(st.sampled_from([("function", "arguments"), ("custom", "input")]))
    inner = {"name": draw(names), given_as: draw(texts), **draw(extras("name", given_as))}
    return {"id": draw(names), "type": kind, kind: inner, **draw(extras("id", "type", kind))}


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    role = draw(st.sampled_from(["system", "developer", "user", "assistant", "tool"]))
    content = texts | st.lists(parts(), max_size=3)
    made = {"role": role, "content": draw(content | st.none() if role == "assistant" else content)}
    if role == "assistant" and draw(st.booleans()):
        made["tool_calls"] = draw(st.lists(calls(), min_size=1, max_size=3))
    if role == "tool":
        made["tool_call_id"] = draw(names)
    if draw(st.booleans()):
        made["name"] = draw(texts)
    return made | draw(extras("role", "content", "tool_calls", "tool_call_id", "name"))


@given(messages())
def test_a_dict_comes_out_as_it_went_in(message: dict[str, Any]) -> None:
    assert Message.from_dict(message).to_dict() == message


@given(messages())
def test_a_message_survives_being_stored_as_json(message: dict[str, Any]) -> None:
    read = Message.from_dict(message)
    assert Message.from_dict(json.loads(json.dumps(read.to_dict()))) == read


@given(messages())
def test_a_message_survives_pickling_and_hashes_alike(message: dict[str, Any]) -> None:
    read = Message.from_dict(message)
    again = pickle.loads(pickle.dumps(read))
    assert again == read
    assert hash(again) == hash(read)


@pytest.mark.parametrize(
    ("loose", "normal"),
    [
        ({"role": "assistant"}, {"role": "assistant", "content": None}),
        ({"role": "user", "content": "a", "name": None, "tool_calls": None}, {"role": "user", "content": "a"}),
        ({"role": "assistant", "content": "a", "tool_calls": []}, {"role": "assistant", "content": "a"}),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
            },
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": None}}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
        ),
    ],
)
def test_loose_forms_are_written_out_in_one_way(loose: dict[str, Any], normal: dict[str, Any]) -> None:
    assert Message.from_dict(loose).to_dict() == normal


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "role"),
        ({"role": "robot", "content": "a"}, "role"),
        ({"role": ["user"], "content": "a"}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "tool", "content": None, "tool_call_id": "c"}, "content"),
        ({"role": "user", "content": 5}, "content"),
        ({"role": "user", "content": b"a"}, "content"),
        ({"role": "user", "content": {"type": "text", "text": "a"}}, "content"),
        ({"role": "user", "content": ["a"]}, "content[0]"),
        ({"role": "user", "content": [{"text": "a"}]}, "content[0].type"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]}, "content[1].text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0].image_url.url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}, "content[0].image_url.url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": 1}}]}, "content[0].image_url.detail"),
        ({"role": "user", "content": "a", "name": 5}, "name"),
        ({"role": "user", "content": "a", "tool_calls": [CALL]}, "tool_calls"),
        ({"role": "assistant", "tool_calls": "call"}, "tool_calls"),
        ({"role": "assistant", "tool_calls": CALL}, "tool_calls"),
        ({"role": "assistant", "tool_calls": ["call"]}, "tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [CALL, {**CALL, "id": ""}]}, "tool_calls[1].id"),
        ({"role": "assistant", "tool_calls": [{**CALL, "type": 1}]}, "tool_calls[0].type"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "function"}]}, "tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {"arguments": ""}}]}, "tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}, "tool_calls[0].function.arguments"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f"}}]}, "tool_calls[0].custom.input"),
        ({"role": "tool", "content": "a"}, "tool_call_id"),
        ({"role": "tool", "content": "a", "tool_call_id": ""}, "tool_call_id"),
        ({"role": "tool", "content": "a", "tool_call_id": 5}, "tool_call_id"),
        ({"role": "user", "content": "a", "mark": {1, 2}}, "mark"),
        ({"role": "user", "content": "a", "mark": float("nan")}, "mark"),
        ({"role": "user", "content": "a", 5: "mark"}, "5"),
    ],
)
def test_bad_input_names_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        read_message(given, place="messages[2]")
    assert caught.value.field == f"messages[2].{field}"
    assert str(caught.value).startswith(f"messages[2].{field}: ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("given", [5, None, b"bytes", ["a", "b"], object(), Message])
def test_what_is_no_message_at_all_is_refused(given: object) -> None:
    with pytest.raises(InvalidMessage, match=r"^message: is text, a Message, a dict or an openai object, not "):
        read_message(given)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: loosely("robot", "a"), "role"),
        (lambda: loosely("user"), "content"),
        (lambda: loosely("user", ["a"]), "content"),
        (lambda: loosely.user(5), "content"),
        (lambda: loosely.user(b"a"), "content[0]"),
        (lambda: loosely.user(["a"]), "content[0]"),
        (lambda: loosely.user([TextPart("a"), {"type": "text", "text": "b"}]), "content[1]"),
        (lambda: loosely.user("a", name=5), "name"),
        (lambda: loosely.assistant(tool_calls=[CALL]), "tool_calls[0]"),
        (lambda: loosely("assistant", None, [ToolCall("c", "f", "")]), "tool_calls"),
        (lambda: loosely("user", "a", (ToolCall("c", "f", ""),)), "tool_calls"),
        (lambda: loosely.tool("a", tool_call_id=""), "tool_call_id"),
        (lambda: loosely("assistant", "a", tool_call_id=5), "tool_call_id"),
    ],
)
def test_a_message_made_by_hand_is_checked_alike(make: Any, field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        make()
    assert caught.value.field == field


def test_a_message_cannot_be_changed() -> None:
    message = Message.from_dict({"role": "user", "content": [{"type": "text", "text": "a"}]})
    with pytest.raises(FrozenInstanceError):
        message.role = "system"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        message.parts[0].text = "b"  # type: ignore[misc, union-attr]


def test_a_message_does_not_change_with_the_dict_it_came_from_or_the_one_it_gave() -> None:
    given = {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "u", "crop": [1]}},
            {"type": "input_audio", "input_audio": {"data": "UklG"}},
        ],
        "tool_calls": [{**CALL, "marks": [1]}],
        "vendor": {"trace": [1]},
    }
    before = copy.deepcopy(given)
    message = Message.from_dict(given)

    def spoil(dicts: Any) -> None:
        dicts["content"][0]["cache_control"]["type"] = "spoilt"
        dicts["content"][1]["image_url"]["crop"].append("spoilt")
        dicts["content"][2]["input_audio"]["data"] = "spoilt"
        dicts["tool_calls"][0]["marks"].append("spoilt")
        dicts["vendor"]["trace"].append("spoilt")

    spoil(given)
    assert message.to_dict() == before
    spoil(message.to_dict())
    assert message.to_dict() == before


def test_parts_that_are_not_understood_are_kept_as_they_came() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    message = read_message({"role": "user", "content": [audio, {"type": "text", "text": "What is this?"}]})
    assert message.parts[0] == OpaquePart("input_audio", audio)
    assert message.text == "What is this?"
    assert message.to_dict()["content"] == [audio, {"type": "text", "text": "What is this?"}]


def test_nul_and_lone_surrogates_come_through() -> None:
    text = "a\0b\ud83d \udc00c"
    message = Message.user(text, name=text)
    assert pickle.loads(pickle.dumps(message)) == message
    assert json.loads(json.dumps(message.to_dict()))["content"] == text


def test_text_speaks_as_the_user_unless_told_otherwise() -> None:
    assert read_message("Hello") == Message.user("Hello")
    assert read_message("Hello", role="assistant") == Message.assistant("Hello")
    assert read_message(Message.system("Hello")) == Message.system("Hello")


def test_a_completion_its_choice_and_its_message_read_alike() -> None:
    completion = ChatCompletion.model_validate(COMPLETION)
    message = read_message(completion)
    assert message.tool_calls == (ToolCall("call_1", "weather", '{"city": "Turin"}'),)
    assert message.extra == {"refusal": None, "annotations": []}
    assert read_message(completion.choices[0]) == message
    assert read_message(completion.choices[0].message) == message
    assert read_message(COMPLETION) == message


def test_only_what_an_openai_object_was_given_is_kept() -> None:
    assert read_message(ChatCompletionMessage(role="assistant", content="Hi")) == Message.assistant("Hi")


def test_a_completion_with_bent_types_is_read_without_a_warning() -> None:
    bent = copy.deepcopy(COMPLETION)
    bent["choices"][0]["message"]["tool_calls"] = [{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]
    assert read_message(ChatCompletion.construct(**bent)).tool_calls[0].arguments == '{"a": 1}'


def test_a_completion_without_choices_says_what_is_missing() -> None:
    with pytest.raises(InvalidMessage, match=r"^message\.role: "):
        read_message({**COMPLETION, "choices": []})


def test_an_image_from_bytes_is_a_data_url() -> None:
    part = ImagePart.from_bytes(b"\x89PNG", "image/png", detail="low")
    assert part.to_dict() == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw==", "detail": "low"}}


def test_the_text_of_parts_stands_in_paragraphs() -> None:
    message = Message.user([TextPart("One."), ImagePart("https://example.org/a.png"), TextPart("Two.")])
    assert message.text == "One.\n\nTwo."
    assert message.with_content("Three.").parts == (TextPart("Three."),)
    assert Message.assistant().parts == ()
    assert Message.assistant().text == ""
