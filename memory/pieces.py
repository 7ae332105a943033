"""A context's messages while they are put together: read late, counted once, each with the entry it comes from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from threadkeep.memory.clipping import clip, kept_characters
from threadkeep.memory.fitting import Profile, fit
from threadkeep.memory.history import Entry
from threadkeep.memory.message import Message


class Shown(NamedTuple):
    """An entry and how much of it is shown."""

    entry: Entry
    keep: int | None = None
    """Characters of a clipped tool result, or `CLEARED`; None: the whole entry."""
    tokens: int | None = None
    """What it costs so, by the session's own counts; None: to be counted."""


def whole(entry: Entry, counted: bool) -> Shown:
    """An entry in full."""
    return Shown(entry, None, entry.tokens if counted else None)


def as_old(entry: Entry, clip_tokens: int, counted: bool) -> Shown:
    """An entry as it stands once its turn is no longer live: a long tool result is clipped."""
    if entry.shown_tokens >= entry.tokens:
        return Shown(entry, None, entry.tokens if counted else None)
    keep = kept_characters(entry.message, entry.tokens, clip_tokens)
    return Shown(entry, keep, entry.shown_tokens if counted else None)


class Piece:
    """One message of a context. Its text is read only when something must be done with it."""

    __slots__ = ("_given", "exact", "seq", "shown", "tokens")

    def __init__(self, message: Message | None, tokens: int | None, *, shown: Shown | None = None, seq: int = 0) -> None:
        self._given = message
        self.tokens = tokens
        """What it costs alone; None: not counted yet."""
        self.exact = shown is None or shown.entry.exact == 1
        """Whether that is the model's own count."""
        self.shown = shown
        self.seq = seq
        """The entry it belongs to; 0 for what is no entry."""

    @classmethod
    def of(cls, shown: Shown, profile: Profile) -> "Piece":
        """An entry as the profile sends it."""
        entry = shown.entry
        if shown.keep is None and (_is_plain(raw := entry.raw) or (not profile.alters and raw.keys() <= profile.keys)):
            return cls(None, shown.tokens, shown=shown, seq=entry.seq)
        message = entry.message if shown.keep is None else clip(entry.message, shown.keep)
        return cls(fit(message, profile), shown.tokens, shown=shown, seq=entry.seq)

    @property
    def message(self) -> Message:
        if self._given is not None:
            return self._given
        assert self.shown is not None
        return self.shown.entry.message

    @property
    def role(self) -> str:
        if self._given is not None:
            return self._given.role
        assert self.shown is not None
        return str(self.shown.entry.raw["role"])

    @property
    def calls_tools(self) -> bool:
        """Whether it is an assistant's message with tool calls."""
        if self._given is not None:
            return bool(self._given.tool_calls)
        assert self.shown is not None
        return "tool_calls" in (raw := self.shown.entry.raw) and bool(raw["tool_calls"])

    def sent(self, keys: frozenset[str]) -> dict[str, object]:
        """In OpenAI's format, with the allowed keys only."""
        if self._given is None and self.shown is not None:
            return self.shown.entry.raw
        return {key: value for key, value in self.message.to_dict().items() if key in keys}


def _is_plain(raw: Mapping[str, object]) -> bool:
    """Whether no profile makes anything of it: a role that every model knows, and text."""
    return len(raw) == 2 and raw["role"] in ("user", "assistant", "system") and isinstance(raw["content"], str)


class Messages(Sequence[Message]):
    """The messages of pieces, each read when it is asked for."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[Message]:
        return iter([piece.message for piece in self._pieces])

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if isinstance(index, slice):
            return Messages(self._pieces[index])
        return self._pieces[index].message
