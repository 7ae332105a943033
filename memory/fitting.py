"""One message as a profile accepts it: a pure function of both, so what it costs can be stored with the entry."""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON, ImagePart, Message, Part, TextPart, ToolCall

KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio"})
"""Keys of a message that OpenAI's API takes."""


THOUGHT = "reasoning_content"
"""The key of what a model thought, for providers that want it back."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a model's template or a provider's API accepts. The assembler makes every context fit it."""

    name: str = "openai"
    system: str = "anywhere"
    """Where system messages may stand: `anywhere`, or `first`: one, at the head."""
    developer: bool = True
    """Whether the role `developer` is known; otherwise it is sent as `system`."""
    alternation: bool = False
    """Whether user and assistant must take turns, the user first."""
    tools: bool = True
    """Whether tool calls and results may stand in a request; otherwise they are told as text."""
    images: bool = True
    structured_output: bool = True
    tool_ids: str | None = None
    """The regular expression that a tool call's id must match as a whole; None: any."""
    keys: frozenset[str] = KEYS
    """Keys that a message may hold."""
    empty: bool = True
    """Whether a message may be without a word; a backend sends a note in place of none where it may not."""

    def __post_init__(self) -> None:
        if self.system not in ("anywhere", "first"):
            raise InvalidSetting(f"Profile(system={self.system!r}): 'anywhere' or 'first'")

    def to_dict(self) -> dict[str, object]:
        """As a record keeps it."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "keys": sorted(self.keys)}

    @classmethod
    def from_dict(cls, record: JSON) -> "Profile":
        """Read what `to_dict` made."""
        given: dict[str, Any] = dict(record)
        return cls(**{**given, "keys": frozenset(given["keys"])})

    @property
    def fits_plain(self) -> bool:
        """Whether messages of text, with a known role and allowed keys, pass unchanged."""
        return self.system == "anywhere" and not self.alternation

    @property
    def alters(self) -> bool:
        """Whether it makes anything of single messages."""
        return not (self.developer and self.tools and self.images) or self.tool_ids is not None

    @property
    def changes(self) -> str:
        """What it makes of single messages, as a short mark: equal marks change them alike; none where it leaves them as they are."""
        if not self.alters and self.keys == KEYS:
            return ""
        made = repr((self.developer, self.tools, self.images, self.tool_ids, sorted(self.keys)))
        return f"/{hashlib.sha256(made.encode()).hexdigest()[:6]}"


def fit(message: Message, profile: Profile) -> Message:
    """The message as the profile accepts it; itself where nothing is to be changed."""
    if message.role == "developer" and not profile.developer:
        message = replace(message, role="system")
    if not profile.images and any(isinstance(part, ImagePart) for part in message.parts):
        message = message.with_content(_without_images(message.parts))
    if not profile.tools and message.tool_calls:
        told = "\n".join(f"[called {call.name} with {call.arguments}]" for call in message.tool_calls)
        message = Message("assistant", f"{message.text}\n{told}" if message.text else told, extra=message.extra)
    elif not profile.tools and message.role == "tool":
        told = f"[result of {message.name or message.tool_call_id}]"
        content = f"{told}\n{message.content}" if isinstance(message.content, str) else (TextPart(told), *message.parts)
        message = Message("user", content, extra=message.extra)
    elif profile.tool_ids is not None:
        message = _with_ids(message, profile.tool_ids)
    if (message.name is not None and "name" not in profile.keys) or not message.extra.keys() <= profile.keys:
        allowed = {key: value for key, value in message.extra.items() if key in profile.keys}
        message = replace(message, name=message.name if "name" in profile.keys else None, extra=allowed)
    return message


def _without_images(parts: tuple[Part, ...]) -> str | tuple[Part, ...]:
    told = tuple(TextPart("[picture]") if isinstance(part, ImagePart) else part for part in parts)
    if all(isinstance(part, TextPart) for part in told):
        return "\n\n".join(part.text for part in told if isinstance(part, TextPart))
    return told


def _with_ids(message: Message, pattern: str) -> Message:
    calls = tuple(
        call
        if re.fullmatch(pattern, call.id)
        else ToolCall(matching_id(call.id, pattern), call.name, call.arguments, call.type, call.extra)
        for call in message.tool_calls
    )
    answered = message.tool_call_id
    if answered is not None and not re.fullmatch(pattern, answered):
        answered = matching_id(answered, pattern)
    return replace(message, tool_calls=calls, tool_call_id=answered)


def matching_id(identity: str, pattern: str) -> str:
    """An id of the wanted pattern that stands for this one, the same in every process.

    Raises:
        InvalidSetting: no id of 1 to 40 hexadecimal digits, alone or after `call_`, matches.
    """
    digits = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    for prefix in ("", "call_"):
        for length in range(40, 0, -1):
            if re.fullmatch(pattern, prefix + digits[:length]):
                return prefix + digits[:length]
    raise InvalidSetting(f"Profile(tool_ids={pattern!r}) matches no id made of up to 40 hexadecimal digits, alone or after 'call_'")
