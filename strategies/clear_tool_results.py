"""Old tool results as short notes, so that another strategy's choice holds more of what was said."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from threadkeep.memory.budget import Budget
from threadkeep.memory.clipping import Clearing, cleared_tokens
from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import Entry, History, Summary
from threadkeep.memory.index import Scope
from threadkeep.strategies.base import Strategy, Summarising
from threadkeep.strategies.sliding_window import SlidingWindow
from threadkeep.strategies.view import HistoryView

FIRST_LOOK, LONGEST_LOOK = 16, 512
"""Entries that are read at once behind the window: the first time, doubled until the longest."""


@dataclass(frozen=True)
class ClearToolResults:
    """Clears old tool results, and lets another strategy choose from a log that has become smaller.

    A cleared result stands as a note of its size behind its call, which stays. The live turn's and pinned results are never cleared,
    and while the whole log fits nothing is. What no longer fits, rounded up to a multiple of a step, is what clearing frees, from the
    oldest result on, and no more than that. It is a pure function of the log, as a sliding window's cut is, and moves together with
    it: between two moves consecutive turns share their beginning.

    After "clear_tool_uses" of Anthropic's context editing, whose trigger is the budget here, and whose `clear_at_least` the step.

    Args:
        inner: what chooses from the smaller log.
        keep: so many of the newest results are never cleared, as far back as a sliding window would reach; those since the last move
            come on top of them.
        at_least: tokens; what costs less is not worth a note.
        step: the grid, as a share of the budget's room, above 0 and at most 1; the inner strategy's own step, where it has one.
    """

    inner: Strategy = field(default_factory=SlidingWindow)
    keep: int = 3
    at_least: int = 100
    step: float = 0.25

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy):
            raise InvalidSetting(f"ClearToolResults({self.inner!r:.80}): a strategy is an object with a method pick(history, budget)")
        for name in ("keep", "at_least"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidSetting(f"ClearToolResults({name}={value!r}): a number from 0")
        if not 0 < self.step <= 1:
            raise InvalidSetting(f"ClearToolResults(step={self.step!r}): a share of the budget above 0 and at most 1")

    @property
    def scope(self) -> Scope:
        """That of the inner strategy."""
        scope: Scope = getattr(self.inner, "scope", "session")
        return scope

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        clearing = self._clearing(history, budget)
        if clearing is None:
            return self.inner.pick(history, budget)
        picks = self.inner.pick(_Cleared(history, clearing), budget)
        return [replace(pick, clearing=clearing) if pick.kind == "entries" else pick for pick in picks]

    def _clearing(self, history: History, budget: Budget) -> Clearing | None:
        """Which results are cleared; None: none."""
        head, room = history.head, budget.room
        step = max(1, int(room * self.step))
        wanted = -(-max(0, head.shown_tokens - room) // step) * step
        if not wanted or not head.turn_seq:
            return None
        window = history.tail(head.shown_tokens - wanted)
        moved = wanted - step + room  # the shown total that made `wanted` what it is
        then = [entry for entry in window if entry.start < moved]
        results = [entry.seq for entry in then if entry.role == "tool"]
        if len(results) < self.keep or not results:
            before = window[0].seq if window else head.seq + 1
        else:
            before = results[-self.keep] if self.keep else results[-1] + 1
        live = then[-1].turn_seq if then else head.turn_seq  # what was live then waits for the next move
        widest = Clearing(min(before, live), self.at_least)
        smaller = _Cleared(history, widest)
        fitting, is_all = smaller.newest(head.shown_tokens - wanted)
        return replace(widest, before=smaller.frees(fitting, wanted)) if is_all else widest

    @property
    def recipes(self) -> Sequence[str]:
        return self.inner.recipes if isinstance(self.inner, Summarising) else ()

    def due(self, history: History, recipe: str) -> Callable[[], Summary] | None:
        return self.inner.due(history, recipe) if isinstance(self.inner, Summarising) else None


class _Cleared(HistoryView):
    """The history with its old tool results at what their notes cost. Running totals stay those of the log."""

    def __init__(self, history: History, clearing: Clearing) -> None:
        super().__init__(history)
        self._clearing = clearing
        self._pins = {entry.seq for entry in history.pinned()}
        self._freed: dict[int, int] = {}
        self._read: list[list[Entry]] = []
        self._unread = self._groups()

    def newest(self, shown_tokens: int) -> tuple[list[Entry], bool]:
        """The newest whole groups that cost at most so much, and whether that is all there are."""
        fitting: list[list[Entry]] = []
        for group in chain(list(self._read), self._unread_groups()):
            shown_tokens -= sum(entry.shown_tokens for entry in group)
            if shown_tokens < 0:
                break
            fitting.append(group)
        else:
            return _in_order(fitting), True
        return _in_order(fitting), False

    def frees(self, entries: Iterable[Entry], tokens: int) -> int:
        """The seq before which clearing frees so many tokens of these; where all of it frees less, the one before which it is done."""
        for entry in entries:
            tokens -= self._freed.get(entry.seq, 0)
            if tokens <= 0:
                return entry.seq + 1
        return self._clearing.before

    def tail(self, shown_tokens: int) -> Sequence[Entry]:
        return self.newest(shown_tokens)[0]

    def entries(self, seqs: Iterable[int]) -> Sequence[Entry]:
        return self._smaller(super().entries(seqs))

    def between(self, first: int, last: int) -> Sequence[Entry]:
        return self._smaller(super().between(first, last))

    def around(self, seq: int, n: int) -> Sequence[Entry]:
        return self._smaller(super().around(seq, n))

    def matching(
        self,
        *,
        roles: Collection[str] = (),
        tags: Collection[str] = (),
        importance: float | None = None,
        before: int,
        limit: int,
    ) -> Sequence[Entry]:
        return self._smaller(super().matching(roles=roles, tags=tags, importance=importance, before=before, limit=limit))

    def _smaller(self, entries: Iterable[Entry]) -> list[Entry]:
        return [self._cleared(entry) if self._clearing.covers(entry) and entry.seq not in self._pins else entry for entry in entries]

    def _cleared(self, entry: Entry) -> Entry:
        tokens = cleared_tokens(entry)
        self._freed[entry.seq] = entry.shown_tokens - tokens
        return entry._replace(shown_tokens=tokens, cum_shown=entry.start + tokens)

    def _unread_groups(self) -> Iterator[list[Entry]]:
        for group in self._unread:
            self._read.append(group)
            yield group

    def _groups(self) -> Iterator[list[Entry]]:
        """All groups, the newest first, read as they are asked for."""
        last, look = self.head.seq, FIRST_LOOK
        group: list[Entry] = []
        while last > self.head.leading:
            first = max(self.head.leading + 1, last - look + 1)
            for entry in reversed(self.between(first, last)):
                if entry.status != "late":
                    group.append(entry)
                    if entry.seq == entry.group_seq:
                        yield group[::-1]
                        group = []
            last, look = first - 1, min(2 * look, LONGEST_LOOK)


def _in_order(newest_first: Sequence[list[Entry]]) -> list[Entry]:
    return [entry for group in reversed(newest_first) for entry in group]
