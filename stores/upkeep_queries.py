"""Every statement about upkeep's jobs. As in `queries`, each names its owner, but those that list for who runs the database.

A job is a kind of slow work on one branch. Its row says how far it has come, who may work at it now, and when it may be tried again.
A claim is named by the moment it ends: a later claim of the same job ends later, so a holder that was too slow finds another number there.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, insert, or_, select, update

from threadkeep.memory.history import moment
from threadkeep.stores.probing import by_keys
from threadkeep.stores.queries import OWNER_ID, SessionRow, at
from threadkeep.stores.schema import branches, owners, sessions, upkeep

KIND_LENGTH = 64


class JobRow(NamedTuple):
    """A job as stored."""

    kind: str
    done_seq: int = 0
    """It is done with all entries up to this one."""
    claimed_until_us: int = 0
    failures: int = 0
    """In a row."""
    retry_us: int = 0
    error: str | None = None
    """ASCII JSON."""


class JobStatus(NamedTuple):
    """A job as its status shows it."""

    owner: str
    session: str
    kind: str
    done: int
    entries: int
    """How many the session has; the job is done with the first `done`."""
    failures: int
    """In a row."""
    retry_us: int
    """Not tried again before; 0: nothing failed."""
    claimed_until_us: int
    error: str | None

    @property
    def retry_at(self) -> datetime | None:
        return moment(self.retry_us) if self.retry_us else None


_JOBS = select(*(upkeep.c[name] for name in JobRow._fields)).where(at(upkeep, "branch_id"))
_SHARED = by_keys([upkeep.c[name] for name in "branch_id kind done_seq".split()], upkeep, at(upkeep), {"branch_id": "b_branches"})
_JOB = update(upkeep).where(at(upkeep, "branch_id", "kind"))
_CLAIMED = _JOB.where(upkeep.c.claimed_until_us == bindparam("b_until"))

_OTHERS = delete(upkeep).where(at(upkeep, "branch_id"), upkeep.c.kind != bindparam("b_kind"), upkeep.c.kind.like(bindparam("b_prefix")))


def kind_of(work: str, name: str) -> str:
    """A job's kind: what it does and with what, a long name by its beginning and its hash."""
    whole = f"{work}:{name}"
    if len(whole) <= KIND_LENGTH and whole.isascii() and whole.isprintable():
        return whole
    readable = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in whole)
    return f"{readable[: KIND_LENGTH - 13]}~{sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def find_jobs(connection: Connection, session: SessionRow) -> dict[str, JobRow]:
    """The active branch's jobs by kind. Work that a fork has not begun has come as far as on the branches that it shares entries with."""
    own = own_jobs(connection, session)
    if len(session.segments) == 1:
        return own
    begun = {kind.partition(":")[0] for kind in own}
    return {kind: job for kind, job in _shared_jobs(connection, session).items() if kind.partition(":")[0] not in begun} | own


def own_jobs(connection: Connection, session: SessionRow) -> dict[str, JobRow]:
    """The jobs that are stored of the active branch itself."""
    found = connection.execute(_JOBS, {"b_owner_id": session.owner_id, "b_branch_id": session.branch_id})
    return {row.kind: JobRow._make(row) for row in found}


def _shared_jobs(connection: Connection, session: SessionRow) -> dict[str, JobRow]:
    upto = {segment.branch_id: segment.last for segment in session.segments[:-1]}
    done: dict[str, int] = {}
    branch_ids = list(upto)
    for start in range(0, len(branch_ids), 500):
        values = {"b_owner_id": session.owner_id, "b_branches": branch_ids[start : start + 500]}
        for branch_id, kind, done_seq in connection.execute(_SHARED.on(connection), values):
            done[kind] = max(done.get(kind, 0), min(done_seq, upto[branch_id]))
    return {kind: JobRow(kind, done_seq) for kind, done_seq in done.items()}


def add_job(connection: Connection, session: SessionRow, job: JobRow) -> None:
    connection.execute(insert(upkeep), {"owner_id": session.owner_id, "branch_id": session.branch_id, **job._asdict()})


def change_job(connection: Connection, session: SessionRow, kind: str, until_us: int, values: Mapping[str, object]) -> bool:
    """Write to a job if its claim still ends at this moment; whether it does."""
    bound = {"b_owner_id": session.owner_id, "b_branch_id": session.branch_id, "b_kind": kind, "b_until": until_us}
    return connection.execute(_CLAIMED.values(dict(values)), bound).rowcount == 1


def drop_other_jobs(connection: Connection, session: SessionRow, kind: str, prefix: str) -> None:
    """Forget the branch's jobs of this prefix but one."""
    bound = {"b_owner_id": session.owner_id, "b_branch_id": session.branch_id, "b_kind": kind, "b_prefix": f"{prefix}%"}
    connection.execute(_OTHERS, bound)


# For who runs the database.

_HEADS = and_(branches.c.owner_id == sessions.c.owner_id, branches.c.id == sessions.c.active_branch)
_ACTIVE = sessions.join(branches, _HEADS).join(owners, owners.c.id == sessions.c.owner_id)
_STATUS = (
    select(
        owners.c.name,
        sessions.c.name,
        upkeep.c.kind,
        upkeep.c.done_seq,
        branches.c.head_seq,
        upkeep.c.failures,
        upkeep.c.retry_us,
        upkeep.c.claimed_until_us,
        upkeep.c.error,
    )
    .select_from(_ACTIVE.join(upkeep, and_(upkeep.c.owner_id == branches.c.owner_id, upkeep.c.branch_id == branches.c.id)))
    .order_by(upkeep.c.failures.desc(), (branches.c.head_seq - upkeep.c.done_seq).desc(), owners.c.name, sessions.c.name, upkeep.c.kind)
    .limit(bindparam("b_limit"))
)


def list_jobs(connection: Connection, owner: str | None, limit: int) -> list[JobStatus]:
    """At most so many jobs, of an owner or of all, those that fail first, then those that are furthest behind."""
    statement = _STATUS if owner is None else _STATUS.where(sessions.c.owner_id == OWNER_ID)
    rows = connection.execute(statement, {"b_limit": limit} | ({} if owner is None else {"b_owner": owner}))
    listed = map(JobStatus._make, rows)
    return [job._replace(error=job.error and json.loads(job.error), done=min(job.done, job.entries)) for job in listed]


class Behind(NamedTuple):
    """A session with entries that some job has not seen."""

    owner_id: int
    id: int
    owner: str
    session: str


def sessions_behind(connection: Connection, kinds: Sequence[str], owner: str | None, after: tuple[int, int], limit: int) -> list[Behind]:
    """A page of sessions that one of these jobs is behind, by owner's and session's id."""
    owner_id, session_id = after
    behind = [sessions.c.owner_id >= owner_id, or_(sessions.c.owner_id > owner_id, sessions.c.id > session_id)]
    statement = (
        select(sessions.c.owner_id, sessions.c.id, owners.c.name, sessions.c.name)
        .select_from(_ACTIVE)
        .where(*_behind(kinds, owner), *(behind if owner is None else [sessions.c.id > session_id]))
        .order_by(sessions.c.owner_id, sessions.c.id)
        .limit(limit)
    )
    return [Behind._make(row) for row in connection.execute(statement, {} if owner is None else {"b_owner": owner})]


def count_behind(connection: Connection, kinds: Sequence[str], owner: str | None) -> int:
    """How many sessions that are."""
    statement = select(func.count()).select_from(_ACTIVE).where(*_behind(kinds, owner))
    return connection.execute(statement, {} if owner is None else {"b_owner": owner}).scalar_one()


def _behind(kinds: Sequence[str], owner: str | None) -> list[ColumnElement[bool]]:
    done = [
        select(upkeep.c.done_seq)
        .where(upkeep.c.owner_id == branches.c.owner_id, upkeep.c.branch_id == branches.c.id, upkeep.c.kind == kind)
        .correlate(branches)
        .scalar_subquery()
        for kind in kinds
    ]
    seen = [func.coalesce(one, 0) < branches.c.head_seq for one in done]
    return [branches.c.head_seq > 0, or_(*seen), *([] if owner is None else [sessions.c.owner_id == OWNER_ID])]
