"""The newest entries of certain roles, with certain tags, of a certain importance."""

from collections.abc import Sequence
from dataclasses import dataclass

from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import Entry, History
from threadkeep.memory.index import ROLES

PAGE = 64
"""Matching entries that are read at once."""


@dataclass(frozen=True)
class Selective:
    """The newest entries that have all that is asked for here, as many as fit.

    Tags and importances come with the metadata of an entry: `session.append(…, metadata={"tags": ["fact"], "importance": 0.8})`. They
    stand in keys of their own, so what does not match is not read. What no longer fits is left out up to a round place of the log, so
    the choice begins with the same entry for many turns; in a composition it takes no more than its own share, whatever the parts before
    it leave.

    Args:
        roles: one of these, of user, assistant, system, developer and tool; none: any.
        tags: one of these; none: any.
        importance: at least this; None: any, and none is fine.
        step: how much may be left out for that, as a share of the budget's room, above 0 and at most 1.
    """

    roles: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    importance: float | None = None
    step: float = 0.25

    def __post_init__(self) -> None:
        if not self.roles and not self.tags and self.importance is None:
            raise InvalidSetting("Selective() asks for nothing: give roles=…, tags=… or importance=…")
        for name in ("roles", "tags"):
            given = getattr(self, name)
            if not isinstance(given, tuple) or not all(isinstance(one, str) for one in given):
                raise InvalidSetting(
                    f"Selective({name}={given!r:.80}): a tuple of texts, like ({'user' if name == 'roles' else 'fact'!r},)"
                )
        unknown = sorted(set(self.roles) - set(ROLES))
        if unknown:
            raise InvalidSetting(f"Selective(roles={self.roles!r}): {unknown[0]!r} is no role, those are {', '.join(ROLES)}")
        if self.importance is not None and (not isinstance(self.importance, int | float) or self.importance != self.importance):
            raise InvalidSetting(f"Selective(importance={self.importance!r:.80}): a number, or None")
        if not 0 < self.step <= 1:
            raise InvalidSetting(f"Selective(step={self.step!r}): a share of the budget above 0 and at most 1")

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        left = min(budget.room, budget.left)
        standing = {entry.seq for entry in history.pinned()} | history.shown
        before = history.head.turn_seq or history.head.group_seq  # what follows stands in the context anyway
        chosen: list[Entry] = []
        while page := history.matching(roles=self.roles, tags=self.tags, importance=self.importance, before=before, limit=PAGE):
            for entry in reversed(page):
                if entry.seq in standing:
                    continue
                group = _group(history, entry)
                standing.update(one.seq for one in group)
                left -= sum(one.shown_tokens for one in group)
                if left < 0:
                    return self._picked(_from_a_round_place(chosen, entry.start, int(budget.room * self.step)))
                chosen.extend(group)
            before = page[0].seq
        return self._picked(chosen)

    def _picked(self, entries: Sequence[Entry]) -> list[Pick]:
        return [Pick.of(entries, self._reason)] if entries else []

    @property
    def _reason(self) -> str:
        asked = [f"of {' or '.join(self.roles)}"] if self.roles else []
        asked += [f"tagged {' or '.join(self.tags)}"] if self.tags else []
        asked += [f"of importance {self.importance:g} or more"] if self.importance is not None else []
        return ", ".join(asked)


def _group(history: History, entry: Entry) -> list[Entry]:
    """The entry with all others of its group, which come into a context with it."""
    (opener,) = history.entries([entry.group_seq])
    calls = opener.raw.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return [entry]
    members = history.between(opener.seq, opener.seq + len(calls))
    return [member for member in members if member.group_seq == opener.seq and member.status != "late"]


def _from_a_round_place(chosen: Sequence[Entry], start: int, tokens: int) -> list[Entry]:
    """What stays of the chosen when their beginning goes: up to so many tokens, to the roundest place there is behind `start`.

    A place is the log's running total; the more often 2 divides it, the rounder. It moves only when it is passed, or a rounder one comes
    into reach, so hardly before as many matching tokens have come in as were left out: a grid that needs no total of what matches.
    """
    oldest_first = sorted(chosen)
    furthest = start
    for entry in oldest_first:
        furthest = entry.start
        tokens -= entry.shown_tokens
        if tokens < 0:
            break
    if furthest <= start:
        return oldest_first
    bits = (start ^ furthest).bit_length() - 1
    line = furthest >> bits << bits
    staying = {entry.group_seq for entry in oldest_first if entry.seq == entry.group_seq and entry.start >= line}
    return [entry for entry in oldest_first if entry.group_seq in staying]
