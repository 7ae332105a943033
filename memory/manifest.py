"""The stored record of a context: enough to make the same bytes again, and to say what changed since the turn before."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick, spans
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Head
from threadkeep.memory.message import JSON
from threadkeep.memory.pieces import Shown

VERSION = 1
SCORE_DIGITS = 6
"""A score's digits behind the point, in a record and in a context alike."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A context's record. Texts that come in every turn stand in it by their hash only."""

    strategy: str
    budget: tuple[int, int]
    """Window and reply, in tokens."""
    counter: str
    profile: JSON
    head: int
    """The seq of the log's last entry."""
    turn: int
    """The seq of the live user message."""
    leading: int
    picks: tuple[JSON, ...]
    """Kind, reason, score, tokens, runs of seqs; the text of a summary or an excerpt, and when it was said."""
    clipped: tuple[tuple[int, int], ...]
    """Seq and kept characters, -1 for a cleared result."""
    instructions: str
    """sha256 of the instructions."""
    tools: str
    """sha256 of tools and response format."""
    tokens: int
    tools_tokens: int
    exact: bool

    @classmethod
    def of(
        cls,
        *,
        strategy: str,
        budget: Budget,
        counter: str,
        profile: Profile,
        head: Head,
        picks: Sequence[Pick],
        shown: Mapping[int, Shown],
        instructions: str | None,
        tools: object,
        tokens: int,
        tools_tokens: int,
        exact: bool,
    ) -> "Manifest":
        """The record of a context."""
        return cls(
            strategy,
            (budget.window, budget.reply),
            counter,
            profile.to_dict(),
            head.seq,
            head.turn_seq,
            head.leading,
            tuple(_record(pick) for pick in picks),
            tuple((seq, one.keep) for seq, one in sorted(shown.items()) if one.keep is not None),
            text_of(instructions)[0],
            text_of(tools)[0],
            tokens,
            tools_tokens,
            exact,
        )

    def to_dict(self) -> dict[str, object]:
        return {"version": VERSION, **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        loaded: dict[str, Any] = json.loads(text)
        del loaded["version"], loaded["changes"]
        window, reply = loaded.pop("budget")
        return cls(
            **{
                **loaded,
                "budget": (window, reply),
                "picks": tuple(loaded["picks"]),
                "clipped": tuple((seq, keep) for seq, keep in loaded["clipped"]),
            }
        )

    def changes_since(self, previous: "Manifest | None") -> tuple[str, ...]:
        """What keeps this context from beginning as that of the turn before did, up to its live message."""
        if previous is None:
            return ("first context of the session",)
        before, pins, pins_before = previous.turn, self._seqs("pinned"), previous._seqs("pinned")
        differences = {
            "instructions changed": self.instructions != previous.instructions or self.leading != previous.leading,
            "tools changed": self.tools != previous.tools,
            "another model": (self.counter, self.profile) != (previous.counter, previous.profile),
            "strategy changed": self.strategy != previous.strategy,
            "budget changed": self.budget != previous.budget,
            "pins changed": pins != pins_before,
            "a summary was added": self._summaries() != previous._summaries(),
            "the cut moved": _up_to(before, self._seqs() - pins) != _up_to(before, previous._seqs() - pins_before),
            # without the message between them, two of one role become one where they must take turns
            "the last question was left out": bool(self.profile.get("alternation")) and before > 0 and before not in self._seqs(),
            "old tool results were clipped": _up_to(before, self.clipped) != _up_to(before, previous.clipped),
        }
        return tuple(name for name, differs in differences.items() if differs)

    def _seqs(self, reason: str | None = None) -> set[int]:
        """The entries shown, or those of one reason."""
        chosen = [pick for pick in self.picks if pick["kind"] == "entries" and reason in (None, pick["reason"])]
        return {seq for pick in chosen for low, high in pick["spans"] for seq in range(low, high + 1)}  # type: ignore[attr-defined]

    def _summaries(self) -> list[object]:
        return [([*map(tuple, pick["spans"])], pick.get("text")) for pick in self.picks if pick["kind"] == "summary"]  # type: ignore[call-overload]


def _up_to(turn: int, items: Iterable[int | tuple[int, int]]) -> list[int | tuple[int, int]]:
    """Those whose seq, the item or its first part, stands before a turn's user message."""
    return sorted(item for item in items if (item if isinstance(item, int) else item[0]) < turn)


def text_of(value: object) -> tuple[str, bytes]:
    """A JSON value that a record names by hash: its sha256, and its bytes."""
    data = json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest(), data


def _record(pick: Pick) -> dict[str, object]:
    made: dict[str, object] = {"kind": pick.kind, "reason": pick.reason, "tokens": pick.tokens, "spans": spans(pick.seqs)}
    if pick.score is not None:
        made["score"] = round(pick.score, SCORE_DIGITS)
    if pick.text is not None:
        made["text"] = pick.text
    if pick.said_us:
        made["said_us"] = pick.said_us
    return made
