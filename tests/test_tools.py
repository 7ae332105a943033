"""Tools as callers give them: what the model is told of each, what is refused, and how a call is read."""

import functools
import gc
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, field_validator

from threadkeep import InvalidSetting, Memory, Message, ScriptedBackend, Session, ToolCall
from threadkeep.memory import tools
from threadkeep.memory.tools import Ready, Toolbox, failed, told

DICT = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class StrColour(StrEnum):
    GREEN = "green"


class Place(BaseModel):
    """Somewhere."""

    town: str
    title: str | None = None


def weather(place: Place, days: int = 3, unit: Literal["c", "f"] = "c", colours: list[Colour] | None = None) -> str:
    """Say what the weather will be.

    It is made up.

    Args:
        place: where.
        days: how many days ahead,
            today included.
        unit: of the temperature.

    Returns:
        A sentence.
    """
    return f"{place.town} {days} {unit} {colours}"


def schema(tool: object) -> Any:
    (made,) = Toolbox([tool]).schemas
    return made["function"]


def ready(tool: object, arguments: str) -> Ready | str:
    box = Toolbox([tool])
    name = next(iter(box._named))
    return box.ready(ToolCall("a", name, arguments))


def run(tool: object, arguments: str) -> object:
    bound = ready(tool, arguments)
    assert isinstance(bound, Ready), bound
    return bound.work()


def test_a_function_is_told_by_its_signature_and_its_docstring() -> None:
    assert schema(weather) == {
        "name": "weather",
        "description": "Say what the weather will be.\n\nIt is made up.",
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "place": {"$ref": "#/$defs/Place", "description": "where."},
                "days": {"type": "integer", "default": 3, "description": "how many days ahead,\ntoday included."},
                "unit": {"enum": ["c", "f"], "type": "string", "default": "c", "description": "of the temperature."},
                "colours": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Colour"}}, {"type": "null"}], "default": None},
            },
            "required": ["place"],
            "$defs": {
                "Colour": {"enum": ["red", "blue"], "type": "string"},
                "Place": {
                    "type": "object",
                    "description": "Somewhere.",
                    "properties": {
                        "town": {"type": "string"},
                        "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                    },
                    "required": ["town"],
                },
            },
        },
    }


def numpy_style(far: float) -> None:
    """Walk.

    Parameters
    ----------
    far : float
        Kilometres.
    """


def sphinx_style(far: float) -> None:
    """Walk.

    :param far: Kilometres.
    """


def described_twice(far: Annotated[float, Field(description="Miles.", gt=0)]) -> None:
    """Walk.

    Args:
        far: Kilometres.
    """


@pytest.mark.parametrize(("function", "said"), [(numpy_style, "Kilometres."), (sphinx_style, "Kilometres."), (described_twice, "Miles.")])
def test_docstrings_are_read_in_any_common_form_and_an_annotation_comes_first(function: Callable[..., None], said: str) -> None:
    told_of = schema(function)
    assert told_of["description"] == "Walk."
    assert told_of["parameters"]["properties"]["far"]["description"] == said


def test_a_model_class_and_a_dict_are_told_as_they_are() -> None:
    class Booking(BaseModel):
        """Book a table."""

        seats: int = Field(ge=1)

    assert Toolbox([Booking, DICT]).schemas == (
        {
            "type": "function",
            "function": {
                "name": "Booking",
                "description": "Book a table.",
                "parameters": {"type": "object", "properties": {"seats": {"type": "integer", "minimum": 1}}, "required": ["seats"]},
            },
        },
        DICT,
    )
    assert "description" not in schema(type("Bare", (BaseModel,), {}))
    assert Toolbox([{"type": "web_search"}]).schemas == ({"type": "web_search"},)
    assert Toolbox(None).schemas == ()


def no_annotation(where) -> None: ...  # type: ignore[no-untyped-def]
def starred(*where: str) -> None: ...
def double_starred(**where: str) -> None: ...
def of_no_type(where: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def of_strange_type(where: functools.partial[str]) -> None: ...
def of_callable(where: Callable[[], None]) -> None: ...
def with_field(where: str = Field("here")) -> None: ...
def gives_many() -> Any:
    yield 1


class Instance:
    def __call__(self, where: str) -> str:
        return where


BAD: list[tuple[object, str]] = [
    (no_annotation, "no_annotation.*where"),
    (starred, r"starred.*\*where"),
    (double_starred, r"double_starred.*\*\*where"),
    (of_no_type, "of_no_type.*Nowhere"),
    (of_strange_type, "of_strange_type"),
    (of_callable, "of_callable"),
    (with_field, "with_field.*Annotated"),
    (gives_many, "gives_many.*generator"),
    (lambda where: where, "<lambda>"),
    (functools.partial(weather, days=1), "def"),
    (Instance(), "def"),
    (Instance, "function, a pydantic model"),
    (dict, "function, a pydantic model"),
    ("weather", "'weather'"),
    (None, "None"),
    ({"name": "pay"}, "type"),
    ({"type": "function"}, "function"),
    ({"type": "function", "function": {}}, "name"),
    ({"type": "function", "function": {"name": "pay now"}}, "pay now"),
    ({"type": "function", "function": {"name": "p" * 65}}, "64"),
    ({"type": "function", "function": {"name": "pay", "parameters": []}}, "parameters of pay"),
    ({"type": "function", "function": {"name": "pay", "parameters": {"type": {1}}}}, "JSON"),
    ({"type": "custom", "custom": {"name": "a b"}}, "a b"),
]


@pytest.mark.parametrize(("tool", "named"), BAD, ids=[named for _, named in BAD])
def test_what_no_model_can_be_told_of_is_refused_by_name_before_anything_is_stored(
    memory: Memory, session: Session, tool: object, named: str
) -> None:
    with pytest.raises(InvalidSetting, match=rf"(?s)tools\[1\].*{named}"):
        session.chat("Hello", tools=[weather, tool])
    with pytest.raises(InvalidSetting):
        session.turn("Hello", tools=[tool])
    with pytest.raises(InvalidSetting):
        session.context("Hello", tools=[tool])
    assert memory.sessions(owner="ada") == []


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"tools\[1\].*'pay'"):
        Toolbox([DICT, DICT])


@pytest.mark.parametrize("given", ["weather", {"a": 1}, weather])
def test_tools_are_a_list(session: Session, given: Any) -> None:
    with pytest.raises(InvalidSetting, match="list"):
        session.chat("Hello", tools=given)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        ({"type": "function", "function": {"name": "pay"}}, {"type": "function", "function": {"name": "pay"}}),
        ({"type": "allowed_tools", "mode": "auto"}, {"type": "allowed_tools", "mode": "auto"}),
    ],
)
def test_a_tool_is_chosen_by_its_name(session: Session, choice: Any, sent: object) -> None:
    context = session.context("Hello", tools=[weather, DICT], tool_choice=choice)
    assert context.tool_choice == context.request.get("tool_choice") == sent


@pytest.mark.parametrize(
    "choice", ["fly", "", 3, {"type": "function"}, {"type": "function", "function": {"name": "fly"}}, {"name": "pay"}, []]
)
def test_a_choice_of_what_is_not_there_is_refused(memory: Memory, session: Session, choice: Any) -> None:
    with pytest.raises(InvalidSetting, match="tool_choice"):
        session.chat("Hello", tools=[weather, DICT], tool_choice=choice)
    with pytest.raises(InvalidSetting, match="without tools"):
        session.chat("Hello", tool_choice="required")
    assert memory.sessions(owner="ada") == []


def test_arguments_come_as_the_types_that_the_function_says() -> None:
    given: list[object] = []

    def keep(place: Place, when: date, colours: list[Colour], price: Decimal = Decimal(1)) -> None:
        given.extend([place, when, colours, price])

    run(keep, '{"place": {"town": "Ulm"}, "when": "2026-11-22", "colours": ["red"]}')
    assert given == [Place(town="Ulm"), date(2026, 11, 22), [Colour.RED], Decimal(1)]


def test_parameters_may_be_called_like_anything() -> None:
    def odd(schema: str, model_config: int, copy: bool, _hidden: str = "x", self: str = "y", json: str = "z") -> object:
        return [schema, model_config, copy, _hidden, self, json]

    assert run(odd, '{"schema": "a", "model_config": 1, "copy": true, "_hidden": "b", "self": "c"}') == ["a", 1, True, "b", "c", "z"]


def test_positional_parameters_and_methods_are_called_as_they_must_be() -> None:
    def half(first: int, second: int = 2, /, third: int = 3) -> object:
        return [first, second, third]

    class Shop:
        def __init__(self, town: str) -> None:
            self.town = town

        def sell(self, what: str) -> str:
            """Sell.

            Args:
                what: goods.
            """
            return f"{what} in {self.town}"

        @staticmethod
        def shut() -> str:
            return "shut"

    assert run(half, '{"first": 1, "third": 4}') == [1, 2, 4]
    assert [run(Shop(town).sell, '{"what": "tea"}') for town in ("Ulm", "Bonn")] == ["tea in Ulm", "tea in Bonn"]
    assert run(Shop("Ulm").shut, "") == "shut"
    assert run(functools.lru_cache(Shop.shut), " ") == "shut"


class Sentinel:
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def test_a_default_that_json_cannot_hold_stays_the_functions_own() -> None:
    nothing = Sentinel()

    def look(where: str = nothing) -> object:  # type: ignore[assignment]
        return where

    assert run(look, "{}") is nothing
    assert schema(look)["parameters"]["properties"] == {"where": {"type": "string"}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"place": {"town": 3}, "day": 1}', "place.town: Input should be a valid string; day: Extra inputs are not permitted"),
        ('{"place"', "Invalid JSON"),
        ("[1]", "should be an object"),
        ("null", "should be an object"),
        ("{}", "place: Field required"),
        ('{"place": {"town": "\ud800"}}', "Invalid JSON"),
        ('{"place": {"town": "x"}, "colours": [1, 2, 3, 4, 5, 6, 7]}', "and 2 more"),
    ],
)
def test_wrong_arguments_are_told_to_the_model(arguments: str, said: str) -> None:
    answer = ready(weather, arguments)
    assert isinstance(answer, str)
    assert answer.startswith("Error: the arguments are wrong: ")
    assert said in answer


class Picky(BaseModel):
    town: str

    @field_validator("town")
    @classmethod
    def never(cls, town: str) -> str:
        raise KeyError(town)


def test_a_type_whose_own_validator_fails_is_told_to_the_model() -> None:
    def visit(place: Picky) -> None: ...

    assert ready(visit, '{"place": {"town": "Ulm"}}') == "Error: KeyError: 'Ulm'"


def test_a_tool_that_is_not_there_is_told_to_the_model() -> None:
    answer = Toolbox([weather, DICT]).ready(ToolCall("a", "fly", "{}"))
    assert answer == "Error: there is no tool called 'fly'. There are: weather"


def test_only_calls_of_functions_are_run_here() -> None:
    box = Toolbox([weather, DICT])
    mine, callers, nobodys = (ToolCall("a", name, "{}") for name in ("weather", "pay", "fly"))
    assert box.runs([mine, mine, nobodys])
    assert not box.runs([mine, callers])
    assert not box.runs([])
    assert not box.runs([ToolCall("a", "weather", "x", type="custom")])
    assert not Toolbox([DICT]).runs([nobodys])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is \ud800\0", "as it is \ud800\0"),
        (None, "null"),
        ({"a": [1, 2.5, True, "ü"]}, '{"a":[1,2.5,true,"ü"]}'),
        ([Place(town="Ulm"), date(2026, 1, 2), Decimal("1.10"), Colour.RED], '[{"town":"Ulm","title":null},"2026-01-02","1.10","red"]'),
        (Place(town="Ulm"), '{"town":"Ulm","title":null}'),
        (float("nan"), "NaN"),
        (StrColour.GREEN, "green"),
        ({"a": {StrColour.GREEN}, "b": "\ud800"}, '{"a":["green"],"b":"\ud800"}'),
        (b"bytes", '"bytes"'),
        ({date(2026, 1, 2): Decimal(3), UUID(int=5): [{(1, 2): None}]}, f'{{"2026-01-02":"3","{UUID(int=5)}":[{{"[1,2]":null}}]}}'),
        ({1: "a", None: "b", Colour.RED: Place(town="Ulm")}, '{"1":"a","null":"b","red":{"town":"Ulm","title":null}}'),
    ],
)
def test_results_are_told_as_text(value: object, text: str) -> None:
    assert told(value) == text


def test_a_result_that_cannot_be_told_is_an_error_for_the_model() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert told(endless).startswith("Error: ")
    assert "Sentinel" in told(Sentinel())


def test_an_error_is_told_by_class_and_message() -> None:
    assert failed(KeyError("x")) == "Error: KeyError: 'x'"
    assert failed(TimeoutError()) == "Error: TimeoutError"
    assert failed(Mute()) == "Error: Mute"


def test_a_function_is_described_once_and_kept_no_longer_than_it_lives() -> None:
    def passing(where: str) -> str:
        return where

    assert Toolbox([passing])._named["passing"].described is Toolbox([passing])._named["passing"].described
    known = len(tools._known)
    del passing
    gc.collect()
    assert len(tools._known) < known


def test_a_turn_of_ones_own_client_is_told_of_functions_too(session: Session) -> None:
    with session.turn("Hello", tools=[weather], tool_choice="weather") as turn:
        assert turn.request["tools"] == list(Toolbox([weather]).schemas)
        assert turn.request["tool_choice"]["function"] == {"name": "weather"}
        assert turn.context.tools_tokens > 0
        assert json.loads(json.dumps(turn.request)) == turn.request
        turn.finish(Message.assistant(None, tool_calls=[ToolCall("a", "weather", "{}")]))


def test_nothing_of_pydantic_is_loaded_for_tools_that_are_dicts(url: str) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from threadkeep import Memory, ScriptedBackend\n"
        f"with Memory({url!r}, backend=ScriptedBackend(['Fine.'])) as memory:\n"
        f"    memory.session('x').chat('Hello', tools=[{DICT!r}])\n"
        "print('pydantic' in sys.modules, 'jsonschema' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_the_count_of_a_context_holds_what_its_tools_cost(url: str) -> None:
    with Memory(url, backend=ScriptedBackend([])) as memory:
        session = memory.session("chat")
        bare, with_tools = session.context("Hello"), session.context("Hello", tools=[weather])
    assert with_tools.tokens == bare.tokens + with_tools.tools_tokens > bare.tokens
