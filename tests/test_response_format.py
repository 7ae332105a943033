"""What a reply must be: read before anything is stored, parsed when it came, and said plainly where it was cut or is something else."""

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from threadkeep import (
    AsyncMemory,
    Budget,
    Context,
    Event,
    InvalidReply,
    InvalidSetting,
    Memory,
    Message,
    ScriptedBackend,
    Session,
    ThreadkeepError,
    ToolCall,
    Truncated,
    Usage,
)
from threadkeep.memory.json_schema import check_schema, strict
from threadkeep.memory.response_format import ResponseFormat

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
ADA = '{"name": "Ada", "age": 36}'


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Pet(BaseModel):
    """An animal."""

    name: str
    kind: Literal["hen", "cat"] = "hen"


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)
    born: date | None = None
    pets: list[Pet] = []
    first: Pet | None = Field(default=None, description="The first of them.")
    best: Pet = Field(default=Pet(name="Hilda"), description="The best of them.")
    colour: Colour = Colour.RED


Make = Callable[..., Session]


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes a session answered by these replies."""
    memories: list[Memory] = []

    def make(*replies: str | Message, backend: ScriptedBackend | None = None) -> Session:
        memories.append(Memory(url, backend=backend or ScriptedBackend(list(replies)), budget=Budget(4000, reply=500)))
        return memories[-1].session("chat")

    yield make
    for memory in memories:
        memory.close()


class Ends(ScriptedBackend):
    """Says each text, and why it ended."""

    def __init__(self, *said: tuple[str, Any]) -> None:
        super().__init__([])
        self.said = list(said)

    def stream(self, context: Context) -> Iterator[Event]:
        text, finish = self.said.pop(0)
        yield Event(text)
        yield Event(finish=finish, usage=Usage(1, 1))


def said(session: Session) -> list[tuple[str, str, str]]:
    return [(entry.role, entry.message.text, entry.status) for entry in session.entries()]


def test_the_reply_holds_the_value(make: Make) -> None:
    session = make(ADA, ADA, '{"a": [1, null]}', "Anything.")
    assert session.chat("Who?", response_format=FORMAT).parsed == {"name": "Ada", "age": 36}
    assert session.chat("Who?", response_format=Person).parsed == Person(name="Ada", age=36)
    assert session.chat("What?", response_format={"type": "json_object"}).parsed == {"a": [1, None]}
    assert session.chat("What?", response_format={"type": "text"}).parsed is None
    backend = session._setup.backend
    assert isinstance(backend, ScriptedBackend)
    assert backend.seen[0].response_format == FORMAT


def test_the_async_twin_gives_the_same(url: str) -> None:
    async def work() -> None:
        async with AsyncMemory(url, backend=ScriptedBackend([ADA, "No."]), budget=Budget(4000, reply=500)) as memory:
            session = memory.session("chat")
            assert (await session.chat("Who?", response_format=Person)).parsed == Person(name="Ada", age=36)
            with pytest.raises(InvalidReply):
                await session.chat("Who?", response_format=Person)
            assert [entry.status for entry in await session.entries()] == ["complete", "complete", "complete", "interrupted"]

    asyncio.run(work())


def test_a_model_is_sent_as_its_strict_schema() -> None:
    wire: Any = ResponseFormat(Person).wire
    assert (wire["type"], wire["json_schema"]["name"], wire["json_schema"]["strict"]) == ("json_schema", "Person", True)
    schema = wire["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"]) == ["name", "age", "born", "pets", "first", "best", "colour"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Pet"] == {
        "type": "object",
        "description": "An animal.",
        "properties": {"name": {"type": "string"}, "kind": {"enum": ["hen", "cat"], "type": "string"}},
        "required": ["name", "kind"],
        "additionalProperties": False,
    }
    assert schema["properties"]["first"] == {"anyOf": [{"$ref": "#/$defs/Pet"}, {"type": "null"}], "description": "The first of them."}
    assert schema["properties"]["best"] == {**schema["$defs"]["Pet"], "description": "The best of them."}
    check_schema(schema, "Person")
    assert "title" not in json.dumps(schema)
    assert "default" not in json.dumps(schema)


class Tree(BaseModel):
    children: list["Tree"] = []


class Cat(BaseModel):
    kind: Literal["cat"]


class Hen(BaseModel):
    kind: Literal["hen"]


class Either(BaseModel):
    one: Cat | Hen = Field(discriminator="kind")


@pytest.mark.parametrize(
    ("model", "text"),
    [(Tree, '{"children": [{"children": []}]}'), (Either, '{"one": {"kind": "hen"}}'), (type("Bare", (BaseModel,), {}), "{}")],
)
def test_models_of_any_form_are_sent_strictly_and_read_again(model: type[BaseModel], text: str) -> None:
    wanted = ResponseFormat(model)
    wire: Any = wanted.wire
    assert wire["json_schema"]["strict"]
    assert "oneOf" not in json.dumps(wire)
    assert wanted.parse(text) == model.model_validate_json(text)


class Prices(BaseModel):
    by_name: dict[str, int]


class Pair(BaseModel):
    two: tuple[int, str]


class Free(BaseModel):
    anything: Any


@pytest.mark.parametrize("model", [Prices, Pair, Free])
def test_what_strict_mode_cannot_say_is_sent_as_it_is(model: type[BaseModel]) -> None:
    wire: Any = ResponseFormat(model).wire
    assert wire["json_schema"]["strict"] is False
    check_schema(wire["json_schema"]["schema"], "it")


def test_strict_changes_nothing_of_what_it_was_given() -> None:
    before = json.dumps(SCHEMA)
    strict(dict(SCHEMA))
    assert json.dumps(SCHEMA) == before


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def never(cls, name: str) -> str:
        raise KeyError(name)


def with_schema(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


class Odd(BaseModel):
    work: Callable[[], None]


BAD: list[tuple[object, str]] = [
    ("json", "not 'json'"),
    (Session, "Session"),
    (Person(name="a", age=1), "Person"),
    ({}, "type"),
    ({"type": "json-schema"}, "json-schema"),
    ({"type": "json_schema"}, "json_schema"),
    ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "name"),
    ({"type": "json_schema", "json_schema": {"name": "a b", "schema": SCHEMA}}, "a b"),
    ({"type": "json_schema", "json_schema": {"name": "x"}}, "schema"),
    (with_schema([]), "list"),
    (with_schema({"type": "strng"}), "schema'].type.*strng"),
    (with_schema({"properties": {"a": {"minimum": "b"}}}), "properties.a.minimum"),
    (with_schema({"properties": {"a": {"$ref": "#/$defs/b"}}}), "#/.defs/b"),
    (with_schema({"$ref": "https://example.com/schema"}), "example.com"),
    (with_schema({"enum": [{1}]}), "JSON"),
    (with_schema({"type": "string", "pattern": "("}), "pattern"),
    (with_schema({"patternProperties": {"[": {}}}), r"\["),
    ({"type": "json_object", "schema": {"type": 1}}, "schema"),
    ({"type": "text", "more": {1}}, "JSON"),
    (Odd, "Odd.*no JSON schema"),
    (type("Große Sache", (BaseModel,), {}), "letters"),
]


@pytest.mark.parametrize(("given", "named"), BAD, ids=[named for _, named in BAD])
def test_what_is_no_format_is_refused_before_anything_is_stored(memory: Memory, session: Session, given: Any, named: str) -> None:
    for ask in (session.chat, session.stream, session.turn, session.context):
        with pytest.raises(InvalidSetting, match=named):
            ask("Hello", response_format=given)
    assert memory.sessions(owner="ada") == []


@pytest.mark.parametrize(
    ("given", "text", "problem"),
    [
        (FORMAT, '{"name": "Ada", "age": -1}', r"\$\.age: -1 is less than the minimum of 0"),
        (FORMAT, '{"name": "Ada"}', "'age' is a required property"),
        (FORMAT, "I do not know.", "no JSON"),
        (FORMAT, "", "no JSON"),
        (FORMAT, "[" * 100_000, "no JSON"),
        (Person, '{"name": "Ada", "age": -1}', "age: Input should be greater"),
        (Person, '{"name": "\ud800", "age": 1}', "Invalid JSON"),
        (with_schema({"items": {"$ref": "#"}}), "[" * 900 + "]" * 900, "too deeply|no JSON"),
        ({"type": "json_object"}, "[1]", "no JSON object"),
        ({"type": "json_object"}, '{"a": NaN}', "NaN"),
        ({"type": "json_object", "schema": SCHEMA}, "{}", "required"),
    ],
)
def test_another_reply_is_a_typed_error_and_can_be_asked_for_again(make: Make, given: Any, text: str, problem: str) -> None:
    session = make(text, ADA)
    with pytest.raises(InvalidReply, match=problem) as caught:
        session.chat("Who?", key="k", response_format=given)
    assert caught.value.text == text
    assert said(session)[1:] == [("assistant", text, "interrupted")]
    assert session.chat("Who?", key="k", response_format=given).parsed is not None
    assert [status for _, _, status in said(session)] == ["complete", "interrupted", "complete"]


def test_a_model_whose_own_validator_fails_loses_nothing(make: Make) -> None:
    session = make(ADA)
    with pytest.raises(InvalidReply, match="KeyError: 'Ada'"):
        session.chat("Who?", response_format=Picky)
    assert said(session)[1:] == [("assistant", ADA, "interrupted")]
    with session.turn("Who?", response_format=Picky, timeout=0) as turn:
        assert turn.finish(ADA).parsed is None


@pytest.mark.parametrize(("given", "text"), [(FORMAT, '{"name": "Ad'), (Person, '{"name": "Ada", "age": 3'), ({"type": "json_object"}, "")])
def test_a_reply_that_was_cut_inside_is_truncated_and_can_be_asked_for_again(make: Make, given: Any, text: str) -> None:
    session = make(backend=Ends((text, "length"), (ADA, "stop")))
    stream = session.stream("Who?", key="k", response_format=given, max_tokens=7)
    with pytest.raises(Truncated, match="limit of tokens, 7") as caught, stream:
        list(stream)
    assert (caught.value.text, caught.value.tokens) == (text, 7)
    assert (stream.reply.status, stream.reply.parsed) == ("interrupted", None)
    assert said(session)[1:] == [("assistant", text, "interrupted")]
    assert len(session.calls()) == 1
    assert session.chat("Who?", key="k", response_format=given).parsed is not None


def test_a_reply_that_was_cut_before_its_first_word_is_truncated_and_can_be_asked_for_again(make: Make) -> None:
    session = make(backend=Ends(("", "length"), ("Ada.", "stop")))
    with pytest.raises(Truncated, match="limit of tokens, 7, before its first word, or inside a call of a tool: give a larger") as caught:
        session.chat("Who?", key="k", max_tokens=7)
    assert (caught.value.text, caught.value.tokens) == ("", 7)
    assert [call.outcome for call in session.calls()] == ["interrupted"]
    assert session.chat("Who?", key="k").text == "Ada."


def test_a_value_that_was_whole_before_the_limit_is_a_value(make: Make) -> None:
    numbers = with_schema({"type": "integer"})
    session = make(backend=Ends((ADA, "length"), ("12", "length"), ("12", "stop"), ("cut", "length")))
    assert session.chat("Who?", response_format=FORMAT).parsed == {"name": "Ada", "age": 36}
    with pytest.raises(Truncated):
        session.chat("How many?", response_format=numbers)  # 123, perhaps
    assert session.chat("How many?", response_format=numbers).parsed == 12
    reply = session.chat("Tell me.", response_format={"type": "text"})
    assert (reply.text, reply.status, reply.finish) == ("cut", "complete", "length")


def test_what_was_left_early_is_no_error(make: Make) -> None:
    session = make(ADA)
    with session.stream("Who?", response_format=FORMAT) as stream:
        next(stream)
    assert (stream.reply.status, stream.reply.parsed) == ("interrupted", None)


def test_functions_run_before_the_value_is_given(make: Make) -> None:
    def look() -> str:
        return ADA

    session = make(Message.assistant("Let me see.", tool_calls=[ToolCall("a", "look", "{}")]), ADA)
    assert session.chat("Who?", tools=[look], response_format=Person).parsed == Person(name="Ada", age=36)


def test_calls_that_are_the_callers_are_no_wrong_value(make: Make) -> None:
    session = make(Message.assistant(None, tool_calls=[ToolCall("a", "Pet", "{}")]))
    reply = session.chat("Who?", tools=[Pet], response_format=Person)
    assert (reply.parsed, reply.finish, reply.status) == (None, "tool_calls", "complete")


def test_a_retried_turn_gives_the_value_again(make: Make) -> None:
    session = make(ADA)
    session.chat("Who?", key="k", response_format=Person)
    assert session.chat("Who?", key="k", response_format=Person).parsed == Person(name="Ada", age=36)
    assert session.chat("Who?", key="k", response_format=FORMAT).parsed == {"name": "Ada", "age": 36}
    assert session.chat("Who?", key="k").parsed is None


def test_ones_own_client_is_sent_the_schema_and_gets_the_value_where_there_is_one(make: Make) -> None:
    session = make()
    with session.turn("Who?", response_format=Person) as turn:
        assert turn.request["response_format"] == ResponseFormat(Person).wire
        assert turn.finish(ADA).parsed == Person(name="Ada", age=36)
    with session.turn("Who?", response_format=Person) as turn:
        reply = turn.finish("I do not know.")
    assert (reply.parsed, reply.status) == (None, "complete")


def test_the_errors_can_be_sent_to_another_process() -> None:
    errors: list[ThreadkeepError] = [Truncated("ab", 7), Truncated("ab", None), InvalidReply("ab", "no JSON")]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), vars(again)) == (str(error), vars(error))
