"""What upkeep does to the store: claims a job, saves what it made, ends it. Each method is one transaction, and none is held meanwhile."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from threadkeep.memory.history import Entry, Summary
from threadkeep.stores import queries, summary_queries, upkeep_queries, vector_queries
from threadkeep.stores.faults import whole_again
from threadkeep.stores.history import SQLHistory
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import encode, now_us
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.upkeep_queries import Behind, JobRow, JobStatus

CLAIM_US = 30_000_000
"""How long a claim lasts without a sign of life, in microseconds."""
FIRST_RETRY_US, LONGEST_RETRY_US = 10_000_000, 3_600_000_000
"""How long a job that failed is left alone, in microseconds: at first, doubled each time, and at most."""
ERROR_CHARACTERS = 2000
_WELL: Mapping[str, int | None] = {"failures": 0, "retry_us": 0, "error": None}


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this holder works at."""

    session: SessionRow
    """As it was at the last writing."""
    kind: str
    until_us: int
    done_seq: int
    failures: int


@whole_again
class Jobs:
    """The jobs of a store's sessions."""

    def __init__(self, store: SQLStore) -> None:
        self._store = store

    def find(self, owner: str, name: str) -> tuple[SessionRow, dict[str, JobRow]] | None:
        """The session and its active branch's jobs; None: there is no such session."""
        with self._store.read("reading upkeep's jobs") as connection:
            session = queries.find_session(connection, owner, name)
            return None if session is None else (session, upkeep_queries.find_jobs(connection, session))

    def claim(self, session: SessionRow, kind: str, *, early: bool) -> Claim | None:
        """Take a job; None: it is taken, it failed a short while ago (unless `early`), or the branch is no longer the active one."""
        with self._store.write("claiming upkeep's job") as connection:
            now = self._again(connection, session)
            if now is None:
                return None
            job = upkeep_queries.own_jobs(connection, now).get(kind)
            if job is None:
                job = upkeep_queries.find_jobs(connection, now).get(kind, JobRow(kind))
                upkeep_queries.add_job(connection, now, job)
            moment = now_us()
            if job.claimed_until_us > moment or (job.retry_us > moment and not early):
                return None
            claim = Claim(now, kind, job.claimed_until_us, job.done_seq, job.failures)
            return self._hold(connection, claim, now, {})

    def hold(self, claim: Claim) -> Claim | None:
        """Hold a job on; None: it was taken."""
        with self._store.write("holding upkeep's job") as connection:
            return self._held(connection, claim, {})

    def save_vectors(self, claim: Claim, model: str, rows: Sequence[tuple[int, bytes]], done_seq: int) -> Claim | None:
        """Store vectors, and that everything up to a seq is embedded; None: the job was taken, and nothing is stored."""
        with self._store.write("storing vectors") as connection:
            held = self._held(connection, claim, {**_WELL, "done_seq": done_seq})
            if held is not None:
                vector_queries.add_vectors(connection, held.session, model, rows)
            return held

    def forget_other_vectors(self, claim: Claim, model: str, first: int, last: int, forget: str | None) -> Claim | None:
        """Delete what other models made of a run of entries; with the last run, the other jobs whose kind begins with `forget`."""
        with self._store.write("deleting old vectors") as connection:
            held = self._held(connection, claim, {})
            if held is not None:
                vector_queries.drop_other_vectors(connection, held.session, model, first, last)
            if held is not None and forget is not None:
                upkeep_queries.drop_other_jobs(connection, held.session, held.kind, forget)
            return held

    def save_summary(self, claim: Claim, recipe: str, summary: Summary) -> Claim | None:
        """Store a summary as made now, whatever turn is open; None: the job was taken, and nothing is stored."""
        with self._store.write("storing a summary") as connection:
            held = self._held(connection, claim, _WELL)
            if held is not None:
                summary_queries.add_summary(connection, held.session, recipe, summary)
            return held

    def end(self, claim: Claim, done_seq: int) -> None:
        """Give a job back: it is done with all entries up to a seq."""
        values = {**_WELL, "claimed_until_us": 0, "done_seq": done_seq}
        with self._store.write("ending upkeep's job") as connection:
            upkeep_queries.change_job(connection, claim.session, claim.kind, claim.until_us, values)

    def leave(self, claim: Claim) -> None:
        """Give a job back as it is, for anybody to go on with."""
        with self._store.write("leaving upkeep's job") as connection:
            upkeep_queries.change_job(connection, claim.session, claim.kind, claim.until_us, {"claimed_until_us": 0})

    def fail(self, claim: Claim, error: str) -> int:
        """Give a job back that failed; when it may be tried again, in microseconds since 1970."""
        wait = min(LONGEST_RETRY_US, FIRST_RETRY_US << min(claim.failures, 30))
        retry_us = now_us() + int(wait * random.uniform(0.5, 1))  # spreads the workers' tries
        values = {
            "claimed_until_us": 0,
            "failures": claim.failures + 1,
            "retry_us": retry_us,
            "error": encode(error[:ERROR_CHARACTERS]),
        }
        with self._store.write("noting that upkeep's job failed") as connection:
            upkeep_queries.change_job(connection, claim.session, claim.kind, claim.until_us, values)
        return retry_us

    # What jobs read.

    def unembedded(self, session: SessionRow, model: str, after_seq: int, limit: int) -> list[Entry]:
        """The oldest entries behind a seq that have no vector of this model."""
        with self._store.read("reading what is not embedded") as connection:
            return vector_queries.unembedded(connection, session, model, after_seq, limit)

    @contextmanager
    def history(self, session: SessionRow) -> Iterator[SQLHistory]:
        """The history as upkeep sees it."""
        with self._store.read("reading a session") as connection:
            yield SQLHistory.for_upkeep(connection, session)

    # For who runs the database.

    def status(self, owner: str | None, limit: int) -> list[JobStatus]:
        """Jobs of an owner or of all, those that fail first, then those that are furthest behind."""
        with self._store.read("reading upkeep's jobs") as connection:
            return upkeep_queries.list_jobs(connection, owner, limit)

    def count_behind(self, kinds: Sequence[str], owner: str | None) -> int:
        """How many sessions one of these jobs is behind."""
        with self._store.read("counting upkeep's work") as connection:
            return upkeep_queries.count_behind(connection, kinds, owner)

    def behind(self, kinds: Sequence[str], owner: str | None) -> Iterator[Behind]:
        """Those sessions, page by page."""
        after, page = (0, 0), 500
        while True:
            with self._store.read("looking for upkeep's work") as connection:
                found = upkeep_queries.sessions_behind(connection, kinds, owner, after, page)
            yield from found
            if len(found) < page:
                return
            after = found[-1][:2]

    def _held(self, connection: Connection, claim: Claim, values: Mapping[str, int | None]) -> Claim | None:
        """Write to a claimed job and hold it on, the branch locked: no turn begins before this transaction ends."""
        now = self._again(connection, claim.session)
        return None if now is None else self._hold(connection, claim, now, values)

    def _hold(self, connection: Connection, claim: Claim, now: SessionRow, values: Mapping[str, int | None]) -> Claim | None:
        until_us = max(now_us() + CLAIM_US, claim.until_us + 1)  # it names the claim: no two are alike
        if not upkeep_queries.change_job(connection, now, claim.kind, claim.until_us, {"claimed_until_us": until_us, **values}):
            return None
        done_seq, failures = values.get("done_seq") or claim.done_seq, 0 if "failures" in values else claim.failures
        return Claim(now, claim.kind, until_us, done_seq, failures)

    def _again(self, connection: Connection, session: SessionRow) -> SessionRow | None:
        """The session as it is now, its branch locked; None if it is gone, or has another active branch."""
        now = queries.find_session_again(connection, session)
        return now if now is not None and now.branch_id == session.branch_id else None
