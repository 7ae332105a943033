"""Where terms stand in a plan's entries: read once, then only what was added."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection

from threadkeep.memory.index import Posting
from threadkeep.stores import index_queries
from threadkeep.stores.index_plan import Layout, spans

if TYPE_CHECKING:
    from threadkeep.memory.index import Integers

MOST_BYTES = 32 * 2**20
"""What the terms of one plan may take."""
MANY = 1_000
"""Entries of an index that is large enough to skip terms."""
SHARE = (3, 10)
"""A term that stands in more of so many entries tells none of them from the others: it is not read."""
_EVERYWHERE = Posting(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, eq=False)
class _Stands:
    """Where one term stands: shape (postings,) each, and how far it was looked for."""

    branch_ids: "Integers"
    seqs: "Integers"
    frequencies: "Integers"
    reach: Mapping[tuple[int, int], int]

    @property
    def nbytes(self) -> int:
        return self.branch_ids.nbytes + self.seqs.nbytes + self.frequencies.nbytes


class Terms:
    """The postings that were read for one plan. Not safe to share between threads: its holder has a lock."""

    def __init__(self) -> None:
        self._stands: OrderedDict[str, _Stands] = OrderedDict()
        self.nbytes = 0

    def postings(self, connection: Connection, owner_id: int, layout: Layout, names: Iterable[str]) -> dict[str, Posting]:
        """Where terms stand among the rows: those that stand nowhere left out, those that stand almost everywhere without rows.

        Which these are is counted over the layout's runs, by the database for terms not read before: the same whatever is remembered.
        """
        wanted, everywhere = sorted(set(names)), set()
        new = [name for name in wanted if name not in self._stands]
        if new and len(layout.keys) > MANY:
            counts: dict[str, int] = {}
            for span in spans(layout.runs, exact=True):
                for name, count in index_queries.term_counts(connection, owner_id, new, span).items():
                    counts[name] = counts.get(name, 0) + count
            everywhere = {name for name in new if _is_everywhere(counts.get(name, 0), layout)}
            new = [name for name in new if name not in everywhere]
        self._extend(connection, owner_id, layout, [name for name in wanted if name in self._stands])
        self._read(connection, owner_id, layout, new)
        found = dict.fromkeys(everywhere, _EVERYWHERE)
        for name in wanted:
            if name not in everywhere:
                self._stands.move_to_end(name)
                posting = _posting(self._stands[name], layout)
                if posting is not None:
                    found[name] = posting
        while self.nbytes > MOST_BYTES:
            self.nbytes -= self._stands.popitem(last=False)[1].nbytes
        return found

    def _read(self, connection: Connection, owner_id: int, layout: Layout, names: Sequence[str]) -> None:
        """Read terms for the first time."""
        if names:
            pages = (page for span in spans(layout.runs) for page in index_queries.postings(connection, owner_id, names, span))
            for name, (branch_ids, seqs, frequencies) in _by_term(pages, names).items():
                self._keep(name, _Stands(branch_ids, seqs, frequencies, layout.reach))

    def _extend(self, connection: Connection, owner_id: int, layout: Layout, names: Sequence[str]) -> None:
        """Read on where terms were read before."""
        short = [name for name in names if self._stands[name].reach is not layout.reach]
        reaches = list({id(self._stands[name].reach): self._stands[name].reach for name in short}.values())
        ahead = []
        for run in layout.runs:
            after = min((reach.get(run.key, run.after) for reach in reaches), default=run.upto)
            if after < run.upto:
                ahead.append(run._replace(after=after))
        if not ahead:
            return
        pages = (page for span in spans(ahead) for page in index_queries.postings(connection, owner_id, short, span))
        more = _by_term(pages, short)
        further = {id(reach): {key: max(upto, reach.get(key, 0)) for key, upto in layout.reach.items()} for reach in reaches}
        for name in short:
            before = self._stands[name]
            branch_ids, seqs, frequencies = map(
                np.concatenate, zip((before.branch_ids, before.seqs, before.frequencies), more[name], strict=True)
            )
            if len(more[name][0]):  # of what one span holds, some may have been read
                once = np.unique(np.stack((branch_ids, seqs)), axis=1, return_index=True)[1]
                branch_ids, seqs, frequencies = branch_ids[once], seqs[once], frequencies[once]
            self._keep(name, _Stands(branch_ids, seqs, frequencies, further[id(before.reach)]))

    def _keep(self, name: str, stands: _Stands) -> None:
        before = self._stands.get(name)
        self.nbytes += stands.nbytes - (0 if before is None else before.nbytes)
        self._stands[name] = stands


def _is_everywhere(count: int, layout: Layout) -> bool:
    return len(layout.keys) > MANY and count * SHARE[1] > len(layout.keys) * SHARE[0]


def _posting(stands: _Stands, layout: Layout) -> Posting | None:
    """As rows; None where there are none."""
    runs = layout.runs_of(stands.branch_ids, stands.seqs)
    if _is_everywhere(int(np.count_nonzero(runs >= 0)), layout):
        return _EVERYWHERE
    rows = layout.rows_in(runs, stands.seqs)
    order = np.argsort(rows, kind="stable")
    order = order[np.searchsorted(rows[order], 0) :]
    return Posting(rows[order], stands.frequencies[order]) if len(order) else None


def _by_term(pages: Iterable[list[tuple[Any, ...]]], names: Sequence[str]) -> "dict[str, tuple[Integers, Integers, Integers]]":
    """Branches, seqs and frequencies of each term."""
    numbers: dict[str | bytes, int] = {name: number for number, name in enumerate(names)}
    numbers |= {name.encode(): number for number, name in enumerate(names)}
    parts = [np.empty((4, 0), np.int64)]
    for page in pages:
        found, *others = zip(*page, strict=True)
        parts.append(np.array([[numbers[name] for name in found], *others], np.int64))
    rows = np.concatenate(parts, axis=1)
    of_term = [rows[1:, rows[0] == number] for number in range(len(names))]
    return {name: (some[0], some[1], some[2]) for name, some in zip(names, of_term, strict=True)}
