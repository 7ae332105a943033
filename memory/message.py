"""Messages as values: OpenAI's chat format in, frozen objects between, the same format out.

Nothing here knows of stores, sessions or models. What this version does not understand (an audio part, a provider's own key) is
kept as it came.
"""

import base64
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias, get_args

from threadkeep.memory.blob import Blob
from threadkeep.memory.errors import InvalidMessage

JSON: TypeAlias = Mapping[str, object]
"""A JSON object."""
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str
    extra: JSON = field(default_factory=dict, hash=False)
    """Keys beside these that came with it."""

    def to_dict(self) -> dict[str, object]:
        return {"type": "text", "text": self.text, **_copied(self.extra)}


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture, by URL: `https:` or `data:`; in a stored message, whose bytes are kept apart, by the address of its `blob`."""

    url: str
    detail: str | None = None
    """`"low"`, `"high"` or `"auto"`, as OpenAI defines them."""
    extra: JSON = field(default_factory=dict, hash=False)
    """Keys beside these that came with it; those of its inner object under `image_url`."""

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str, *, detail: str | None = None) -> "ImagePart":
        """A picture from its encoded bytes (PNG, JPEG, …), carried as a data URL."""
        return cls(f"data:{media_type};base64,{base64.b64encode(data).decode()}", detail)

    @property
    def blob(self) -> Blob | None:
        """What the store keeps of it: its hash, size in bytes and media type; None for a picture that is not in a store."""
        return Blob.read(self.url)

    def to_dict(self) -> dict[str, object]:
        image: dict[str, object] = {"url": self.url}
        if self.detail is not None:
            image["detail"] = self.detail
        return _with_extra({"type": "image_url", "image_url": image}, self.extra, "image_url")


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A part of a kind this version does not read (audio, file, reasoning, …), kept as it came."""

    type: str
    raw: JSON = field(hash=False)

    def to_dict(self) -> dict[str, object]:
        return _copied(self.raw)


Part: TypeAlias = TextPart | ImagePart | OpaquePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's call of a tool."""

    id: str
    name: str
    arguments: str
    """As the model wrote them: JSON text, when it kept to the schema."""
    type: str = "function"
    extra: JSON = field(default_factory=dict, hash=False)
    """Keys beside these that came with it; those of its inner object under the name of its type."""

    def to_dict(self) -> dict[str, object]:
        given = "arguments" if self.type == "function" else "input"
        made: dict[str, object] = {"id": self.id, "type": self.type, self.type: {"name": self.name, given: self.arguments}}
        return _with_extra(made, self.extra, self.type)


@dataclass(frozen=True, slots=True)
class Message:
    """One message: a role with content, tool calls, or a tool's result. A value: it has no id and no time."""

    role: Role
    content: str | tuple[Part, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """On a tool's result: the call it answers."""
    name: str | None = None
    extra: JSON = field(default_factory=dict, hash=False)
    """Keys beside these that came with it, kept in the log; a context holds only those its model's profile allows."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidMessage("role", f"is one of {', '.join(ROLES)}, not {self.role!r}")
        if (
            isinstance(self.content, str)
            and self.tool_calls == ()
            and self.tool_call_id is None
            and self.name is None
            and self.role != "tool"
        ):
            return  # as most messages are, and a context has hundreds
        if self.content is None and self.role != "assistant":
            raise InvalidMessage("content", f"is missing: a {self.role} message needs text or parts")
        if not isinstance(self.content, str | tuple | None):
            raise InvalidMessage("content", f"is text or a tuple of parts, not {type(self.content).__name__}")
        if isinstance(self.content, tuple):
            for place, part in enumerate(self.content):
                if not isinstance(part, Part):
                    raise InvalidMessage(f"content[{place}]", f"is a TextPart or an ImagePart, not {type(part).__name__}")
        _check_calls(self.tool_calls, self.role)
        if not isinstance(self.tool_call_id, str | None):
            raise InvalidMessage("tool_call_id", f"is text, not {type(self.tool_call_id).__name__}")
        if self.role == "tool" and not self.tool_call_id:
            raise InvalidMessage("tool_call_id", "is missing: a tool's result names the call it answers")
        if not isinstance(self.name, str | None):
            raise InvalidMessage("name", f"is text, not {type(self.name).__name__}")

    @classmethod
    def system(cls, content: str | Sequence[Part]) -> "Message":
        return cls("system", _content(content))

    @classmethod
    def user(cls, content: str | Sequence[Part], *, name: str | None = None) -> "Message":
        return cls("user", _content(content), name=name)

    @classmethod
    def assistant(cls, content: str | None = None, *, tool_calls: Sequence[ToolCall] = ()) -> "Message":
        return cls("assistant", content, tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str, name: str | None = None) -> "Message":
        return cls("tool", content, tool_call_id=tool_call_id, name=name)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, whatever form it has."""
        if isinstance(self.content, str):
            return (TextPart(self.content),)
        return self.content or ()

    @property
    def text(self) -> str:
        """All its text; a paragraph for each text part."""
        if isinstance(self.content, str):
            return self.content
        return "\n\n".join(part.text for part in self.content or () if isinstance(part, TextPart))

    def with_content(self, content: str | Sequence[Part] | None) -> "Message":
        """The same message with other content."""
        return replace(self, content=_content(content))

    def to_dict(self) -> dict[str, object]:
        """OpenAI's chat format, with every key it came with."""
        content = self.content if not isinstance(self.content, tuple) else [part.to_dict() for part in self.content]
        made: dict[str, object] = {"role": self.role, "content": content}
        if self.tool_calls:
            made["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            made["name"] = self.name
        made.update(_copied(self.extra))
        return made

    @classmethod
    def from_dict(cls, given: JSON) -> "Message":
        """Read OpenAI's chat format.

        Raises:
            InvalidMessage: with the field that is missing or of the wrong kind.
        """
        role, content = given.get("role"), given.get("content")
        if len(given) == 2 and role in ROLES and isinstance(content, str):
            return cls(role, content)  # as most messages are, and a context has hundreds
        left = dict(given)
        _check_json(left)
        role = left.pop("role", None)
        if role not in ROLES:
            raise InvalidMessage("role", f"is one of {', '.join(ROLES)}, not {role!r}")
        content = left.pop("content", None)
        if isinstance(content, list | tuple):
            content = tuple(_read_part(part, f"content[{place}]") for place, part in enumerate(content))
        elif not isinstance(content, str | None):
            raise InvalidMessage("content", f"is text, a list of parts or null, not {type(content).__name__}")
        calls = left.pop("tool_calls", None) or ()
        if not isinstance(calls, list | tuple):
            raise InvalidMessage("tool_calls", f"is a list, not {type(calls).__name__}")
        tool_call_id, name = left.pop("tool_call_id", None), left.pop("name", None)
        if not isinstance(tool_call_id, str | None):
            raise InvalidMessage("tool_call_id", f"is text, not {type(tool_call_id).__name__}")
        if not isinstance(name, str | None):
            raise InvalidMessage("name", f"is text, not {type(name).__name__}")
        return cls(
            role=role,
            content=content,
            tool_calls=tuple(_read_call(call, f"tool_calls[{place}]") for place, call in enumerate(calls)),
            tool_call_id=tool_call_id,
            name=name,
            extra=_copied(left),  # the caller may go on changing what it handed in
        )


class Dumps(Protocol):
    """What pydantic's models do: an object of the openai package is read through it."""

    def model_dump(self) -> Mapping[str, object]: ...


MessageLike: TypeAlias = str | Message | JSON | Dumps
"""Text (from the user), a `Message`, a dict in OpenAI's format, or an object of the openai package."""


def read_message(given: object, *, place: str = "message", role: Role = "user") -> Message:
    """Any form a caller may hand in, as a `Message`; text alone speaks as `role`.

    An object of the openai package (a message, a choice or a whole completion) is read through its `model_dump`.

    Raises:
        InvalidMessage: its field begins with `place`.
    """
    if isinstance(given, Message):
        return given
    if isinstance(given, str):
        return Message(role, given)
    try:
        if isinstance(given, Mapping):
            return Message.from_dict(_innermost(given))
        dump = getattr(given, "model_dump", None)
        if callable(dump):
            dumped = dump(exclude_unset=True, mode="json", warnings=False)  # servers bend the types; what matters is checked below
            if isinstance(dumped, Mapping):
                return Message.from_dict(_innermost(dumped))
    except InvalidMessage as error:
        raise error.inside(place) from None
    raise InvalidMessage(place, f"is text, a Message, a dict or an openai object, not {type(given).__name__}")


def _innermost(given: JSON) -> JSON:
    """The message inside a completion or a choice; anything else as it is."""
    choices = given.get("choices")
    if "role" not in given and isinstance(choices, Sequence) and choices and isinstance(choices[0], Mapping):
        given = choices[0]
    inner = given.get("message")
    return inner if "role" not in given and isinstance(inner, Mapping) else given


def _content(content: object) -> str | tuple[Part, ...] | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise InvalidMessage("content", f"is text or a list of parts, not {type(content).__name__}")
    return tuple(content)


def _check_calls(calls: object, role: Role) -> None:
    if not isinstance(calls, tuple):
        raise InvalidMessage("tool_calls", f"is a tuple of ToolCalls, not {type(calls).__name__}")
    if calls and role != "assistant":
        raise InvalidMessage("tool_calls", f"stand on an assistant's message only, not on a {role}'s")
    for place, call in enumerate(calls):
        if not isinstance(call, ToolCall):
            raise InvalidMessage(f"tool_calls[{place}]", f"is a ToolCall, not {type(call).__name__}")


def _copied(extra: JSON) -> dict[str, object]:
    return copy.deepcopy(dict(extra)) if extra else {}


def _with_extra(made: dict[str, object], extra: JSON, inner: str) -> dict[str, object]:
    """`made` with the keys that came beside its own, and those that came beside the keys of its inner object."""
    beside = _copied(extra)
    within, kept = made[inner], beside.pop(inner, None)
    if isinstance(within, Mapping) and isinstance(kept, Mapping):
        made[inner] = {**within, **kept}
    return {**made, **beside}


def _check_json(given: JSON) -> None:
    """Name the key that JSON cannot hold, now rather than when it is stored."""
    for key, value in given.items():
        if not isinstance(key, str):
            raise InvalidMessage(repr(key), "is no key: keys are text")
        if isinstance(value, str | None):
            continue
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidMessage(key, f"cannot be kept as JSON: {error}") from None


def _read_part(given: object, place: str) -> Part:
    if not isinstance(given, Mapping):
        raise InvalidMessage(place, f"is an object with a type, not {type(given).__name__}")
    left = dict(given)
    kind = left.pop("type", None)
    if not isinstance(kind, str):
        raise InvalidMessage(f"{place}.type", "is missing")
    if kind == "text":
        text = left.pop("text", None)
        if not isinstance(text, str):
            raise InvalidMessage(f"{place}.text", f"is text, not {type(text).__name__}")
        return TextPart(text, _copied(left))
    if kind == "image_url":
        image = left.pop("image_url", None)
        if not isinstance(image, Mapping) or not isinstance(image.get("url"), str):
            raise InvalidMessage(f"{place}.image_url.url", "is missing")
        detail = image.get("detail")
        if not isinstance(detail, str | None):
            raise InvalidMessage(f"{place}.image_url.detail", f"is text, not {type(detail).__name__}")
        inner = {key: value for key, value in image.items() if key not in ("url", "detail")}
        return ImagePart(str(image["url"]), detail, _copied(left | {"image_url": inner} if inner else left))
    return OpaquePart(kind, _copied(given))


def _read_call(given: object, place: str) -> ToolCall:
    if not isinstance(given, Mapping):
        raise InvalidMessage(place, f"is an object, not {type(given).__name__}")
    left = dict(given)
    identity, kind = left.pop("id", None), left.pop("type", "function")
    if not isinstance(identity, str) or not identity:
        raise InvalidMessage(f"{place}.id", "is missing: results are matched to calls by it")
    if not isinstance(kind, str):
        raise InvalidMessage(f"{place}.type", f"is text, not {type(kind).__name__}")
    called = left.pop(kind, None)
    if not isinstance(called, Mapping):
        raise InvalidMessage(f"{place}.{kind}", "is missing")
    given_as = "arguments" if kind == "function" else "input"
    name, arguments = called.get("name"), called.get(given_as)
    if not isinstance(name, str) or not name:
        raise InvalidMessage(f"{place}.{kind}.name", "is missing")
    if isinstance(arguments, Mapping):  # some servers send them parsed
        arguments = json.dumps(arguments)
    if not isinstance(arguments, str):
        raise InvalidMessage(f"{place}.{kind}.{given_as}", f"is JSON text, not {type(arguments).__name__}")
    inner = {key: value for key, value in called.items() if key not in ("name", given_as)}
    return ToolCall(identity, name, arguments, kind, _copied(left | {kind: inner} if inner else left))
