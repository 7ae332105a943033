"""A session's history made into the context of one turn: must-keeps, the strategy's picks, repair, order, exact count.

It reads rows in proportion to the context and calls no model. What a strategy returns is checked and completed here, so that no
strategy can break a promise.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from math import isfinite

from threadkeep.memory.budget import Budget
from threadkeep.memory.clipping import CLEARED, Clearing, text_length
from threadkeep.memory.context import Context, Pick
from threadkeep.memory.counting import Counting
from threadkeep.memory.decisions import decide
from threadkeep.memory.errors import CannotFit, StrategyError
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Entry, History
from threadkeep.memory.layout import INSTRUCTIONS, RECALLED_BLOCK, SUMMARISED, lay_out
from threadkeep.memory.manifest import SCORE_DIGITS, Manifest
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.pieces import Messages, Piece, Shown, as_old, whole
from threadkeep.memory.selection import Selection
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.view import WithShown

ESTIMATE_SLACK = 8
"""Counts of another tokenizer may be off by so much before a log is not even tried whole. (A byte-level tokenizer on Chinese against
one with its characters: up to about 5.)"""
FORM_SLACK = 2
"""The same for a template that is not additive, and for a profile that makes neighbours one message: names of all but the first go."""
JOINT_SLACK = 2
"""Tokens that two messages may lose where a profile makes them one, beside what the template puts around each."""
SMALL_GAP = 16
"""Entries: a larger gap between shown entries is left out as a whole, without a look at why each is."""


@dataclass(frozen=True)
class Request:
    """What a context is assembled from, beside the history."""

    strategy: Strategy
    budget: Budget
    counting: Counting
    instructions: str | None = None
    tools: tuple[JSON, ...] = ()
    response_format: JSON | None = None
    tool_choice: str | JSON | None = None
    clip_tokens: int = 512
    counted: bool = True
    """Whether the history's token counts are this counter's."""
    replaced: frozenset[int] = frozenset()
    """Partial replies that a retried turn is about to replace."""
    previous: Manifest | None = None
    """The record of the turn before, to say what changed."""

    @property
    def profile(self) -> Profile:
        return self.counting.profile


@dataclass(frozen=True)
class Counted:
    """A laid-out request with its exact cost."""

    pieces: Sequence[Piece]
    """After repair, before the profile's shape: their own counts."""
    sent: Sequence[Piece]
    tokens: int
    exact: bool
    tools_tokens: int


def assemble(history: History, request: Request) -> Context:
    """The context for a history.

    Raises:
        CannotFit: no valid context exists within the budget.
        StrategyError: the strategy returned what the history does not hold.
    """
    return _Assembly(history, request).run()


class _Assembly:
    """One assembly, step by step."""

    def __init__(self, history: History, request: Request) -> None:
        self.history = history
        self.request = request
        self.head = history.head
        self.ceiling = request.budget.ceiling
        self.leading = list(history.between(1, self.head.leading)) if self.head.leading else []

    def run(self) -> Context:
        everything = self._everything()
        if everything is not None:
            selection, counted = everything
            if getattr(self.request.strategy, "scope", "session") == "owner" and self._ask_for_other_sessions(selection, counted):
                counted = self._shrink(selection)
            return self._context(selection, counted)
        selection, counted = self._must()
        if self._older_groups_of_the_live_turn(selection, counted.tokens):
            counted = self.count(selection)
        self._ask_the_strategy(selection, counted)
        return self._context(selection, self._shrink(selection))

    def count(self, selection: Selection) -> Counted:
        """The exact cost of what is selected."""
        pieces, sent = lay_out(self.request.instructions, self.leading, selection.shown, selection.picks, self.head, self.request.profile)
        counting = self.request.counting
        for piece in (*pieces, *sent):
            if piece.tokens is None:
                counted = counting.count_again(piece.message)
                piece.tokens, piece.exact = counted.tokens, counted.exact
        messages, counts = Messages(sent), [piece.tokens or 0 for piece in sent]
        tools = self.request.tools
        made = counting.count_request(messages, tools=tools, response_format=self.request.response_format, counts=counts)
        exact = made.exact and (not counting.additive or all(piece.exact for piece in sent))
        return Counted(pieces, sent, made.tokens, exact, counting.count_tools(Messages(sent[:1]), counts[:1], tools) if tools else 0)

    def _everything(self) -> tuple[Selection, Counted] | None:
        """The whole log, where it fits."""
        if self._is_far_too_long():
            return None
        selection = Selection()
        entries = self.history.between(self.head.leading + 1, self.head.seq)
        shown = [whole(entry, self.request.counted) for entry in entries if self._may_stand(entry)]
        selection.add(Pick((), 0, "the whole log fits"), shown)
        counted = self.count(selection)
        return (selection, counted) if counted.tokens <= self.ceiling else None

    def _is_far_too_long(self) -> bool:
        """Whether the log need not be read to know that the whole does not fit."""
        counting = self.request.counting
        merges = not counting.profile.fits_plain
        slack = ESTIMATE_SLACK if not self.request.counted else FORM_SLACK if merges or not counting.additive else 1
        replaced = self._complete(self.history.entries(self.request.replaced)) if self.request.replaced else ()
        least = self.head.tokens - sum(entry.tokens for entry in replaced)
        if merges:
            least -= self.head.seq * (counting.count_again(Message.user("")).tokens + JOINT_SLACK)
        return least > self.ceiling * slack

    def _may_stand(self, entry: Entry) -> bool:
        if entry.status in ("late", "erased") or entry.seq <= self.head.leading:
            return False
        return not self.request.replaced or self.request.replaced.isdisjoint((entry.seq, entry.group_seq))

    def _must(self) -> tuple[Selection, Counted]:
        """Instructions, pins, the live user message and the newest group of the live turn; results clipped where that is needed."""
        counted_here = self.request.counted
        pinned = [entry for entry in self.history.pinned() if self._may_stand(entry)]
        groups = [entry for entry in self._complete(pinned) if self._may_stand(entry)]
        newest = self.history.between(max(self.head.group_seq, self.head.turn_seq, 1), self.head.seq)
        user = self.history.live
        live = [entry for entry in ([user] if user else []) + list(newest) if self._may_stand(entry)]
        whole_pins = {entry.seq for entry in pinned}
        selection = Selection()
        selection.add(Pick((), 0, "the live turn"), [whole(entry, counted_here) for entry in live])
        selection.add(
            Pick((), 0, "pinned"),
            [whole(e, counted_here) if e.seq in whole_pins else as_old(e, self.request.clip_tokens, counted_here) for e in groups],
        )
        counted = self.count(selection)
        if counted.tokens > self.ceiling:
            counted = self._clip_results(selection, counted, whole_pins)
        return selection, counted

    def _clip_results(self, selection: Selection, counted: Counted, whole_pins: set[int]) -> Counted:
        """Clip the must-keeps' tool results evenly, as little as will do."""
        results = [one for seq, one in selection.shown.items() if one.entry.role == "tool" and seq not in whole_pins]
        costs = {one.entry.seq: self.request.counting.count(one.entry.message).tokens for one in results}

        def clipped_to(tokens: int) -> Counted:
            for one in results:
                cost = costs[one.entry.seq]
                short = Shown(one.entry, text_length(one.entry.message) * tokens // max(1, cost))
                price = self.request.counting.count_again(Piece.of(short, self.request.profile).message).tokens
                full = Shown(one.entry, None, cost)
                selection.shown[one.entry.seq] = full if tokens >= cost or price >= cost else short._replace(tokens=price)
            return self.count(selection)

        smallest = clipped_to(0)
        if smallest.tokens > self.ceiling:
            raise self._cannot_fit(selection, smallest)
        low, high, best = 0, max(costs.values(), default=0), dict(selection.shown)
        while low < high:
            middle = (low + high + 1) // 2
            tried = clipped_to(middle)
            if tried.tokens <= self.ceiling:
                low, smallest, best = middle, tried, dict(selection.shown)
            else:
                high = middle - 1
        selection.shown = best
        return smallest

    def _cannot_fit(self, selection: Selection, smallest: Counted) -> CannotFit:
        by_seq = _tokens_by_seq(smallest.pieces)
        instructions = by_seq.pop(0, 0) + sum(by_seq.get(entry.seq, 0) for entry in self.leading)
        parts = {"instructions": instructions, "tools": smallest.tools_tokens}
        for pick in selection.picks:
            parts[pick.reason] = sum(by_seq.get(seq, 0) for seq in pick.seqs)
        return CannotFit(smallest.tokens, self.ceiling, parts)

    def _older_groups_of_the_live_turn(self, selection: Selection, spent: int) -> bool:
        """What the live turn brought before its newest group: newest first, as much as fits. Whether anything came of it."""
        if self.head.group_seq <= self.head.turn_seq + 1:
            return False
        left = self.ceiling - spent
        newest = sum(one.entry.shown_tokens for seq, one in selection.shown.items() if seq >= self.head.group_seq)
        tail = self.history.tail(newest + left)
        older = [e for e in tail if e.turn_seq == self.head.turn_seq and e.seq not in selection.shown and self._may_stand(e)]
        chosen: list[Shown] = []
        for _, members in groupby(reversed(older), key=lambda entry: entry.group_seq):
            group = list(members)
            in_full = [whole(entry, self.request.counted) for entry in group]
            short = [as_old(entry, self.request.clip_tokens, self.request.counted) for entry in group]
            fitting = next((form for form in (in_full, short) if _estimate(form) <= left), None)
            if fitting is None:
                break
            chosen.extend(fitting)
            left -= _estimate(fitting)
        if chosen:
            selection.add(Pick((), 0, "earlier in the live turn"), chosen)
        return bool(chosen)

    def _ask_the_strategy(self, selection: Selection, counted: Counted) -> None:
        for pick in self._picks(self.history, counted, _tokens_by_seq(counted.pieces)):
            if pick.kind == "entries":
                usable = [entry for entry in self._complete(self.history.entries(pick.seqs)) if self._may_stand(entry)]
                selection.add(pick, self._forms(usable, pick.clearing))
            else:
                selection.add(pick, ())
        selection.leave_out_what_is_said_twice()

    def _ask_for_other_sessions(self, selection: Selection, counted: Counted) -> bool:
        """What the strategy recalls of other sessions beside the whole log, with the budget it has when the log is cut. Whether any."""
        stays = {entry.seq for entry in self.history.pinned()}
        by_seq = _tokens_by_seq(counted.pieces)
        log = sum(by_seq.get(seq, 0) for seq in selection.shown if seq not in stays and not seq >= self.head.turn_seq > 0)
        picks = self._picks(WithShown(self.history, frozenset(selection.shown)), counted, by_seq, log)
        others = [pick for pick in picks if pick.kind == "excerpt" and not pick.seqs]
        for pick in others:
            selection.add(pick, ())
        return bool(others)

    def _picks(self, history: History, counted: Counted, by_seq: Mapping[int, int], log: int = 0) -> list[Pick]:
        """What the strategy chose, in due form; `log`: what of the counted tokens is its to choose."""
        request = self.request
        live = sum(tokens for seq, tokens in by_seq.items() if seq and seq >= self.head.turn_seq > 0)
        reserved = max(0, counted.tokens - live - log)  # messages that were made one may cost less than their entries
        budget = request.budget.within(min(reserved, self.ceiling), min(live, self.ceiling))
        picks = request.strategy.pick(history, budget)
        if not isinstance(picks, Sequence):
            raise StrategyError(f"{request.strategy!r} returned {picks!r:.80}: pick() returns a list of Picks")
        return [self._checked(pick) for pick in picks]

    def _checked(self, pick: object) -> Pick:
        """A pick in due form: its seqs ascending, once each, and in the log; its score as a record keeps it."""
        strategy = self.request.strategy
        if not isinstance(pick, Pick):
            raise StrategyError(f"{strategy!r} returned {pick!r:.80}: pick() returns a list of Picks")
        unknown = [seq for seq in pick.seqs if not isinstance(seq, int) or not 1 <= seq <= self.head.seq]
        if unknown:
            raise StrategyError(f"{strategy!r} picked entries that the session does not have: {unknown[:5]}")
        if pick.kind not in ("entries", "summary", "excerpt") or (pick.kind != "entries" and not pick.text):
            raise StrategyError(f"{strategy!r} returned {pick!r:.80}: a pick is of kind entries, or a summary or an excerpt with its text")
        if pick.score is not None and not isfinite(pick.score):
            raise StrategyError(f"{strategy!r} returned {pick!r:.80}: a score is a finite number")
        score = None if pick.score is None else round(pick.score, SCORE_DIGITS)
        return replace(pick, seqs=tuple(sorted(set(pick.seqs))), score=score)

    def _forms(self, entries: Sequence[Entry], clearing: Clearing | None) -> list[Shown]:
        """The entries as they stand; most are what they were in their turn, which is seen here at once: a context has hundreds."""
        counted = self.request.counted
        return [
            Shown(entry, None, entry.tokens if counted else None)
            if clearing is None and entry.shown_tokens >= entry.tokens
            else self._form(entry, clearing)
            for entry in entries
        ]

    def _form(self, entry: Entry, clearing: Clearing | None) -> Shown:
        if entry.turn_seq == self.head.turn_seq:
            return whole(entry, self.request.counted)
        if clearing is not None and clearing.covers(entry):
            return Shown(entry, CLEARED)
        return as_old(entry, self.request.clip_tokens, self.request.counted)

    def _complete(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries with all others of their groups."""
        parts = [entry for entry in entries if "tool_calls" in (raw := entry.raw) or raw["role"] == "tool"]
        if not parts:
            return list(entries)
        have = {entry.seq: entry for entry in entries}
        for entry in parts:
            raw = entry.raw
            calls = raw.get("tool_calls")
            if raw["role"] == "tool":
                if entry.group_seq in have:
                    continue
                (opener,) = self.history.entries([entry.group_seq])
                have[opener.seq], calls = opener, opener.raw.get("tool_calls")
            if isinstance(calls, list) and calls:
                last = min(entry.group_seq + len(calls), self.head.seq)
                if any(seq not in have for seq in range(entry.group_seq + 1, last + 1)):
                    members = self.history.between(entry.group_seq + 1, last)
                    have.update((member.seq, member) for member in members if member.group_seq == entry.group_seq)
        return [have[seq] for seq in sorted(have)]

    def _shrink(self, selection: Selection) -> Counted:
        """Give up what matters least until the whole fits."""
        while (counted := self.count(selection)).tokens > self.ceiling:
            selection.give_up(counted.tokens - self.ceiling, _tokens_by_seq(counted.pieces))
        return counted

    def _context(self, selection: Selection, counted: Counted) -> Context:
        request = self.request
        by_seq = _tokens_by_seq(counted.pieces)
        leading = tuple(entry.seq for entry in self.leading)
        instructions = by_seq.get(INSTRUCTIONS, 0) + sum(by_seq.get(seq, 0) for seq in leading)
        picks = [Pick(leading, instructions, "instructions", kind="instructions")] if instructions else []
        picks += _costed(selection.picks, by_seq)
        manifest = Manifest.of(
            strategy=repr(request.strategy),
            budget=request.budget,
            counter=request.counting.name,
            profile=request.profile,
            head=self.head,
            picks=picks,
            shown=selection.shown,
            instructions=request.instructions,
            tools=[request.tools, request.response_format],
            tokens=counted.tokens,
            tools_tokens=counted.tools_tokens,
            exact=counted.exact,
        )
        changes = manifest.changes_since(request.previous)
        return Context(
            messages=[piece.sent(request.profile.keys) for piece in counted.sent],
            budget=request.budget,
            tokens=counted.tokens,
            exact=counted.exact,
            counter=request.counting.name,
            strategy=repr(request.strategy),
            picks=tuple(picks),
            decisions=decide(self.head.seq, picks, selection.shown, by_seq, self._unshown(selection)),
            tools=request.tools,
            tools_tokens=counted.tools_tokens,
            overhead=counted.tokens - counted.tools_tokens - sum(pick.tokens for pick in picks),
            response_format=request.response_format,
            tool_choice=request.tool_choice,
            manifest={**manifest.to_dict(), "changes": changes},
            cache_note=", ".join(changes) or "begins as the turn before",
        )

    def _unshown(self, selection: Selection) -> dict[int, str]:
        """Why entries between the shown ones are not: looked up where the gaps are small, so that reading stays in proportion."""
        if not selection.shown:
            return {}
        marks = [*sorted(selection.shown), self.head.seq + 1]
        gaps = [seq for low, high in pairwise(marks) if high - low <= SMALL_GAP for seq in range(low + 1, high)]
        why = {entry.seq: str(entry.status) for entry in self.history.entries(gaps) if entry.status in ("late", "erased")}
        return why | dict.fromkeys(self.request.replaced, "replaced by this retry")


def _estimate(shown: Iterable[Shown]) -> int:
    return sum(one.entry.tokens if one.tokens is None else one.tokens for one in shown)


def _costed(picks: Sequence[Pick], by_seq: Mapping[int, int]) -> Iterator[Pick]:
    """The picks with what each adds; of the one message that holds all excerpts, or all summaries, each its share by length."""
    given, told = {"summary": 0, "excerpt": 0}, {"summary": 0, "excerpt": 0}
    places = {"summary": SUMMARISED, "excerpt": RECALLED_BLOCK}
    lengths = {kind: sum(len(pick.text or "") for pick in picks if pick.kind == kind) for kind in places}
    for pick in picks:
        if pick.kind not in places:
            yield replace(pick, tokens=sum(by_seq.get(seq, 0) for seq in pick.seqs))
            continue
        told[pick.kind] += len(pick.text or "")
        upto = by_seq.get(places[pick.kind], 0) * told[pick.kind] // max(1, lengths[pick.kind])
        yield replace(pick, tokens=upto - given[pick.kind])
        given[pick.kind] = upto


def _tokens_by_seq(pieces: Iterable[Piece]) -> dict[int, int]:
    """What each entry costs, a made result for its call included."""
    costs: dict[int, int] = {}
    for piece in pieces:
        costs[piece.seq] = costs.get(piece.seq, 0) + (piece.tokens or 0)
    return costs
