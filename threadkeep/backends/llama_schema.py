"""A JSON schema made ready to hold a model to: nothing in it silently dropped, and no value without an end.

The engine's grammars are llguidance's, which honours or refuses every keyword that it knows. What a small model could go on with for
ever (a text, a list, the digits of a number, keys that the schema does not name) gets a limit where the schema sets none, so that it
ends within the reply. All that is made here allows less than the schema given, never more.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from threadkeep.memory.errors import InvalidSetting, MissingExtra
from threadkeep.memory.message import JSON

MOST_ITEMS, LEAST_ITEMS = 16, 2
"""Items of a list, or keys of an object that the schema does not name, where it sets no number: as many of these as the room holds."""
LEAF = 18
"""Tokens that a text or a number takes with its key, when it is a long one."""
LEAST_TEXT = 64
"""Characters that a text may always have."""
LONGEST_KEY = 40
"""Characters of a key that the schema does not name."""
LONGEST_MATCH = 256
"""Characters of a text with a pattern or a format, at the least."""
DEPTH = 3
"""How deep a value of any kind may nest."""
LARGEST, FINEST = 10**15, 0.000001
"""Numbers reach from minus `LARGEST` to it, with decimals down to `FINEST`, where the schema does not say otherwise."""
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON on one line, as templates write it and models were trained on it."""
ANY = "threadkeep-any-"

REFUSED = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames", "dependentRequired", "dependentSchemas"),
    *("dependencies", "additionalItems", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"),
)
"""Keywords that no grammar here honours."""
FORMATS = frozenset({"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
"""Formats that are honoured; another is a note to the reader, as the standard has it."""
_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_DATE = f"({_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
EXACT = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
"""Formats as patterns: llguidance's own let through the year 0, every 29th of February and leap seconds, which Python cannot read."""
_APPLIED = {"enum", "const", "$ref", "anyOf", "oneOf", "allOf"}
_SPEAKS_OF = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "minLength", "maxLength", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
"""Keywords by the type they speak of: a schema with some and no type is taken to mean that type."""


def compiled(schema: object, room: int, place: str) -> str:
    """The schema as the engine takes it, as JSON text, for a reply of `room` tokens.

    Args:
        schema: a JSON schema.
        room: tokens; texts without a `maxLength` share two characters for each.
        place: what the schema belongs to, for the error.

    Raises:
        InvalidSetting: it cannot be held to; with the place and the reason.
        MissingExtra: llguidance is not installed.
    """
    if not isinstance(schema, Mapping):
        raise InvalidSetting(f"{place} is a JSON schema, a dict, not {schema!r:.80}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSetting(f"{place} is no JSON: {error}") from None
    return _compiled(text, room, place)


@lru_cache(maxsize=512)
def _compiled(text: str, room: int, place: str) -> str:
    schema = json.loads(text)
    counting = _Bounds(LEAST_TEXT, room, place)
    counting.root(schema)
    made = json.dumps(_Bounds(max(LEAST_TEXT, 2 * room // max(counting.texts, 1)), room, place).root(schema))
    if (problem := refusal(f"%llguidance {{}}\nstart: %json {made}")) is not None:
        raise InvalidSetting(f"{place} cannot be held to: {problem}")
    return made


def refusal(grammar: str) -> str | None:
    """Why the engine would not take a grammar; None where it takes it. The engine itself would go on without, in silence."""
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise MissingExtra("llguidance", "local") from error
    matcher = LLMatcher(_bytes(), grammar)
    if matcher.get_error():
        problem = str(LLMatcher.validate_grammar(grammar))
        return problem.rsplit("failed to compile JSON schema: ", maxsplit=1)[-1].split("\n   1 | ", maxsplit=1)[0].strip()
    matcher.compute_bitmask()
    return "no value fulfils it" if matcher.get_error() else None


@cache
def _bytes() -> object:
    """A tokenizer with a token for each byte: whether a grammar is one does not depend on the model."""
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


class _Bounds:
    """One walk through a schema."""

    def __init__(self, longest_text: int, room: int, place: str) -> None:
        self.texts = 0
        """Texts met that have no limit of their own; those in a list as often as the list is long."""
        self._longest_text = longest_text
        self._room = room
        self._place = place
        self._nests = False
        self._merges = False

    def root(self, schema: JSON) -> dict[str, object]:
        self._merges = _merges(schema)
        made = self._node(schema, "", 1)
        kept = made.get("$defs")
        made["$defs"] = {**(kept if isinstance(kept, Mapping) else {}), **self._any_values()}
        return made | {"x-guidance": STYLE}

    def _node(self, given: object, path: str, times: int) -> dict[str, object]:
        if given is True:
            given = {}
        if not isinstance(given, Mapping):
            raise InvalidSetting(
                f"{self._place}{path} is {given!r:.40}, which no value fulfils" if given is False else self._no_schema(path, given)
            )
        self._check(given, path)
        node = {key: value for key, value in given.items() if key != "format" or value in FORMATS}
        if not _APPLIED & node.keys() and (kind := _kind(node)) is None:
            self._nests = True
            self.texts += times
            return {"$ref": f"#/$defs/{ANY}{DEPTH}"}
        if not _APPLIED & node.keys():
            node["type"] = kind
        for key in ("$defs", "definitions", "properties", "patternProperties"):
            if key in node:
                node[key] = {name: self._node(inner, f"{path}.{name}", times) for name, inner in self._named(node[key], f"{path}.{key}")}
        for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if key in node:
                node[key] = [
                    self._node(inner, f"{path}.{key}[{at}]", times) for at, inner in enumerate(self._listed(node[key], f"{path}.{key}"))
                ]
        kinds = node.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if not {"enum", "const", "$ref"} & node.keys():
            if "integer" in kinds or "number" in kinds:
                _bound_number(node, whole="number" not in kinds)
            if "string" in kinds:
                self._bound_text(node, times)
            if "array" in kinds:
                self._bound_list(node, path, times)
            if "object" in kinds:
                self._bound_object(node, path, times)
        return node

    def _check(self, node: JSON, path: str) -> None:
        for key in REFUSED:
            if key in node:
                raise InvalidSetting(
                    f"{self._place}{path} has {key!r}, which a reply cannot be held to: leave it out, and check the value yourself"
                )
        if node.get("uniqueItems"):
            raise InvalidSetting(
                f"{self._place}{path} has 'uniqueItems', which a reply cannot be held to: take a list, and drop what is double"
            )
        if isinstance(node.get("items"), list):
            raise InvalidSetting(f"{self._place}{path}.items is a list of schemas: the standard of today calls that prefixItems")
        for key in ("exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(node.get(key), bool):
                raise InvalidSetting(f"{self._place}{path}.{key} is true or false, as in draft 4: give the number itself")
        step = node.get("multipleOf")
        if isinstance(step, float) and not (step * 1024).is_integer():
            raise InvalidSetting(
                f"{self._place}{path}.multipleOf is {step}: decimal fractions cannot be checked in binary; take whole numbers"
            )

    def _named(self, value: object, path: str) -> Sequence[tuple[str, object]]:
        if not isinstance(value, Mapping):
            raise InvalidSetting(self._no_schema(path, value))
        return list(value.items())

    def _listed(self, value: object, path: str) -> Sequence[object]:
        if not isinstance(value, list):
            raise InvalidSetting(f"{self._place}{path} is a list of schemas, not {value!r:.40}")
        return value

    def _no_schema(self, path: str, value: object) -> str:
        return f"{self._place}{path} is a dict, not {value!r:.40}"

    def _bound_text(self, node: dict[str, object], times: int) -> None:
        if "pattern" not in node and (exact := EXACT.get(str(node.get("format")))) is not None:
            node["pattern"] = exact
            del node["format"]
        if "maxLength" not in node:
            shaped = "pattern" in node or "format" in node
            self.texts += 0 if shaped else times
            longest = max(self._longest_text, LONGEST_MATCH) if shaped else self._longest_text
            node["maxLength"] = max(longest, int(_number(node, "minLength", other=0)))

    def _bound_list(self, node: dict[str, object], path: str, times: int) -> None:
        first = node.get("prefixItems")
        fixed = len(first) if isinstance(first, list) else 0
        if "items" not in node and fixed:
            node["items"] = False
            return
        most = int(_number(node, "maxItems", other=max(fixed + self._many(node.get("items")), _number(node, "minItems", other=0))))
        node.setdefault("maxItems", most)
        if node.get("items") is not False:
            node["items"] = self._node(node.get("items", {}), f"{path}[]", times * max(min(most, MOST_ITEMS), 1))

    def _many(self, item: object) -> int:
        """How many of such the room holds, when each is long."""
        return min(max(self._room // (LEAF * _leaves(item)), LEAST_ITEMS), MOST_ITEMS)

    def _bound_object(self, node: dict[str, object], path: str, times: int) -> None:
        named, rest = node.get("properties"), node.get("additionalProperties")
        open_keys = "patternProperties" in node or (rest not in (None, False)) or not named
        if open_keys and _number(node, "minProperties", other=0) > 1:
            raise InvalidSetting(f"{self._place}{path} has 'minProperties' and keys of any name, which may come twice: name the keys")
        if isinstance(named, Mapping) and (named or "required" not in node) and rest in (None, True) and "patternProperties" not in node:
            if not self._merges:
                wanted = node.get("required")
                unnamed = [key for key in wanted if key not in named] if isinstance(wanted, list) else []
                node["properties"] = {**named, **{key: self._node({}, f"{path}.{key}", times) for key in unnamed}}
                node["additionalProperties"] = False
        elif rest is not False and not named and "required" not in node and not self._merges and "patternProperties" not in node:
            node.setdefault("maxProperties", max(self._many(rest), int(_number(node, "minProperties", other=0))))
            node["patternProperties"] = {_KEY: self._node(True if rest is None else rest, f"{path}.*", times * MOST_ITEMS)}
            node["additionalProperties"] = False
        elif isinstance(rest, Mapping):
            node["additionalProperties"] = self._node(rest, f"{path}.*", times * MOST_ITEMS)

    def _any_values(self) -> dict[str, object]:
        """A value of any kind, by how deep it may nest."""
        if not self._nests:
            return {}
        texts: dict[str, object] = {"type": "string", "maxLength": self._longest_text}
        number = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST, "multipleOf": FINEST}
        scalars = [texts, number, {"type": "boolean"}, {"type": "null"}]
        values: dict[str, object] = {f"{ANY}0": {"anyOf": scalars}}
        for depth in range(1, DEPTH + 1):
            inner = {"$ref": f"#/$defs/{ANY}{depth - 1}"}
            listed = {"type": "array", "items": inner, "maxItems": MOST_ITEMS}
            keyed = {"type": "object", "patternProperties": {_KEY: inner}, "additionalProperties": False, "maxProperties": MOST_ITEMS}
            values[f"{ANY}{depth}"] = {"anyOf": [*scalars, listed, keyed]}
        return values


_KEY = f'^[^"\\\\\\x00-\\x1f]{{1,{LONGEST_KEY}}}$'


def _bound_number(node: dict[str, object], *, whole: bool) -> None:
    least, most = _number(node, "minimum", "exclusiveMinimum", other=-LARGEST), _number(node, "maximum", "exclusiveMaximum", other=LARGEST)
    if -LARGEST <= least <= LARGEST and -LARGEST <= most <= LARGEST:
        if "exclusiveMinimum" not in node:
            node.setdefault("minimum", least)
        if "exclusiveMaximum" not in node:
            node.setdefault("maximum", most)
    if not whole:
        node.setdefault("multipleOf", FINEST)


def _number(node: JSON, *keys: str, other: float) -> float:
    for key in keys:
        value = node.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    return other


def _leaves(schema: object) -> int:
    """About how many texts and numbers a value has."""
    if not isinstance(schema, Mapping):
        return 1
    named, items = schema.get("properties"), schema.get("items")
    inner = sum(map(_leaves, named.values())) if isinstance(named, Mapping) else 0
    return max(inner + (LEAST_ITEMS * _leaves(items) if items else 0), 1)


def _kind(node: JSON) -> object:
    """The type or types of a value; None for any."""
    return node.get("type") or next((kind for kind, keys in _SPEAKS_OF.items() if keys & node.keys()), None)


def _merges(schema: object) -> bool:
    """Whether anywhere two schemas hold for one object, so that neither may shut out keys of the other."""
    if isinstance(schema, list):
        return any(map(_merges, schema))
    if not isinstance(schema, Mapping):
        return False
    applied = [schema[key] for key in ("allOf", "anyOf", "oneOf", "$ref") if key in schema]
    many = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    beside = bool(applied) and (len(applied) > 1 or bool({"properties", "required", "additionalProperties"} & schema.keys()))
    return many or beside or any(map(_merges, schema.values()))
