"""What a caller's own client gave back, read as a reply: message, usage, why it ended."""

from collections.abc import Mapping
from typing import get_args

from threadkeep.backends.base import Finish, Usage
from threadkeep.memory.message import JSON


def as_mapping(given: object) -> JSON:
    """A completion as a mapping; empty where it is only a message or text."""
    if isinstance(given, Mapping):
        return given
    dump = getattr(given, "model_dump", None)
    dumped = dump(exclude_unset=True, mode="json", warnings=False) if callable(dump) else {}
    return dumped if isinstance(dumped, Mapping) else {}


def read_usage(completion: JSON) -> Usage | None:
    """The usage of a completion in OpenAI's format, where it says one."""
    usage = completion.get("usage")
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    return Usage(_number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens")), _number(cached))


def read_finish(completion: JSON) -> Finish | None:
    """Why it ended, where that is one of the known reasons."""
    choices = completion.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    reason = first.get("finish_reason") if isinstance(first, Mapping) else None
    return reason if reason in get_args(Finish) else None


def read_model(completion: JSON) -> str:
    """The model that answered, for the ledger."""
    model = completion.get("model")
    return model if isinstance(model, str) else "unknown"


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
