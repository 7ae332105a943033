"""JSON schemas: read from pydantic's types, made strict where a provider wants it, and checked before anything is sent or stored."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]  # Any: JSON of any depth
MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords that hold schemas by name."""
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


class NotStrict(Exception):
    """The schema says something that the strict form cannot."""


def schema_of(model: "type[BaseModel]") -> Schema:
    """A pydantic model's schema, without the titles that pydantic makes of names: they cost tokens and say nothing.

    Raises:
        InvalidSetting: a field has a type that JSON schema cannot describe.
    """
    from pydantic.errors import PydanticUserError

    try:
        return _mapped(model.model_json_schema(schema_generator=_generator()), _untitled)
    except PydanticUserError as error:
        raise InvalidSetting(f"{model.__name__} has no JSON schema: {str(error).splitlines()[0]}") from None


def strict(schema: Schema) -> Schema | None:
    """The same as OpenAI's strict mode wants it: every property required, none beside them; None where it cannot be said so.

    What may be left out in Python is then always written by the model, `null` or the default included.
    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    try:
        return _mapped(schema, lambda part: _strict(part, schema))
    except NotStrict:
        return None


def check_schema(schema: object, place: str) -> None:
    """See that it is a JSON schema that stands by itself.

    Raises:
        InvalidSetting: it is none, or refers to what it does not hold; the message names the place inside.
    """
    if not isinstance(schema, Mapping):
        raise InvalidSetting(f"{place} is a JSON schema, a dict, not {type(schema).__name__}")
    problem = _problem(check_json(schema, place))
    if problem is not None:
        raise InvalidSetting(problem.replace("$", place, 1))


def check_json(given: object, place: str) -> str:
    """Its JSON.

    Raises:
        InvalidSetting: JSON cannot hold it.
    """
    try:
        return json.dumps(given, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSetting(f"{place} cannot be sent as JSON: {error}") from None


@lru_cache(maxsize=256)
def _problem(text: str) -> str | None:
    """What is wrong with a schema, `$` standing for its place. Kept, since looking takes milliseconds, and each request brings the same."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)  # patterns that Python reads
    except SchemaError as error:
        return f"{error.json_path} is no JSON schema: {error.message:.200}"
    for reference in _references(schema):
        try:
            _target(schema, reference)
        except LookupError:
            return f"$ refers to {reference!r:.80}, which it does not hold: write '#/$defs/…', and define it there"
    return None


def unmet(value: object, schema: JSON) -> str | None:
    """The first thing that a value does not meet, with its place; None where it meets all."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(dict(schema)).iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message:.200}"


@cache
def _generator() -> "type[GenerateJsonSchema]":
    from pydantic.json_schema import GenerateJsonSchema

    class Silent(GenerateJsonSchema):
        """A default that JSON cannot hold is left out without a warning: the function has it anyway."""

        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as pydantic has it

    return Silent


def _mapped(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Every schema inside, changed, the innermost last."""
    changed = change(schema)
    for keyword, held in changed.items():
        if keyword in MAPS and isinstance(held, dict):
            changed[keyword] = {name: _mapped(one, change) if isinstance(one, dict) else one for name, one in held.items()}
        elif keyword in LISTS and isinstance(held, list):
            changed[keyword] = [_mapped(one, change) if isinstance(one, dict) else one for one in held]
        elif keyword in SINGLE and isinstance(held, dict):
            changed[keyword] = _mapped(held, change)
    return changed


def _untitled(part: Schema) -> Schema:
    """Without its title, and without the `allOf` that older releases of pydantic put around a reference."""
    made = {keyword: held for keyword, held in part.items() if keyword != "title"}
    if len(made.get("allOf", ())) == 1:
        (only,) = made.pop("allOf")
        return _untitled({**only, **made})
    return made


def _strict(part: Schema, whole: Schema) -> Schema:
    made = {keyword: held for keyword, held in part.items() if keyword not in ("default", "discriminator")}
    if "$ref" in made and len(made) > 1:  # nothing may stand beside a reference
        reference = made.pop("$ref")
        return _strict({**_target(whole, reference), **made}, whole)
    if "oneOf" in made:
        made["anyOf"] = made.pop("oneOf")
    if not made or "patternProperties" in made or "prefixItems" in made:
        raise NotStrict
    if made.get("type") == "object" or "properties" in made:
        if made.get("additionalProperties", False) is not False:
            raise NotStrict
        made["additionalProperties"] = False
        made["properties"] = made.get("properties", {})
        made["required"] = list(made["properties"])
    return made


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for keyword, held in schema.items():
            if keyword == "$ref" and isinstance(held, str):
                yield held
            else:
                yield from _references(held)
    elif isinstance(schema, list | tuple):
        for one in schema:
            yield from _references(one)


def _target(schema: JSON, reference: str) -> Schema:
    """What a reference into the same document names.

    Raises:
        LookupError: nothing there, or it leads elsewhere.
    """
    root, *steps = reference.split("/")
    if root != "#":
        raise LookupError(reference)
    found: Any = schema
    for step in steps:
        found = found[step.replace("~1", "/").replace("~0", "~")] if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        raise LookupError(reference)
    return dict(found)
