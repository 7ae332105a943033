"""What a reply must be, where a caller says it: a JSON schema or a pydantic model, as it is sent, and the reading of what came back."""

import json
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from threadkeep.memory.errors import InvalidReply, InvalidSetting
from threadkeep.memory.json_schema import check_json, check_schema, schema_of, strict, unmet
from threadkeep.memory.message import JSON

if TYPE_CHECKING:
    from pydantic import BaseModel

Format: TypeAlias = JSON | type[object]
"""A response format in OpenAI's format, or a pydantic model class."""
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What OpenAI takes for the name of a function or of a schema."""
TYPES = ("text", "json_object", "json_schema")


class ResponseFormat:
    """A response format as it is sent (`wire`), and what reads the reply.

    Raises:
        InvalidSetting: it is none, or its schema is none.
    """

    def __init__(self, given: Format) -> None:
        self._model: type[BaseModel] | None = None
        self._schema: JSON | None = None
        if is_model(given):
            self._model = given
            self.wire: JSON = _of_model(given)
        elif isinstance(given, Mapping):
            self.wire = given
            self._schema = _schema_in(given)
        else:
            raise InvalidSetting(f"response_format is a dict in OpenAI's format or a pydantic model class, not {given!r:.80}")

    @property
    def asks(self) -> bool:
        """Whether it asks for anything but text."""
        return self.wire["type"] != "text"

    def parse(self, text: str) -> object:
        """The value that the text says; None where text is all that was asked for.

        Raises:
            InvalidReply: it says none, or one that the schema does not allow.
        """
        if not self.asks:
            return None
        if self._model is not None:
            return _validated(self._model, text)
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise InvalidReply(text, f"it is no JSON: {error}") from None
        if self._schema is None and not isinstance(value, dict):
            raise InvalidReply(text, f"it is no JSON object, but of type {type(value).__name__}")
        try:
            problem = None if self._schema is None else unmet(value, self._schema)
        except RecursionError:
            problem = "it is nested too deeply"
        if problem is not None:
            raise InvalidReply(text, problem)
        return value

    def parsed(self, text: str) -> object:
        """The same, or None where it cannot be read."""
        try:
            return self.parse(text)
        except InvalidReply:
            return None

    def is_whole(self, text: str) -> bool:
        """Whether a reply that was cut off says the whole value all the same: nothing that follows could change it."""
        if not self.asks:
            return True
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, bool) or not isinstance(value, int | float)  # of a number, more digits might have come


def read_format(given: Format | None) -> ResponseFormat | None:
    """A response format read, where one is given."""
    return None if given is None else ResponseFormat(given)


def is_model(given: object) -> "TypeGuard[type[BaseModel]]":
    """Whether it is a pydantic model class; pydantic is not imported to find out."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(given, type) and issubclass(given, pydantic.BaseModel)


def problems(error: Any) -> str:  # Any: pydantic's ValidationError, imported by nobody before it is needed
    """What a validation found, in a line: `where: Field required; when: …`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in found[:5]]
    return "; ".join(told + [f"and {len(found) - 5} more"] * (len(found) > 5))


def _of_model(model: "type[BaseModel]") -> JSON:
    if not NAME.fullmatch(model.__name__):
        raise InvalidSetting(f"response_format={model.__name__}: the class's name is of 1 to 64 letters, digits, _ and -")
    schema = schema_of(model)
    made = strict(schema)
    return {
        "type": "json_schema",
        "json_schema": {"name": model.__name__, "schema": schema if made is None else made, "strict": made is not None},
    }


def _schema_in(given: JSON) -> JSON | None:
    """The schema that a format holds, checked; None where it holds none."""
    kind = given.get("type")
    if kind not in TYPES:
        raise InvalidSetting(f"response_format['type'] is one of {', '.join(TYPES)}, not {kind!r:.80}")
    check_json(given, "response_format")
    if kind == "text":
        return None
    if kind == "json_object":  # llama.cpp's server takes a schema here
        schema, place = given.get("schema"), "response_format['schema']"
        if schema is None:
            return None
    else:
        inner = given.get("json_schema")
        if not isinstance(inner, Mapping):
            raise InvalidSetting("response_format['json_schema'] is missing: {'name': …, 'schema': …}")
        name = inner.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InvalidSetting(f"response_format['json_schema']['name'] is of 1 to 64 letters, digits, _ and -, not {name!r:.80}")
        schema, place = inner.get("schema"), "response_format['json_schema']['schema']"
    check_schema(schema, place)
    return schema if isinstance(schema, Mapping) else None


def _validated(model: "type[BaseModel]", text: str) -> object:
    from pydantic import ValidationError

    try:
        return model.model_validate_json(text.encode("utf-8", "surrogatepass"))
    except ValidationError as error:
        raise InvalidReply(text, problems(error)) from None
    except Exception as error:  # the model class has validators of its own
        raise InvalidReply(text, f"{type(error).__name__}: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
