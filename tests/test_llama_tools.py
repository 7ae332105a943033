"""Tools and structured output with the engine: what is held to, refused, counted, and how a reply is parted from its calls."""

import json
import random
from collections.abc import Iterator
from datetime import date

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer

from threadkeep.backends.base import Event
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.backends.llama_grammar import held_to
from threadkeep.backends.llama_reply import Splitting
from threadkeep.backends.llama_schema import compiled
from threadkeep.backends.llama_tools import OURS, CallForm, as_text, read_form
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON, Message, ToolCall

SMALLEST = "smollm2-135m"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city. <tool_call> <|im_end|>",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["c", "f"]}},
            "required": ["city"],
        },
    },
}
NOW = {"type": "function", "function": {"name": "now", "description": "The time."}}
LLAMA = CallForm("", "; ", "", "name", "parameters")
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
}


def context(*messages: Message, reply: int = 64, **more: object) -> Context:
    sent = [message.to_dict() for message in messages]
    return Context(sent, Budget(4096, reply=reply), 0, True, "", "", (), (), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def backend() -> Iterator[LlamaCpp]:
    made = LlamaCpp(SMALLEST, window=2048, parallel=1, temperature=0, threads=1)  # two threads wait for each other on a busy machine
    yield made
    made.close()


# ---- schemas ----

SCHEMAS: list[JSON] = [
    PERSON,
    {"type": "object"},
    {},
    {"type": "number"},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "integer", "minimum": 3, "multipleOf": 7},
    {"type": ["string", "null"], "maxLength": 4},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d+$"},
    {"type": "string", "pattern": "b+"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uri"},
    {"type": "array", "items": {"enum": ["a", 1, None]}, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "minItems": 2},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1},
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "additionalProperties": {"type": "boolean"}},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}, {"properties": {"b": {"const": 1}}}]},
    {"anyOf": [{"type": "integer", "maximum": 3}, PERSON]},
    {"oneOf": [{"type": "object", "properties": {"k": {"const": c}, "v": {"type": "boolean"}}, "required": ["k"]} for c in "ab"]},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["v"],
            }
        },
    },
]


def walked(grammar: str, rng: random.Random) -> str:
    """A text that the grammar allows, byte by byte at random."""
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, grammar)
    written = bytearray()
    while not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        token = rng.choice([token for token in range(tokenizer.vocab_size) if mask[token // 8] >> token % 8 & 1])
        if token == tokenizer.eos_token:
            break
        assert matcher.consume_token(token)
        written.append(token)
    return written.decode()


def lets_through(schema: JSON, value: object) -> bool:
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, f"%llguidance {{}}\nstart: %json {compiled(schema, 64, 'schema')}")
    tokens = tokenizer.tokenize_str(json.dumps(value))
    return bool(matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting())


@pytest.mark.parametrize("day", ["0000-10-10", "2023-02-29", "1900-02-29", "2000-02-29", "2024-02-29", "2026-04-31", "2026-12-31"])
def test_a_date_is_one_of_the_calendar(day: str) -> None:
    try:
        date.fromisoformat(day)
        exists = True
    except ValueError:
        exists = False

    assert lets_through({"type": "string", "format": "date"}, day) is exists
    assert lets_through({"type": "string", "format": "date-time"}, f"{day}T23:59:59Z") is exists
    assert not lets_through({"type": "string", "format": "date-time"}, f"{day}T23:59:60Z")


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:50])
def test_whatever_a_grammar_lets_through_fulfils_the_schema_and_ends(schema: JSON) -> None:
    rng = random.Random(1)
    grammar = f"%llguidance {{}}\nstart: %json {compiled(schema, 64, 'schema')}"
    for _ in range(6):
        text = walked(grammar, rng)
        jsonschema.validate(json.loads(text), schema)
        assert "\n" not in text


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "nonsense"}, "nonsense"),
        ({"properties": {"a": {"not": {}}}}, r"p\.a has 'not'"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "items": [{}]}, "prefixItems"),
        ({"type": "number", "multipleOf": 0.01}, "binary"),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, "draft 4"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "5"),
        ({"type": "string", "pattern": "(?=a)b"}, "look"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "#"}, "no value"),
        ({"properties": {"a": False}}, "no value"),
        ({"properties": []}, "dict"),
        ({"const": float("nan")}, "no JSON"),
        ([], "dict"),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_named_with_its_reason(schema: object, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        compiled(schema, 64, "p")


# ---- choices ----


def test_the_choice_says_what_may_be_called_and_whether_words_may_be_said() -> None:
    tools = [WEATHER, NOW]
    chosen: list[tuple[object, str, tuple[str, ...]]] = [
        (None, "text", ("get_weather", "now")),
        ("auto", "text", ("get_weather", "now")),
        ("none", "text", ()),
        ("required", "none", ("get_weather", "now")),
        ({"type": "function", "function": {"name": "now"}}, "none", ("now",)),
    ]
    for choice, speech, names in chosen:
        held = held_to(OURS, tools, choice, None, 64)  # type: ignore[arg-type]
        assert held is not None
        assert (held.speech, held.names) == (speech, names)
    held = held_to(OURS, tools, None, {"type": "json_object"}, 64)
    assert held is not None
    assert held.speech == "json"
    assert held_to(OURS, [], "auto", {"type": "text"}, 64) is None


def test_after_a_result_a_call_needs_its_marks() -> None:
    for form, bare in ((OURS, False), (LLAMA, True)):
        held = held_to(form, [NOW], None, None, 64, answered=True)
        assert held is not None
        assert (held.bare, held.names) == (bare, ("now",))


@pytest.mark.parametrize("choice", ["sometimes", {"type": "function", "function": {"name": "look"}}, {"type": "function"}])
def test_a_choice_of_no_tool_names_those_there_are(choice: str | JSON) -> None:
    with pytest.raises(InvalidSetting, match="get_weather, now"):
        held_to(OURS, [WEATHER, NOW], choice, None, 64)


def test_what_is_no_function_and_no_format_is_said_so() -> None:
    with pytest.raises(InvalidSetting, match="none are given"):
        held_to(OURS, [], "required", None, 64)
    with pytest.raises(InvalidSetting, match=r"tools\[0\] is a function"):
        held_to(OURS, [{"type": "custom", "custom": {"name": "x"}}], None, None, 64)
    with pytest.raises(InvalidSetting, match="type 'object'"):
        held_to(OURS, [{"type": "function", "function": {"name": "x", "parameters": {"type": "string"}}}], None, None, 64)
    with pytest.raises(InvalidSetting, match="json_schema"):
        held_to(OURS, [], None, {"type": "json_schema"}, 64)


# ---- forms of calls ----

ONE = '{"name": "look", "arguments": {"at": "it"}}'


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{ONE}\n</tool_call>", OURS),
        (f"[TOOL_CALLS] [{ONE}, {ONE}]", CallForm("[TOOL_CALLS] [", ", ", "]")),
        (f"{ONE.replace('arguments', 'parameters')}; {ONE.replace('arguments', 'parameters')}", LLAMA),
        ("<function=look><parameter=at>it</parameter></function>" * 2, None),
        (ONE, None),
    ],
)
def test_a_templates_own_form_is_read_from_what_it_writes(written: str, form: CallForm | None) -> None:
    assert read_form(written, "look", {"at": "it"}) == form


def test_a_template_without_tools_is_told_of_them_in_words() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    log: list[JSON] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
        {"role": "tool", "content": "one", "tool_call_id": "c2"},
    ]
    told = as_text(log, [NOW], alternating=False, leads=True)
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user", "user"]
    assert "The time." in str(told[0]["content"])
    assert told[2]["content"] == OURS.begin + OURS.between.join(['{"name": "now", "arguments": {}}'] * 2) + OURS.end
    strict = as_text(log, [NOW], alternating=True, leads=False)
    assert [message["role"] for message in strict] == ["user", "assistant", "user"]
    assert str(strict[0]["content"]).endswith("Hello")


# ---- replies, parted ----

BARE = '{"name": "now", "arguments": {}}'
MARKED = f"{OURS.begin}{BARE}{OURS.end}"
REPLIES: list[tuple[CallForm, str, str, list[str]]] = [
    (OURS, "Good morning, <b>Ada</b> <tool", "Good morning, <b>Ada</b> <tool", []),
    (OURS, MARKED, "", ["now"]),
    (OURS, f"I look.\n{MARKED}", "I look.", ["now"]),
    (
        OURS,
        f'{OURS.begin}{BARE}{OURS.between}{{"name": "get_weather", "arguments": {{"city": "</tool_call>}}"}}}}{OURS.end}',
        "",
        ["now", "get_weather"],
    ),
    (OURS, f"{OURS.begin}{BARE}{OURS.between}{BARE}{OURS.end}", "", ["now"]),
    (OURS, f"```json\n{BARE}\n```", "", ["now"]),
    (OURS, "{{" + BARE[1:] + "}", "", ["now"]),
    (OURS, '{\n  "name": "now",\n  "arguments": {}\n}', "", ["now"]),
    (OURS, '```json\n{"x": 1}\n```', '```json\n{"x": 1}\n```', []),
    (LLAMA, BARE.replace("arguments", "parameters"), "", ["now"]),
    (LLAMA, '{"x": 1}', '{"x": 1}', []),
]


@pytest.mark.parametrize(("form", "reply", "said", "called"), REPLIES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_call_is_never_given_as_text_however_it_comes(form: CallForm, reply: str, said: str, called: list[str], size: int) -> None:
    held = held_to(form, [WEATHER, NOW], None, None, 64)
    assert held is not None
    splitting = Splitting(held, None)
    text = "".join(splitting.text(reply[at : at + size]) for at in range(0, len(reply), size))
    rest, calls, finish = splitting.rest("stop", cut=False)
    assert text + rest == said
    assert [call.name for call in calls] == called
    assert finish == ("tool_calls" if called else "stop")
    assert len({call.id for call in calls}) == len(calls)


def test_an_answer_in_json_may_speak_of_calls() -> None:
    held = held_to(OURS, [NOW], None, {"type": "json_object"}, 64)
    assert held is not None
    splitting = Splitting(held, None)
    reply = '{"name": "<tool_call>"}'
    assert "".join(map(splitting.text, reply)) == reply
    assert splitting.rest("stop", cut=False) == ("", (), "stop")


@pytest.mark.parametrize("size", range(len(MARKED)))
def test_a_call_that_is_cut_off_is_no_call_and_no_text(size: int) -> None:
    held = held_to(OURS, [WEATHER, NOW], "required", None, 64)
    assert held is not None
    splitting = Splitting(held, None)
    assert splitting.text(MARKED[:size]) == ""
    rest, calls, finish = splitting.rest("length", cut=False)
    whole = size > MARKED.rindex("}")
    assert (rest, len(calls), finish) == ("", int(whole), "tool_calls" if whole else "length")


@pytest.mark.parametrize("speech", [None, {"type": "json_object"}])
def test_the_same_call_again_is_a_model_going_in_circles(speech: JSON | None) -> None:
    held = held_to(OURS, [WEATHER, NOW], "required" if speech is None else None, speech, 64)
    assert held is not None
    splitting = Splitting(held, None)
    twice = OURS.begin + OURS.between.join([BARE, BARE.replace("now", "get_weather"), BARE, BARE])
    heard = next(at for at, character in enumerate(twice) if splitting.text(character) or splitting.circling)
    assert twice[: heard + 1].count(BARE) == 2
    assert [call.name for call in splitting.rest("stop", cut=False)[1]] == ["now", "get_weather"]


def test_ids_match_the_templates_pattern() -> None:
    held = held_to(OURS, [NOW], "required", None, 64)
    assert held is not None
    splitting = Splitting(held, "[a-zA-Z0-9]{9}")
    splitting.text(MARKED)
    (call,) = splitting.rest("stop", cut=False)[1]
    assert len(call.id) == 9


# ---- the engine ----


@pytest.mark.model
def test_a_model_whose_template_knows_no_tools_calls_them(backend: LlamaCpp) -> None:
    tools = (WEATHER, NOW)
    asked = Message.user("What is the weather in Paris?")
    *events, last = backend.stream(context(asked, tools=tools, tool_choice={"type": "function", "function": {"name": "get_weather"}}))
    (call,) = last.tool_calls
    jsonschema.validate(json.loads(call.arguments), WEATHER["function"]["parameters"])  # type: ignore[index]
    assert (call.name, last.finish) == ("get_weather", "tool_calls")
    assert not any(event.text for event in events)
    assert last.usage is not None
    assert last.usage.prompt_tokens == backend.counter.count_request([asked], tools=tools).tokens
    assert last.usage.first_token_ms is not None


@pytest.mark.model
def test_a_model_that_goes_in_circles_is_stopped(backend: LlamaCpp) -> None:
    asked = context(Message.user("What time is it?"), tools=(NOW,), tool_choice="required", reply=400)
    *_, last = backend.stream(asked)
    assert ([call.name for call in last.tool_calls], last.finish) == (["now"], "tool_calls")
    assert last.usage is not None
    assert last.usage.completion_tokens < 100
    assert last.usage.prompt_tokens == backend.counter.count_request([Message.user("What time is it?")], tools=(NOW,)).tokens


@pytest.mark.model
def test_with_no_tool_to_call_it_speaks(backend: LlamaCpp) -> None:
    *events, last = backend.stream(context(Message.user("Hello"), tools=(NOW,), tool_choice="none", reply=6))
    assert "".join(event.text for event in events)
    assert last.tool_calls == ()


@pytest.mark.model
def test_a_reply_keeps_to_a_schema(backend: LlamaCpp) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    events = list(backend.stream(context(Message.user("Ada is 36 years old."), response_format=wanted)))
    jsonschema.validate(json.loads("".join(event.text for event in events)), PERSON)
    assert events[-1].finish == "stop"


@pytest.mark.model
def test_a_reply_that_is_too_long_for_its_call_gives_none(backend: LlamaCpp) -> None:
    *events, last = backend.stream(context(Message.user("What time is it?"), tools=(WEATHER,), tool_choice="required", reply=5))
    assert (last.finish, last.tool_calls) == ("length", ())
    assert not any(event.text for event in events)


@pytest.mark.model
def test_leaving_in_the_middle_of_a_call_frees_the_slot(backend: LlamaCpp) -> None:
    stream = backend.stream(context(Message.user("What time is it?"), tools=(WEATHER,), tool_choice="required"))
    assert next(stream) == Event()
    stream.close()
    assert list(backend.stream(context(Message.user("Hello"), reply=1)))[-1].finish == "length"


LOGS = [
    [Message.user("What is it like?")],
    [
        Message.system("Be brief. </tools>"),
        Message.user("Paris? <tool_response>"),
        Message.assistant("I look.", tool_calls=[ToolCall("c1", "get_weather", '{"city": "</tool_call><|im_end|>"}')]),
        Message.tool("12 C</tool_response><|im_end|>", tool_call_id="c1"),
        Message.assistant("12 degrees."),
        Message.user("Rome, and the time?"),
        Message.assistant(None, tool_calls=[ToolCall("c2", "get_weather", "no json"), ToolCall("c3", "now", "{}")]),
        Message.tool("", tool_call_id="c2"),
        Message.tool("noon", tool_call_id="c3", name="now"),
    ],
]


@pytest.mark.model
@pytest.mark.parametrize("messages", LOGS)
@pytest.mark.parametrize("tools", [(), (WEATHER, NOW)])
def test_tools_calls_and_results_are_counted_as_they_are_sent(backend: LlamaCpp, messages: list[Message], tools: tuple[JSON, ...]) -> None:
    *_, last = backend.stream(context(*messages, tools=tools, reply=1))
    assert last.usage is not None
    counts = [backend.counter.count(message) for message in messages]
    assert all(count.exact for count in counts)
    assert backend.counter.count_request(messages, tools=tools).tokens == last.usage.prompt_tokens
    added = backend.counter.count_request(messages, tools=tools, counts=[count.tokens for count in counts])
    assert added.tokens == last.usage.prompt_tokens
