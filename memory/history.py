"""What a strategy sees of a session: entries, and a read-only view of the log at one point."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from threadkeep.memory.index import Index, Scope
from threadkeep.memory.message import JSON, Message

Status: TypeAlias = Literal["complete", "interrupted", "late", "erased"]
"""`interrupted`: a reply that was cut. `late`: a tool's result that came after its group had closed; never shown."""

Made = TypeVar("Made")
_decode = json.JSONDecoder().raw_decode  # `loads`, without its search for blanks around the value
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int) -> datetime:
    """A time as stored, in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


class _Once(Generic[Made]):
    """`functools.cached_property` without the lock that it takes on Python 3.11: a context reads hundreds of these."""

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make, self._name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, entry: object, owner: type) -> Made:
        made: Made = self._make(entry)
        vars(entry)[self._name] = made
        return made


class _Row(NamedTuple):
    seq: int
    body: str
    tokens: int
    shown_tokens: int
    cum_tokens: int
    cum_shown: int
    group_seq: int
    turn_seq: int
    status: Status
    created_us: int
    key: str | None
    metadata_json: str | None
    exact: int


class Entry(_Row):
    """A message as stored. Immutable; its message is read from the row when first asked for.

    `seq`: its place in the session, from 1. `tokens`: what it costs whole; `shown_tokens`: what it costs once its turn is no longer
    live (a long tool result is then clipped); `cum_tokens`, `cum_shown`: the running totals of both, itself included. `group_seq`:
    the first seq of its group. `turn_seq`: the seq of the user message it answers, its own for a user message, 0 before the first.
    `exact`: 1 if the counts are the model's own, 0 if they are estimates.
    """

    @_Once
    def message(self) -> Message:
        return Message.from_dict(self.raw)

    @_Once
    def raw(self) -> dict[str, object]:
        """The message in OpenAI's format, with every key it came with. Not to be changed."""
        loaded: dict[str, object] = _decode(self.body)[0]
        return loaded

    @property
    def role(self) -> str:
        return str(self.raw["role"])

    @property
    def created_at(self) -> datetime:
        """When it was said, in UTC."""
        return moment(self.created_us)

    @property
    def metadata(self) -> JSON:
        return json.loads(self.metadata_json) if self.metadata_json else {}

    @property
    def start(self) -> int:
        """The running total of shown tokens before this entry."""
        return self.cum_shown - (0 if self.status == "late" else self.shown_tokens)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends, and its totals."""

    seq: int = 0
    tokens: int = 0
    """What the whole log costs, in tokens, late results apart."""
    shown_tokens: int = 0
    """The same with the old turns' long tool results clipped."""
    group_seq: int = 0
    turn_seq: int = 0
    open_calls: tuple[str, ...] = ()
    """Ids of the newest group's calls that have no result yet."""
    leading: int = 0
    """How many system messages the log begins with: they count as instructions."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What upkeep wrote about a run of entries, first and last included. Written once, never changed."""

    level: int
    """1 stands for entries, n + 1 for summaries of level n."""
    first: int
    last: int
    text: str
    tokens: int
    """What it costs as a message."""
    source: str
    """What wrote it."""
    made_at: int = 0
    """The log's last seq when it was stored: only later turns see it."""


class History(Protocol):
    """A read-only, lazy view of one session at one point; all that a strategy ever sees.

    Entries come in the order of their seqs. Every method reads rows in proportion to what it returns. Late results and the leading
    system messages are the assembler's business and come only from `entries`, when asked for by seq.
    """

    @property
    def shown(self) -> frozenset[int]:
        """The seqs that parts of a composition before this one have picked."""

    @property
    def head(self) -> Head:
        """Where the log ends, the message that is about to be answered included."""

    @property
    def live(self) -> Entry | None:
        """The user message of the live turn, which is the last; None in a log without one."""

    @property
    def tokens(self) -> int:
        """What the whole log costs, in tokens."""

    def tail(self, shown_tokens: int) -> Sequence[Entry]:
        """The newest whole groups that cost at most so much, by their shown tokens."""

    def entries(self, seqs: Iterable[int]) -> Sequence[Entry]:
        """The entries of these seqs; a seq that is not in the log is left out."""

    def between(self, first: int, last: int) -> Sequence[Entry]:
        """The entries of a run of seqs, both ends included."""

    def around(self, seq: int, n: int) -> Sequence[Entry]:
        """The entry and up to `n` on each side."""

    def pinned(self) -> Sequence[Entry]:
        """The pinned entries."""

    def matching(
        self,
        *,
        roles: Collection[str] = (),
        tags: Collection[str] = (),
        importance: float | None = None,
        before: int,
        limit: int,
    ) -> Sequence[Entry]:
        """The newest `limit` entries before a seq that have one of these roles, one of these tags, and at least this importance.

        What is left away is not asked for. Tags and importances are those of the metadata that an entry was appended with.
        """

    def summaries(self, recipe: str, *, level: int | None = None, newest: int | None = None) -> Sequence[Summary]:
        """What upkeep stored under this recipe before the live user message, by level and first seq.

        With `level`, of that level alone; with `newest`, the last so many in this order, and no more are read.
        """

    def index(self, scope: Scope = "session") -> Index:
        """What can be recalled. It reads what was added since this process last looked, the first time all of it."""
