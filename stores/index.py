"""What is remembered of one log, or of all of an owner's: columns and vectors, read once, then only what was added."""

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress, takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from sqlalchemy import Connection

from threadkeep.memory.history import Entry
from threadkeep.memory.index import Index, Posting
from threadkeep.stores import index_queries
from threadkeep.stores.index_plan import SEQ_BITS, Layout, Plan, Run, spans
from threadkeep.stores.index_queries import NAMED, Span
from threadkeep.stores.index_terms import Terms

if TYPE_CHECKING:
    from threadkeep.memory.index import Halves, Integers

Table: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int64]]
KEY, SESSION, SEQ, TOKENS, CREATED, GROUP, ROLE, MADE, MAKER = range(9)
COLUMNS = 9
"""As lines of one array; the last two, after which entry of which branch a row's vector was made, are not given out."""
NOT_YET, NONE, STORED, LATER = range(4)
"""What is known of a row's vector: nothing, that it has none, that it is held, that it was made too late for who asked last."""
SPARE = 256
"""Rows more than there are, and an eighth of them: so many come before everything is copied."""
GROUPS = 4
"""Statements that late vectors are looked up with by name; more are counted first."""


@dataclass(frozen=True)
class Asked:
    """What an index is wanted for."""

    plan: Plan
    live_seq: int
    """Where the live message stands in the asked session, or where the next entry would; a vector made from there on does not count yet."""
    model: str | None
    """The embedder's name."""
    branch_id: int
    """The branch that it stands on; 0: there is none yet."""
    before_us: int | None
    """Entries of other sessions said at this moment or later are not in it."""
    query: bytes | None
    """The live message's vector as stored."""


class Held:
    """What is remembered of one session, or of one owner's sessions."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counted = 0
        """Its bytes, as the cache knows them."""
        self._begin()

    def _begin(self) -> None:
        self._runs: tuple[Run, ...] = ()
        self._head = 0
        self._count = 0
        self._table: Table = np.empty((COLUMNS, 0), np.int64)
        self._known = np.zeros(0, np.int8)
        self._vectors: Halves | None = None
        self._given: weakref.WeakSet[Index] = weakref.WeakSet()
        self.terms = Terms()

    @property
    def nbytes(self) -> int:
        return self._table.nbytes + self._known.nbytes + (0 if self._vectors is None else self._vectors.nbytes) + self.terms.nbytes

    def index(self, connection: Connection, asked: Asked, entries: Callable[[Sequence[int]], Sequence[Entry]]) -> Index:
        """The index, brought up to date; `entries` reads those of the asked session."""
        with self.lock:
            self._advance(connection, asked.plan)
            if asked.model is not None:
                self._settle(asked)
                self._fill(connection, asked, asked.model)
            count = self._up_to(asked.plan)
            table, vectors = self._table[:, :count], self._vectors
            if not np.any(self._known[:count] == STORED):
                vectors = None
            if asked.before_us is not None and np.any(later := (table[CREATED] >= asked.before_us) & (table[SESSION] > 0)):
                table = table[:, ~later]
                vectors = None if vectors is None else vectors[: len(later)][~later]
            lookup = _Lookup(connection, asked.plan, Layout(asked.plan.runs, table[KEY]), table, self, entries)
            made = _index(asked, table, vectors, lookup)
            self._given.add(made)
            return made

    def _up_to(self, plan: Plan) -> int:
        """How many rows the plan has of those that are held: the newest may be behind its end."""
        if plan.runs == self._runs:
            return self._count
        last = (len(plan.runs) - 1) << SEQ_BITS | plan.runs[-1].upto
        return int(np.searchsorted(self._table[KEY, : self._count], last, side="right"))

    def _advance(self, connection: Connection, plan: Plan) -> None:
        """Read what the plan has and is not held; let go of what it has no more."""
        if plan.head < self._head and plan.runs and self._runs and plan.runs[-1].branch_id == self._runs[-1].branch_id:
            self._begin()  # the log has another past than was read
        self._head = plan.head
        if plan.runs == self._runs:
            return
        if len(plan.runs) == len(self._runs) and plan.runs[:-1] == self._runs[:-1]:
            before, last = self._runs[-1], plan.runs[-1]
            if before._replace(upto=last.upto) == last:
                if last.upto > before.upto:
                    self._append(_columns(connection, plan, [last._replace(after=before.upto)]))
                    self._runs = plan.runs
                return
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._runs, plan.runs, strict=False)))
        if self._runs and not any(run.session for run in (*self._runs[same:], *plan.runs[same:])):
            self._go_over(connection, plan, same)
        else:
            self._arrange(connection, plan)

    def _go_over(self, connection: Connection, plan: Plan, same: int) -> None:
        """To another branch of the asked session: behind the runs that are the same, and what the next has of before, all is read anew."""
        before, wanted = self._runs[same:], list(plan.runs[same:])
        held = same << SEQ_BITS
        if before and wanted and before[0]._replace(upto=wanted[0].upto) == wanted[0]:
            reached = min(before[0].upto, wanted[0].upto)
            held, wanted[0] = held | reached, wanted[0]._replace(after=reached)
        elif before and wanted and before[0].revision != wanted[0].revision:
            self.terms = Terms()
        self._count = int(np.searchsorted(self._table[KEY, : self._count], held, side="right"))
        if self._count < max(map(len, self._given), default=0):
            self._make_room(self._count)
        self._append(_columns(connection, plan, wanted))
        self._runs = plan.runs

    def _append(self, new: Table) -> None:
        count = self._count + new.shape[1]
        if count > self._table.shape[1]:
            self._make_room(count)
        self._table[:, self._count : count] = new
        self._known[self._count : count] = NOT_YET
        if self._vectors is not None:
            self._vectors[self._count : count] = 0
        self._count = count

    def _make_room(self, count: int) -> None:
        """Larger arrays; what was given out keeps the old ones."""
        size, held = count + count // 8 + SPARE, self._count
        table, known = np.empty((COLUMNS, size), np.int64), np.zeros(size, np.int8)
        table[:, :held], known[:held] = self._table[:, :held], self._known[:held]
        if self._vectors is not None:
            vectors = np.empty((size, self._vectors.shape[1]), np.float16)
            vectors[:held] = self._vectors[:held]
            self._vectors = vectors
        self._table, self._known, self._given = table, known, weakref.WeakSet()

    def _arrange(self, connection: Connection, plan: Plan) -> None:
        """Other runs than before, or in another order: what is held of them is taken over."""
        layout = Layout(plan.runs, np.empty(0, np.int64))
        old, known, vectors, runs = self._table[:, : self._count], self._known, self._vectors, self._runs
        kept_terms = {(run.key, run.revision) for run in runs} <= {(run.key, run.revision) for run in plan.runs}
        terms, head = self.terms, self._head
        numbers = np.zeros(0, np.int64)
        if runs and old.shape[1]:
            was = old[KEY] >> SEQ_BITS
            numbers = layout.runs_of(np.array([run.branch_id for run in runs], np.int64)[was], old[SEQ])
            revisions = np.array([run.revision for run in plan.runs] or [0], np.int64)
            numbers = np.where(revisions[numbers] == np.array([run.revision for run in runs], np.int64)[was], numbers, -1)
        sources = np.flatnonzero(numbers >= 0)
        taken = old[:, sources]
        taken[KEY] = numbers[sources] << SEQ_BITS | taken[SEQ]
        taken[SESSION] = np.array([run.session for run in plan.runs] or [0], np.int64)[numbers[sources]]
        new = _columns(connection, plan, _unread(runs, plan.runs))
        every = np.concatenate((taken, new), axis=1)
        _, order = np.unique(every[KEY], return_index=True)
        self._begin()
        self._runs, self._head = plan.runs, head
        self._make_room(len(order))
        self._table[:, : len(order)] = every[:, order]
        self._count = len(order)
        from_before = np.flatnonzero(order < len(sources))
        places = sources[order[from_before]]
        self._known[from_before] = known[places]
        if vectors is not None:
            self._vectors = np.empty((self._table.shape[1], vectors.shape[1]), np.float16)
            self._vectors[from_before] = vectors[places]
            self._vectors[np.flatnonzero(self._known[: self._count] != STORED)] = 0
        if kept_terms:
            self.terms = terms

    def _settle(self, asked: Asked) -> None:
        """Which vectors count for who asks: of those that its own branch's upkeep made, the ones made before the live message.

        Others were made while another log grew, and no turn was open on this one: all of them count.
        """
        known, low, high = self._known[: self._count], self._own(asked.plan), self._up_to(asked.plan)
        too_late = self._table[MADE, low:high] >= asked.live_seq
        if too_late.any():
            too_late &= self._table[MAKER, low:high] == asked.branch_id
        if too_late.any() and len(held := low + np.flatnonzero(too_late & (known[low:high] == STORED))):
            self._held_alone(int(held[0]))[held] = 0
            known[held] = LATER
        if len(later := np.flatnonzero(known == LATER)):
            counting = (self._table[MAKER, later] != asked.branch_id) | (self._table[MADE, later] < asked.live_seq)
            known[later[counting]] = NOT_YET

    def _own(self, plan: Plan) -> int:
        """The first row of the asked session, whose runs stand last; behind all, where it has none."""
        number = len(plan.runs)
        while number and not plan.runs[number - 1].session:
            number -= 1
        return int(np.searchsorted(self._table[KEY, : self._count], number << SEQ_BITS))

    def _fill(self, connection: Connection, asked: Asked, model: str) -> None:
        """Look for the vectors that are not held: those of new entries, and those that upkeep has made since."""
        unknown = np.flatnonzero(self._known[: self._count] == NOT_YET)
        if not len(unknown):
            return
        owner_id, had_any = asked.plan.owner_id, self._vectors is not None
        layout = Layout(self._runs, self._table[KEY, : self._count])
        groups = index_queries.gathered(layout.place(int(row)) for row in unknown) if len(unknown) <= NAMED else []
        if 0 < len(groups) <= GROUPS:
            for places in groups:
                self._take(asked, layout, index_queries.vectors_at(connection, owner_id, model, places))
        else:
            for span in self._with_news(connection, owner_id, model, unknown):
                self._take(asked, layout, index_queries.vectors_within(connection, owner_id, model, span))
        if self._vectors is not None and not had_any:
            self._vectors[np.flatnonzero(self._known[: self._count] != STORED)] = 0

    def _with_news(self, connection: Connection, owner_id: int, model: str, unknown: "Integers") -> Iterable[Span]:
        """Where more vectors are stored than are held: many entries may never get one, and need not be looked through again."""
        keys = self._table[KEY, : self._count]
        wanted = []
        for number in np.unique(keys[unknown] >> SEQ_BITS):
            run = self._runs[number]
            low, high = np.searchsorted(unknown, np.searchsorted(keys, [number << SEQ_BITS, (number + 1) << SEQ_BITS]))
            first, last = unknown[low], unknown[high - 1]
            if run.whole:
                first, last = np.searchsorted(keys, [number << SEQ_BITS, (number + 1) << SEQ_BITS]) - [0, 1]
            else:
                run = run._replace(after=int(self._table[SEQ, first]) - 1, upto=int(self._table[SEQ, last]))
            wanted.append((run, int(np.count_nonzero(self._known[first : last + 1] != NOT_YET))))
        counted: dict[tuple[int, int], int] = {}
        for span in spans([run for run, held in wanted if held], exact=True):
            for branch_id, count in index_queries.vector_counts(connection, owner_id, model, span).items():
                counted[branch_id, span.after] = count
        return spans([run for run, held in wanted if not held or counted.get(run.key, 0) != held])

    def _take(self, asked: Asked, layout: Layout, pages: Iterable[list[tuple[Any, ...]]]) -> None:
        for page in pages:
            branch_ids, seqs, made_at, made_on, found = zip(*page, strict=True)
            rows = layout.rows_of(_integers(branch_ids), _integers(seqs))
            new = (rows >= 0) & (self._known[rows] == NOT_YET)
            made, makers = _integers(made_at), _integers(made_on)
            self._table[MADE, rows[new]], self._table[MAKER, rows[new]] = made[new], makers[new]
            too_late = new & (makers == asked.branch_id) & (made >= asked.live_seq)
            self._known[rows[too_late]] = LATER
            new &= ~too_late
            if not new.all():
                found, rows = tuple(compress(found, new)), rows[new]
            sizes = np.fromiter(map(len, found), np.int64, len(found))
            if self._vectors is None and np.any(sizes):
                self._vectors = np.empty((self._table.shape[1], int(sizes[sizes > 0][0]) // 2), np.float16)
            self._known[rows] = NONE
            if self._vectors is not None:
                self._write(self._vectors.shape[1], found, rows, sizes)

    def _write(self, width: int, found: Sequence[bytes], rows: "Integers", sizes: "Integers") -> None:
        """Vectors of the right width into their rows; an entry without text has none, and its row stays zeros."""
        fitting = sizes == 2 * width
        if not fitting.all():
            found, rows = [vector for vector, fits in zip(found, fitting, strict=True) if fits], rows[fitting]
        if not len(rows):
            return
        vectors = self._held_alone(int(rows.min()))
        vectors[rows] = np.frombuffer(b"".join(found), "<f2").reshape(-1, width)
        self._known[rows] = STORED

    def _held_alone(self, row: int) -> "Halves":
        """The vectors, to be written to from this row on: a copy, where somebody may be reading there."""
        assert self._vectors is not None
        if row < max(map(len, self._given), default=0):
            self._vectors, self._given = self._vectors.copy(), weakref.WeakSet()
        return self._vectors


def _integers(values: Sequence[int]) -> "Integers":
    return np.fromiter(values, np.int64, len(values))


def _index(asked: Asked, table: Table, vectors: "Halves | None", lookup: "_Lookup") -> Index:
    count = table.shape[1]
    if asked.model is None or vectors is None:
        matrix = None
    else:
        matrix = vectors[:count]
        matrix.flags.writeable = False
    query = None if not asked.query else np.frombuffer(asked.query, "<f2").astype(np.float32)
    if query is not None and matrix is not None and len(query) != matrix.shape[1]:
        query = None
    columns = []
    for number in (SESSION, SEQ, TOKENS, CREATED, GROUP, ROLE):
        column = table[number]
        column.flags.writeable = False
        columns.append(column)
    session, seqs, tokens, created_us, groups, roles = columns
    return Index(asked.plan.names, session, seqs, tokens, created_us, groups, roles, matrix, query, lookup)


def _unread(held: Iterable[Run], wanted: Iterable[Run]) -> list[Run]:
    """What of the wanted runs is not held."""
    before: dict[tuple[int, int], list[Run]] = {}
    for run in held:
        before.setdefault((run.branch_id, run.revision), []).append(run)
    missing = []
    for run in wanted:
        reached = max((old.upto for old in before.get((run.branch_id, run.revision), ()) if old.after <= run.after), default=0)
        missing.append(run._replace(after=min(max(run.after, reached), run.upto)))
    return missing


def _columns(connection: Connection, plan: Plan, runs: Sequence[Run]) -> Table:
    """The rows of these parts of the plan's runs, shape (COLUMNS, rows), in the order of their keys; no vector is known of yet."""
    parts = [
        np.fromiter(chain.from_iterable(page), np.int64, 6 * len(page)).reshape(-1, 6)
        for span in spans(runs)
        for page in index_queries.columns(connection, plan.owner_id, span)
    ]
    rows = (np.concatenate(parts) if parts else np.empty((0, 6), np.int64)).T
    numbers = Layout(plan.runs, np.empty(0, np.int64)).runs_of(rows[0], rows[1])
    inside = numbers >= 0
    if not inside.all():
        rows, numbers = rows[:, inside], numbers[inside]
    sessions = np.array([run.session for run in plan.runs] or [0], np.int64)[numbers]
    made = np.stack((numbers << SEQ_BITS | rows[1], sessions, *rows[1:], *np.zeros((2, len(numbers)), np.int64)))
    return made if np.all(np.diff(made[KEY]) > 0) else made[:, np.argsort(made[KEY], kind="stable")]


class _Lookup:
    """Reads what an index does not hold, on the connection of its history."""

    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        layout: Layout,
        table: Table,
        held: Held,
        entries: Callable[[Sequence[int]], Sequence[Entry]],
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._layout = layout
        self._table = table
        self._held = held
        self._terms = held.terms
        self._entries = entries

    def postings(self, terms: Sequence[str]) -> Mapping[str, Posting]:
        with self._held.lock:
            return self._terms.postings(self._connection, self._plan.owner_id, self._layout, terms)

    def entries(self, rows: Sequence[int]) -> Sequence[Entry]:
        wanted = [int(row) for row in rows]
        own = {row: int(self._table[SEQ, row]) for row in wanted if self._table[SESSION, row] == 0}
        here = {entry.seq: entry for entry in self._entries(list(own.values()))} if own else {}
        places = {row: self._layout.place(row) for row in wanted if row not in own}
        there = index_queries.entries_at(self._connection, self._plan.owner_id, list(places.values())) if places else {}
        return [here[own[row]] if row in own else there[places[row]] for row in wanted]
