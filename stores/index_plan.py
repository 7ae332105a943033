"""Which entries an index has and in which order: runs of branches, numbered, and where a row stands among them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from threadkeep.stores.index_queries import NO_END, Place, Span
from threadkeep.stores.queries import SessionRow

if TYPE_CHECKING:
    from threadkeep.memory.index import Integers

SEQ_BITS = 40
"""A key is a run's number and a seq: more messages than 2^40 no log has."""


class Run(NamedTuple):
    """Neighbouring entries of one branch that an index has."""

    session: int
    """Which of the plan's names they are of."""
    branch_id: int
    after: int
    upto: int
    whole: bool
    """Whether nothing stands behind `upto`."""
    revision: int

    @property
    def key(self) -> tuple[int, int]:
        return self.branch_id, self.after


class Plan(NamedTuple):
    """An index's rows, before they are read. The asked session's runs stand last, where they can grow."""

    owner_id: int
    names: tuple[str, ...]
    runs: tuple[Run, ...]
    head: int
    """Where a single session's log ends; 0 for all of an owner's."""


def of_session(session: SessionRow, upto: int) -> Plan:
    """One session up to a seq."""
    return Plan(session.owner_id, (session.name,), tuple(_runs(session, upto)), session.head.seq)


def of_owner(owner_id: int, name: str, asked: SessionRow | None, upto: int, sessions: Sequence[SessionRow]) -> Plan:
    """Sessions of an owner, the asked one up to a seq.

    An entry that several sessions share, being forks, is the asked session's, else the oldest's.
    """
    taken: dict[int, int] = {} if asked is None else {segment.branch_id: segment.last for segment in asked.segments}
    names, runs = [name], []
    for session in sessions:
        if asked is None or session.id != asked.id:
            for segment in session.segments:
                after = max(segment.first - 1, session.head.leading, taken.get(segment.branch_id, 0))
                if after < segment.last:
                    whole = segment is session.segments[-1]
                    runs.append(Run(len(names), segment.branch_id, after, segment.last, whole, session.revision))
                    taken[segment.branch_id] = segment.last
            names.append(session.name)
    if asked is not None:
        runs.extend(_runs(asked, upto))
    return Plan(owner_id, tuple(names), tuple(runs), 0)


def _runs(session: SessionRow, upto: int) -> Iterable[Run]:
    for segment in session.segments:
        after = max(segment.first - 1, session.head.leading)
        yield Run(0, segment.branch_id, after, max(after, min(segment.last, upto)), False, session.revision)


def spans(runs: Sequence[Run], *, exact: bool = False) -> list[Span]:
    """The runs as few spans: whole branches together, which then hold some entries more, unless it shall be `exact`."""
    together: dict[int, list[int]] = {}
    alone = []
    for run in runs:
        if run.after < run.upto:
            if run.whole:
                together.setdefault(run.after if exact else 0, []).append(run.branch_id)
            else:
                alone.append(Span((run.branch_id,), run.after, run.upto))
    if together and not exact:
        least = min(run.after for run in runs if run.whole and run.after < run.upto)
        return [Span(tuple(together[0]), least, NO_END), *alone]
    return [*(Span(tuple(branch_ids), after, NO_END) for after, branch_ids in sorted(together.items())), *alone]


class Layout:
    """Where the rows of some runs stand: each run's behind those of the run before, by seq.

    Args:
        runs: in their order.
        keys: of the rows, ascending, shape (rows,).
    """

    def __init__(self, runs: Sequence[Run], keys: "Integers") -> None:
        self.runs = tuple(runs)
        self.keys = keys

    @cached_property
    def reach(self) -> Mapping[tuple[int, int], int]:
        """How far each run goes, by its key."""
        return {run.key: run.upto for run in self.runs}

    @cached_property
    def _table(self) -> "tuple[Integers, Integers, Integers, Integers]":
        """The branches ascending; the first place of each run ascending, which run that is, and its last."""
        branch_ids = np.unique(np.array([run.branch_id for run in self.runs], np.int64))
        ranks = np.searchsorted(branch_ids, np.array([run.branch_id for run in self.runs], np.int64))
        first = ranks << SEQ_BITS | np.array([run.after + 1 for run in self.runs], np.int64)
        last = ranks << SEQ_BITS | np.array([run.upto for run in self.runs], np.int64)
        order = np.argsort(first, kind="stable")
        return branch_ids, first[order], order, last[order]

    def runs_of(self, branch_ids: "Integers", seqs: "Integers") -> "Integers":
        """The number of the run that each entry stands in, -1 for none."""
        known, first, order, last = self._table
        if not len(known):
            return np.full(len(seqs), -1, np.int64)
        ranks = np.minimum(np.searchsorted(known, branch_ids), len(known) - 1)
        places = ranks << SEQ_BITS | seqs
        at = np.searchsorted(first, places, side="right") - 1
        inside = (known[ranks] == branch_ids) & (at >= 0) & (places <= last[at])
        return np.where(inside, order[at], -1)

    def rows_of(self, branch_ids: "Integers", seqs: "Integers") -> "Integers":
        """The row of each entry, -1 for none."""
        return self.rows_in(self.runs_of(branch_ids, seqs), seqs)

    def rows_in(self, runs: "Integers", seqs: "Integers") -> "Integers":
        """The row of each entry whose run is known, -1 for none."""
        if not len(self.keys):
            return np.full(len(seqs), -1, np.int64)
        keys = runs << SEQ_BITS | seqs
        first, last = self.keys[0], self.keys[-1]
        if last - first == len(self.keys) - 1:  # one run without a gap, as most sessions are
            return np.where((keys >= first) & (keys <= last), keys - first, -1)
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((runs >= 0) & (self.keys[rows] == keys), rows, -1)

    def place(self, row: int) -> Place:
        """Where the entry of a row stands."""
        run, seq = divmod(int(self.keys[row]), 1 << SEQ_BITS)
        return Place(self.runs[run].branch_id, seq)
