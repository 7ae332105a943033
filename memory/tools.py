"""Tools as callers give them: Python functions, pydantic models, OpenAI dicts. Read to what a model is sent, and run when it calls one.

A function runs here. A model class or a dict only tells the model what there is: its calls are the caller's.
"""

import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin
from weakref import WeakKeyDictionary

from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.json_schema import Schema, check_json, schema_of
from threadkeep.memory.message import JSON, ToolCall
from threadkeep.memory.response_format import NAME, is_model, problems

if TYPE_CHECKING:
    from pydantic import BaseModel

_log = logging.getLogger("threadkeep")


@dataclass(frozen=True)
class Described:
    """What a function's signature and docstring say. Holds nothing of the function itself, so it may be kept for the next time."""

    description: str
    parameters: Schema
    arguments: "type[BaseModel]"
    """Reads a call's arguments; its fields are called by their places, since a parameter may be called like a method of it."""
    names: tuple[str, ...]
    positional: int
    """How many of the parameters, the first, have no name for a caller."""


@dataclass(frozen=True)
class Tool:
    """One tool."""

    schema: JSON
    name: str | None
    """None: of a kind that a provider runs itself, without a name."""
    kind: str = "function"
    function: Callable[..., object] | None = None
    described: Described | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Ready:
    """A call whose arguments are right."""

    work: Callable[[], object]
    asynchronous: bool


class Toolbox:
    """The tools of one request.

    Raises:
        InvalidSetting: names the tool that is none, or that no model can be told of.
    """

    def __init__(self, given: Sequence[object] | None) -> None:
        if given is not None and (isinstance(given, str | Mapping) or not isinstance(given, Sequence)):
            raise InvalidSetting(f"tools is a list of functions, pydantic models and dicts, not {type(given).__name__}")
        tools = [_read(tool, f"tools[{place}]") for place, tool in enumerate(given or ())]
        self._named: dict[str, Tool] = {}
        for place, tool in enumerate(tools):
            if tool.name is not None and tool.name in self._named:
                raise InvalidSetting(f"tools[{place}]: another tool is called {tool.name!r} too, and a model calls them by name")
            if tool.name is not None:
                self._named[tool.name] = tool
        self.schemas: tuple[JSON, ...] = tuple(tool.schema for tool in tools)
        """In OpenAI's format, as a request has them."""
        self._functions = {name for name, tool in self._named.items() if tool.function is not None}

    def choose(self, tool_choice: str | JSON | None) -> str | JSON | None:
        """A `tool_choice` as a request has it; a tool's name alone becomes OpenAI's dict.

        Raises:
            InvalidSetting: it is none, or names a tool that is not here.
        """
        if tool_choice is None or tool_choice in ("auto", "none"):
            return tool_choice
        if not self.schemas:
            raise InvalidSetting(f"tool_choice={tool_choice!r:.80} without tools: give tools too")
        if tool_choice == "required":
            return tool_choice
        name: object = tool_choice
        if isinstance(tool_choice, Mapping):
            check_json(tool_choice, "tool_choice")
            kind = tool_choice.get("type")
            inner = tool_choice.get(kind) if isinstance(kind, str) else None
            if isinstance(kind, str) and kind != "function" and not isinstance(inner, Mapping):
                return tool_choice  # of a provider's own kind
            name = inner.get("name") if isinstance(inner, Mapping) else None
        tool = self._named.get(name) if isinstance(name, str) else None
        if tool is None:
            known = ", ".join(self._named) or "none that has a name"
            raise InvalidSetting(f"tool_choice={tool_choice!r:.80}: 'auto', 'none', 'required', or one of the tools given: {known}")
        return tool_choice if isinstance(tool_choice, Mapping) else {"type": tool.kind, tool.kind: {"name": tool.name}}

    def runs(self, calls: Sequence[ToolCall]) -> bool:
        """Whether these calls are answered here: none of them is of a tool that is the caller's own."""
        callers = self._named.keys() - self._functions
        return bool(calls and self._functions) and all(call.type == "function" and call.name not in callers for call in calls)

    def ready(self, call: ToolCall) -> Ready | str:
        """The call of a function, its arguments read and checked; or what to tell the model of what is wrong with it."""
        tool = self._named.get(call.name)
        if tool is None or tool.function is None or tool.described is None:
            return f"Error: there is no tool called {call.name!r:.80}. There are: {', '.join(sorted(self._functions))}"
        from pydantic import ValidationError

        described = tool.described
        try:
            read = described.arguments.model_validate_json((call.arguments.strip() or "{}").encode("utf-8", "surrogatepass"))
        except ValidationError as error:
            return f"Error: the arguments are wrong: {problems(error)}"
        except Exception as error:  # noqa: BLE001  # a type of the function's has validators of its own
            return failed(error)
        given = [getattr(read, _field(place)) for place in range(described.positional)]
        by_name = range(described.positional, len(described.names))
        named = {described.names[place]: getattr(read, _field(place)) for place in by_name if _field(place) in read.model_fields_set}
        return Ready(partial(tool.function, *given, **named), is_async(tool.function))


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives what must be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def told(value: object) -> str:
    """A tool's result as the model reads it: text as it is, anything else as JSON."""
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum, its value
    try:
        try:
            return _json(value)
        except TypeError:  # a key that JSON has no form for: a date, an id, a pair
            return _json(_keyed(value))
    except (TypeError, ValueError, RecursionError) as error:
        return failed(error)


def failed(error: BaseException) -> str:
    """An error as the model reads it: class and message, nothing of where it happened."""
    _log.info("a tool failed, and the model is told so", exc_info=error)
    try:
        said = str(error)
    except Exception:  # noqa: BLE001  # an error of the tool's own may not even say what it is
        said = ""
    return f"Error: {type(error).__name__}: {said}" if said else f"Error: {type(error).__name__}"


def _json(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _keyed(value: object) -> object:
    """The same with keys that JSON has a form for."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str | int | float | None) else _key(key): _keyed(held) for key, held in value.items()}
    return [_keyed(one) for one in value] if isinstance(value, list | tuple) else value


def _key(key: object) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else _json(plain)


def _plain(value: object) -> object:
    """What JSON has no form for, as pydantic writes it: models, dates, decimals; what it does not know, as text."""
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(object).dump_python(value, mode="json")
    except ValueError:  # pydantic's error for a type that it cannot write
        return str(value)


def _read(tool: object, place: str) -> Tool:
    if isinstance(tool, Mapping):
        return _of_dict(tool, place)
    if is_model(tool):
        description = inspect.cleandoc(vars(tool).get("__doc__") or "")
        return Tool(_function(_named(tool.__name__, place), description, _parameters(tool, place)), tool.__name__)
    if isinstance(tool, type) or not callable(tool):
        raise InvalidSetting(f"{place} is a function, a pydantic model class or a dict in OpenAI's format with a type, not {tool!r:.80}")
    name = getattr(tool, "__name__", None)
    if not isinstance(name, str):
        raise InvalidSetting(f"{place} has no name that a model could call it by: write a function with def, not {tool!r:.80}")
    place = f"{place}, {_named(name, place)}(),"
    described = _described(tool, place)
    return Tool(_function(name, described.description, described.parameters), name, function=tool, described=described)


def _named(name: object, place: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidSetting(f"{place}: a tool's name is of 1 to 64 letters, digits, _ and -, not {name!r:.80}")
    return name


def _function(name: str, description: str, parameters: Schema) -> JSON:
    told = {"description": description} if description else {}
    return {"type": "function", "function": {"name": name, **told, "parameters": parameters}}


def _of_dict(tool: JSON, place: str) -> Tool:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise InvalidSetting(f"{place} is a dict in OpenAI's format with a type, not {tool!r:.80}")
    check_json(tool, place)
    inner = tool.get(kind)
    if kind != "function":
        name = inner.get("name") if isinstance(inner, Mapping) else None
        return Tool(tool, None if name is None else _named(name, place), kind)
    if not isinstance(inner, Mapping):
        raise InvalidSetting(f"{place}['function'] is missing: {{'name': …, 'parameters': …}}")
    name = _named(inner.get("name"), place)
    if not isinstance(inner.get("parameters"), Mapping | None):
        raise InvalidSetting(f"{place}: the parameters of {name} are a JSON schema, a dict, not {type(inner['parameters']).__name__}")
    return Tool(tool, name)


def _parameters(model: "type[BaseModel]", place: str) -> Schema:
    """A model's schema without its own docstring, which stands as the tool's description."""
    try:
        schema = schema_of(model)
    except InvalidSetting as error:
        raise InvalidSetting(f"{place}: {error}") from None
    return {keyword: held for keyword, held in schema.items() if keyword != "description"}


_known: WeakKeyDictionary[FunctionType, dict[bool, Described]] = WeakKeyDictionary()
"""By function, and whether it is bound to an object: making a schema takes about a millisecond."""


def _described(function: Callable[..., object], place: str) -> Described:
    bound = inspect.ismethod(function)
    plain = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(plain, FunctionType):
        return _describe(function, place)
    kept = _known.setdefault(plain, {})
    if bound not in kept:
        kept[bound] = _describe(function, place)
    return kept[bound]


def _describe(function: Callable[..., object], place: str) -> Described:
    from pydantic import ConfigDict, Field, create_model
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidSetting(f"{place} is a generator: a tool gives its result at once")
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except (ValueError, TypeError, NameError) as error:
        raise InvalidSetting(f"{place} has no signature that can be read: {error}") from None
    description, documented = _documented(function)
    fields: dict[str, Any] = {}
    for at, parameter in enumerate(parameters):
        _check(parameter, place)
        about: dict[str, Any] = (
            {} if _says(parameter.annotation) or parameter.name not in documented else {"description": documented[parameter.name]}
        )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[_field(at)] = (parameter.annotation, Field(default, alias=parameter.name, **about))
    try:
        arguments: type[BaseModel] = create_model("arguments", __config__=ConfigDict(extra="forbid"), **fields)
        schema = schema_of(arguments)
    except (InvalidSetting, PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise InvalidSetting(f"{place} has a parameter that no JSON schema can describe: {str(error).splitlines()[0]}") from None
    positional = sum(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters)
    return Described(description, schema, arguments, tuple(parameter.name for parameter in parameters), positional)


def _check(parameter: inspect.Parameter, place: str) -> None:
    from pydantic.fields import FieldInfo

    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidSetting(f"{place} takes {parameter}: a model must be told each parameter by name")
    if parameter.annotation is parameter.empty:
        raise InvalidSetting(f"{place} does not say of which type {parameter.name} is: write {parameter.name}: str, or what it is")
    if isinstance(parameter.default, FieldInfo):
        raise InvalidSetting(f"{place} has a Field as default of {parameter.name}: write {parameter.name}: Annotated[…, Field(…)] instead")


def _documented(function: Callable[..., object]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter; Google's, numpy's, Sphinx' and Epydoc's forms are read."""
    text = inspect.getdoc(function) or ""
    if not text:
        return "", {}
    import docstring_parser

    try:
        read = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    parts = [part for part in (read.short_description, read.long_description) if part]
    return "\n\n".join(parts), {one.arg_name: one.description for one in read.params if one.description}


def _says(annotation: object) -> bool:
    """Whether an annotation describes itself: `Annotated[str, Field(description=…)]`."""
    if get_origin(annotation) is not Annotated:
        return False
    return any(getattr(one, "description", None) for one in get_args(annotation)[1:])


def _field(place: int) -> str:
    return f"argument_{place}"
