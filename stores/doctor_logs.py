"""Every log reckoned anew: each entry's place and totals from the one before it, each branch's head, and the words that find it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, and_, bindparam, func, or_, select

from threadkeep.memory.analysis import terms as terms_of
from threadkeep.memory.errors import InvalidMessage
from threadkeep.memory.history import Entry, Head
from threadkeep.memory.log import follow
from threadkeep.stores import queries
from threadkeep.stores.branching import head_at
from threadkeep.stores.findings import Check, Finding, fault
from threadkeep.stores.queries import SessionRow, at, read_session
from threadkeep.stores.schema import branches, owners, sessions, terms
from threadkeep.stores.sql import SQLStore

PAGE = 1_000
"""Branches, or entries, that are read in one transaction."""
WINDOW = 50
"""Pages of entries whose words are counted in one go: a branch's words are read once for each window."""
MOST = 1_000
"""Findings that are kept of a check."""
BROKEN = (InvalidMessage, ValueError, KeyError, TypeError, AttributeError)
"""What reading a message may raise whose JSON is no message any more."""

_BRANCHES = (
    select(
        *(sessions.c[name] for name in ("owner_id", "id")),
        branches.c.id,
        *(sessions.c[name] for name in "name tokenizer clip revision".split()),
        *(branches.c[name] for name in "lineage head_seq head_tokens head_shown head_group head_turn open_calls leading".split()),
        owners.c.name,
        branches.c.name,
    )
    .join_from(branches, sessions, and_(sessions.c.owner_id == branches.c.owner_id, sessions.c.id == branches.c.session_id))
    .join(owners, owners.c.id == branches.c.owner_id)
    .where(
        or_(
            branches.c.owner_id > bindparam("b_owner_id"),
            and_(branches.c.owner_id == bindparam("b_owner_id"), branches.c.id > bindparam("b_id")),
        )
    )
    .order_by(branches.c.owner_id, branches.c.id)
    .limit(PAGE)
)
"""The columns that `read_session` reads, of any branch, and the names of its owner and itself."""
_STILL_THERE = select(branches.c.id).where(at(branches, "id"))
_WORDS = (
    select(terms.c.seq, func.count(), func.sum(terms.c.frequency))
    .where(at(terms, "branch_id"), terms.c.seq >= bindparam("b_first"), terms.c.seq <= bindparam("b_last"))
    .group_by(terms.c.seq)
)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A branch, as if it were its session's active one."""

    row: SessionRow
    owner: str
    name: str

    @property
    def said(self) -> str:
        return f"branch {self.name!r} of session {self.row.name!r} of {self.owner!r}"


@dataclass
class _Found:
    """What is found of one check, over all branches."""

    looked: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        if len(self.findings) < MOST:
            self.findings.append(finding)


def examine_logs(store: SQLStore) -> Iterator[Check]:
    """The totals and the words of every branch; what was deleted meanwhile is let alone."""
    totals, words = _Found(), _Found()
    for branch in _branches(store):
        of_totals, of_words = _examine(store, branch)
        totals.looked += branch.row.head.seq - branch.row.segments[-1].first + 1
        words.looked += of_words.looked
        if (of_totals.findings or of_words.findings) and _is_there(store, branch):
            for found, more in ((totals, of_totals), (words, of_words)):
                for finding in more.findings:
                    found.add(finding)
    yield Check("totals", totals.looked, "entries", tuple(totals.findings))
    yield Check("words", words.looked, "words", tuple(words.findings))


def _branches(store: SQLStore) -> Iterator[_Branch]:
    after = {"b_owner_id": 0, "b_id": 0}
    while True:
        with store.read("reading branches") as connection:
            page = [_Branch(read_session(row[:-2]), row[-2], row[-1]) for row in connection.execute(_BRANCHES, after)]
        yield from page
        if len(page) < PAGE:
            return
        after = {"b_owner_id": page[-1].row.owner_id, "b_id": page[-1].row.branch_id}


def _is_there(store: SQLStore, branch: _Branch) -> bool:
    with store.read("reading a branch") as connection:
        return connection.execute(_STILL_THERE, {"b_owner_id": branch.row.owner_id, "b_id": branch.row.branch_id}).first() is not None


def _examine(store: SQLStore, branch: _Branch) -> tuple[_Found, _Found]:
    totals, words = _Found(), _Found()
    own, counted = branch.row.segments[-1], dict[int, tuple[int, int]]()
    with store.read("reading a log") as connection:
        try:
            head = head_at(connection, branch.row, own.first - 1)
        except BROKEN:
            totals.add(fault(f"{branch.said} was forked at entry {own.first - 1}, which is not there any more, or no message"))
            return totals, words
    for number, first in enumerate(range(own.first, own.last + 1, PAGE)):
        last = min(first + PAGE - 1, own.last)
        with store.read("reading a log") as connection:
            if number % WINDOW == 0:
                counted = _words(connection, branch.row, first, min(first + WINDOW * PAGE - 1, own.last))
            entries = queries.entries_between(connection, branch.row, first, last)
        if [entry.seq for entry in entries] != list(range(first, last + 1)):
            totals.add(fault(f"{branch.said} has {len(entries)} of the entries {first} to {last}: restore it from a backup"))
            return totals, words
        for entry in entries:
            head = _followed(branch, head, entry, totals)
            _compared(branch, entry, counted.get(entry.seq, (0, 0)), words)
    if not totals.findings and (stored := replace(branch.row.head, leading=min(branch.row.head.leading, head.seq))) != head:
        totals.add(fault(f"{branch.said} ends with {head}, and its row says {stored}"))
    return totals, words


def _followed(branch: _Branch, head: Head, entry: Entry, found: _Found) -> Head:
    """The head behind an entry, by what is stored of the entries alone."""
    try:
        place, after = follow(head, entry.message, entry.tokens, entry.shown_tokens)
    except BROKEN as error:
        found.add(fault(f"entry {entry.seq} of {branch.said} is no message ({type(error).__name__}): restore it from a backup"))
        return Head(entry.seq, entry.cum_tokens, entry.cum_shown, entry.group_seq, entry.turn_seq, (), head.leading)
    reckoned = (place.cum_tokens, place.cum_shown, place.group_seq, place.turn_seq, place.late)
    stored = (entry.cum_tokens, entry.cum_shown, entry.group_seq, entry.turn_seq, entry.status == "late")
    if reckoned != stored:
        names = ("total", "shown total", "group", "turn", "late")
        wrong = [f"{name} {was}, not {right}" for name, was, right in zip(names, stored, reckoned, strict=True) if was != right]
        found.add(fault(f"entry {entry.seq} of {branch.said} is stored with {', '.join(wrong)}"))
        return replace(after, tokens=entry.cum_tokens, shown_tokens=entry.cum_shown, group_seq=entry.group_seq, turn_seq=entry.turn_seq)
    return after


def _words(connection: Connection, row: SessionRow, first: int, last: int) -> dict[int, tuple[int, int]]:
    """By seq, how many different words an entry is indexed by, and how many in all."""
    values = {"b_owner_id": row.owner_id, "b_branch_id": row.branch_id, "b_first": first, "b_last": last}
    return {seq: (number, int(total)) for seq, number, total in connection.execute(_WORDS, values)}


def _compared(branch: _Branch, entry: Entry, indexed: tuple[int, int], found: _Found) -> None:
    found.looked += indexed[0]
    try:
        words = terms_of(entry.message.text)
    except BROKEN:
        return  # said by who reckons its place
    if (len(words), words.total()) != indexed:
        found.add(
            fault(f"entry {entry.seq} of {branch.said} has {len(words)} words and is indexed by {indexed[0]}: it is not found by all")
        )
