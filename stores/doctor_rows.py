"""Rows that lost what they belong to, turns, jobs and sums: statements over all owners, for who runs the database."""

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, FromClause, Table, and_, exists, func, select

from threadkeep.memory.money import EXACT
from threadkeep.stores.findings import Finding, fault, warning
from threadkeep.stores.rows import now_us
from threadkeep.stores.schema import (
    blobs,
    branches,
    calls,
    importances,
    messages,
    metadata,
    owners,
    pins,
    sessions,
    summaries,
    tags,
    terms,
    turns,
    upkeep,
    uses,
    vectors,
)

Looked: TypeAlias = tuple[int, Sequence[Finding]]
"""How many rows, and what was found."""


def _same(table: Table, parent: FromClause, **columns: str) -> ColumnElement[bool]:
    """That a row of `parent` is the one a row of `table` names: each column of the parent, by the row's."""
    return and_(*(parent.c[theirs] == table.c[ours] for theirs, ours in columns.items()))


_OWNER = {"id": "owner_id"}
_OF_SESSION = {"owner_id": "owner_id", "id": "session_id"}
_OF_BRANCH = {"owner_id": "owner_id", "id": "branch_id"}
_OF_ENTRY = {"owner_id": "owner_id", "branch_id": "branch_id", "seq": "seq"}
_BELONGS: tuple[tuple[Table, Table, dict[str, str]], ...] = (
    *((table, owners, _OWNER) for table in metadata.sorted_tables if "owner_id" in table.c),
    (sessions, branches, {"owner_id": "owner_id", "id": "active_branch"}),
    (branches, sessions, _OF_SESSION),
    (turns, sessions, _OF_SESSION),
    (turns, branches, _OF_BRANCH),
    (calls, sessions, _OF_SESSION),
    *((table, branches, _OF_BRANCH) for table in (messages, pins, summaries, upkeep, uses)),
    *((table, messages, _OF_ENTRY) for table in (terms, tags, importances, vectors)),
)


def orphans(connection: Connection) -> Looked:
    """Rows whose owner, session, branch or entry is not there."""
    findings = []
    for table, parent, columns in _BELONGS:
        lost = select(func.count()).select_from(table).where(~exists().where(_same(table, parent, **columns)))
        if number := connection.execute(lost).scalar_one():
            what = _bare(parent) if table is not sessions or parent is owners else "active branch"
            findings.append(fault(f"{number:,} rows of {_bare(table)} have lost their {what}: nobody sees them; delete them by hand"))
    findings.extend(_lost_ancestors(connection))
    return sum(
        connection.execute(select(func.count()).select_from(table)).scalar_one() for table, parent, _ in _BELONGS if parent is owners
    ), findings


def _bare(table: Table) -> str:
    return table.name.removeprefix("threadkeep_")


def _lost_ancestors(connection: Connection) -> Iterator[Finding]:
    there = set(map(tuple, connection.execute(select(branches.c.owner_id, branches.c.id))))
    forks = select(branches.c.owner_id, branches.c.name, branches.c.lineage).where(branches.c.lineage != "[]")
    for owner_id, name, lineage in connection.execute(forks):
        if any((owner_id, ancestor) not in there for ancestor, *_ in json.loads(lineage)):
            yield fault(f"branch {name!r} has lost a branch that it was forked from: its first entries are gone")


def held_turns(connection: Connection) -> Looked:
    """Turns that nobody ends, and those whose entries are not there."""
    findings = []
    names = (owners.c.name, sessions.c.name)
    named = (
        select(*names, func.count())
        .join_from(turns, sessions, _same(turns, sessions, **_OF_SESSION))
        .join(owners, owners.c.id == turns.c.owner_id)
        .where(turns.c.state == "open")
        .group_by(*names)
        .having(func.count() > 1)
    )
    for owner, session, number in connection.execute(named):
        findings.append(fault(f"session {session!r} of {owner!r} has {number} open turns: only the newest can be one"))
    late = connection.execute(select(func.count()).where(turns.c.state == "open", turns.c.until_us < now_us())).scalar_one()
    if late:
        findings.append(warning(f"{late:,} turns were left by processes that died: each is ended by the next turn of its session"))
    reply = select(func.count()).where(turns.c.state == "done", turns.c.reply_seq.is_(None))
    if lost := connection.execute(reply).scalar_one():
        findings.append(fault(f"{lost:,} turns are done and have no reply"))
    return connection.execute(select(func.count()).select_from(turns)).scalar_one(), findings


def failing_jobs(connection: Connection) -> Looked:
    """Upkeep's jobs that fail."""
    failing = select(upkeep.c.kind, func.count(), func.max(upkeep.c.failures)).where(upkeep.c.failures > 0).group_by(upkeep.c.kind)
    findings = [
        warning(f"{number:,} jobs of {kind} fail, up to {most} times in a row: see `threadkeep upkeep --status`")
        for kind, number, most in connection.execute(failing)
    ]
    return connection.execute(select(func.count()).select_from(upkeep)).scalar_one(), findings


def sums(connection: Connection) -> Looked:
    """What sessions and owners have spent, against the calls that are there; an owner's may be more: it outlives deleted sessions."""
    found: dict[tuple[int, int], Decimal] = {}
    looked = 0
    grouped = select(calls.c.owner_id, calls.c.session_id, calls.c.cost, func.count()).group_by(
        calls.c.owner_id, calls.c.session_id, calls.c.cost
    )
    with localcontext(EXACT):
        for owner_id, session_id, cost, number in connection.execute(grouped):
            looked += number
            found[owner_id, session_id] = found.get((owner_id, session_id), Decimal(0)) + number * Decimal(cost or 0)
        findings = []
        of_owner: dict[int, Decimal] = {}
        for owner_id, session_id, name, spent in connection.execute(
            select(sessions.c.owner_id, sessions.c.id, sessions.c.name, sessions.c.spent)
        ):
            called = found.get((owner_id, session_id), Decimal(0))
            of_owner[owner_id] = of_owner.get(owner_id, Decimal(0)) + called
            if called != Decimal(spent or 0):
                findings.append(fault(f"session {name!r} has spent {spent or 0} by its total, and its calls add up to {called:f}"))
        for owner_id, name, spent in connection.execute(select(owners.c.id, owners.c.name, owners.c.spent)):
            if Decimal(spent or 0) < of_owner.get(owner_id, Decimal(0)):
                findings.append(
                    fault(f"owner {name!r} has spent {spent or 0} by the total, and the calls add up to {of_owner[owner_id]:f}")
                )
    return looked, findings


def vector_sizes(connection: Connection) -> Looked:
    """Vectors of one model that are not of one size."""
    sizes = select(vectors.c.model, func.count(), func.min(func.length(vectors.c.vector)), func.max(func.length(vectors.c.vector)))
    looked, findings = 0, []
    for model, number, least, most in connection.execute(sizes.group_by(vectors.c.model)):
        looked += number
        if least != most or least % 2:
            findings.append(
                fault(
                    f"vectors of {model} have from {least} to {most} bytes: two models under one name? Delete them: upkeep makes new ones"
                )
            )
    return looked, findings


def bytes_apart(connection: Connection) -> Looked:
    """Pictures, files and turns' texts, against what shows them."""
    shows = _same(uses, blobs, owner_id="owner_id", sha256="sha256")
    findings = []
    lost = select(func.count()).select_from(uses).where(~exists().where(shows))
    if number := connection.execute(lost).scalar_one():
        findings.append(
            fault(f"{number:,} entries or branches show bytes that are not there: append a message with the same, or erase them")
        )
    unused = select(func.count(), func.sum(func.length(blobs.c.bytes))).where(~exists().where(shows))
    number, size = connection.execute(unused).one()
    if number:
        findings.append(warning(f"{number:,} blobs are shown by nothing, {size:,} bytes: delete them by hand, while no service runs"))
    return connection.execute(select(func.count()).select_from(blobs)).scalar_one(), findings


ROW_CHECKS: tuple[tuple[str, str, Callable[[Connection], Looked]], ...] = (
    ("belonging", "rows", orphans),
    ("turns", "turns", held_turns),
    ("costs", "calls", sums),
    ("vectors", "vectors", vector_sizes),
    ("upkeep", "jobs", failing_jobs),
    ("bytes", "blobs", bytes_apart),
)
"""Name, what is counted, and the check."""
