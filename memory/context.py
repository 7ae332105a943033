"""An assembled request, and the account of how it came to be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from threadkeep.memory.budget import Budget
from threadkeep.memory.clipping import Clearing
from threadkeep.memory.history import Entry
from threadkeep.memory.message import JSON, Message, read_message

if TYPE_CHECKING:
    from threadkeep.memory.explanation import Explanation

PickKind: TypeAlias = Literal["instructions", "entries", "summary", "excerpt"]
Verdict: TypeAlias = Literal["kept", "clipped", "recalled", "summarised", "left out", "late", "erased"]


@dataclass(frozen=True, slots=True)
class Pick:
    """What a strategy chose: entries kept whole, a summary of some, or an excerpt of one."""

    seqs: tuple[int, ...]
    """The entries it stands for, ascending."""
    tokens: int
    """What it adds to the context."""
    reason: str
    """Why, in a few words; shown by `explain()`."""
    score: float | None = None
    kind: PickKind = "entries"
    text: str | None = None
    """The words of a summary or an excerpt; None for entries, which speak for themselves."""
    step: int = 0
    """When it must shrink, its beginning moves to the next multiple of so many shown tokens; 0: group by group."""
    said_us: int = 0
    """When an excerpt was said, in microseconds since 1970: excerpts stand in this order, then in that of their seqs."""
    clearing: Clearing | None = None
    """Which of its tool results, whole groups included, are shown as a note only; None: none."""

    @classmethod
    def of(cls, entries: Iterable[Entry], reason: str, *, score: float | None = None, step: int = 0) -> "Pick":
        """Entries kept whole."""
        chosen = sorted(entries)
        return cls(tuple(e.seq for e in chosen), sum(e.shown_tokens for e in chosen), reason, score, step=step)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a run of entries, first and last included."""

    first: int
    last: int
    verdict: Verdict
    tokens: int
    """What the run adds to the context; 0 for what is not in it."""
    reason: str
    score: float | None = None


@dataclass(frozen=True)
class Context:
    """The assembled request: what is sent, what it costs, and why.

    `sum(pick.tokens for pick in picks) + tools_tokens + overhead == tokens`.
    """

    messages: list[dict[str, object]]
    """In OpenAI's format, holding only keys that the backend's profile allows."""
    budget: Budget
    tokens: int
    """What the whole request costs, tools and template included, by the backend's counter."""
    exact: bool
    """Whether `tokens` is the model's own count or an estimate."""
    counter: str
    """The counter's name."""
    strategy: str
    picks: tuple[Pick, ...]
    decisions: tuple[Decision, ...]
    """One for every entry of the log, neighbours of one fate together; ascending, without gaps."""
    tools: tuple[JSON, ...] = ()
    tools_tokens: int = 0
    overhead: int = 0
    """Tokens of the template that belong to no pick: what opens and closes the request."""
    response_format: JSON | None = None
    tool_choice: str | JSON | None = None
    """As OpenAI has it: `auto`, `none`, `required` or a function's name in its dict; None: as the backend does by itself."""
    manifest: JSON = field(default_factory=dict)
    """The stored record, enough to make the same context again."""
    cache_note: str = "first context of the session"
    """Why this context does or does not share its beginning with the turn before."""

    @property
    def max_tokens(self) -> int | None:
        """The most the reply may take: the budget's share for it, or None where it keeps none."""
        return self.budget.reply or None

    @property
    def request(self) -> dict[str, Any]:  # Any: a client's own types decide
        """Arguments for `client.chat.completions.create(model=…, **context.request)`."""
        made: dict[str, Any] = {"messages": self.messages}
        if self.tools:
            made["tools"] = list(self.tools)
            if self.tool_choice is not None:
                made["tool_choice"] = self.tool_choice
        if self.response_format is not None:
            made["response_format"] = self.response_format
        if self.max_tokens is not None:
            made["max_tokens"] = self.max_tokens
        return made

    def typed_messages(self) -> list[Message]:
        """The messages as values."""
        return [read_message(message) for message in self.messages]

    def explain(self) -> "Explanation":
        """The account as a table (print it) and as data (`.data`)."""
        from threadkeep.memory.explanation import Explanation  # rich is slow to import

        return Explanation(self)


def spans(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending seqs as runs: `[1, 2, 3, 7]` -> `[(1, 3), (7, 7)]`."""
    runs: list[tuple[int, int]] = []
    for seq in seqs:
        if runs and seq == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return runs
