"""The slow work between turns: which jobs a session has, and how one is claimed and done, step by step.

A job can be left after any step, by a killed process too, and gone on with by any other.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

from threadkeep.embedders.base import Embedder
from threadkeep.memory import worker
from threadkeep.memory.deadline import Call
from threadkeep.memory.errors import NotFound, StoreError
from threadkeep.memory.leases import keeper
from threadkeep.memory.message import Message
from threadkeep.memory.spending import Account, SpendCap, paid_by
from threadkeep.memory.upkeep_jobs import Embedding, Job, Made, Step, Summaries
from threadkeep.memory.worker import Lane, LaneName
from threadkeep.stores.jobs import CLAIM_US, Claim, Jobs
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import now_us
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.upkeep_queries import JobRow
from threadkeep.strategies.base import Strategy, Summarising

DEADLINE_SECONDS = 300.0
"""How long a model may take for one step."""
CLOSE_SECONDS = 5.0
"""How long closing waits for a running step; then the step is left, to be done again another time."""
MOST_TRIES = 12
"""Failures in a row, over some hours, after which a job is only tried again after its session's next turn."""
TAKEN_SECONDS, SOON_SECONDS = 5.0, 0.5
"""When a job is looked at again that another worker has, and one that was just given back."""
HELD_SECONDS = 1.2 * CLAIM_US / 1_000_000
"""How long work that was asked for waits for another worker's claim of the same job: beyond the end of a dead one's."""
LOOK_SECONDS = 0.2
"""Between two looks whether to stop, or whether a job is free."""
SHORTEST_REST, LONGEST_REST = 0.1, 10.0
"""Seconds that a step in the background waits for open turns: as long as the step before took, within these bounds."""

State: TypeAlias = Literal["done", "failed", "held", "stopped"]


@dataclass(frozen=True, slots=True)
class Upkept:
    """What became of one job of a session."""

    owner: str
    session: str
    kind: str
    state: State
    """`held`: another worker has it, or it failed a short while ago. `stopped`: there is more to do."""
    made: int = 0
    """Vectors or summaries that were stored."""
    error: str | None = None


class Upkeep:
    """The jobs of one `Memory`'s sessions."""

    _numbers = count(1)

    def __init__(
        self,
        store: SQLStore,
        strategy: Strategy,
        embedder: Embedder | None,
        tokens_of: Callable[[Message], int],
        spend_cap: SpendCap | None = None,
        *,
        background: bool,
    ) -> None:
        self.number = next(self._numbers)
        self.jobs = Jobs(store)
        self._store, self._spend_cap = store, spend_cap
        self._embedder = embedder
        self._strategy = strategy if isinstance(strategy, Summarising) and strategy.recipes else None
        self._tokens_of = tokens_of
        self._background = background

    def notify(self, owner: str, name: str) -> None:
        """A session has new entries: look at it in the background, unless that is switched off."""
        if self._background:
            for lane in worker.LANES:
                if (self._embedder if lane.name == "vectors" else self._strategy) is not None:
                    lane.add(self, owner, name)

    def close(self) -> None:
        """Stop the background work; what is not done yet is found again another time."""
        worker.forget(self.number, CLOSE_SECONDS)

    def work(self, owner: str, name: str, lane: Lane) -> float | None:
        """One session's jobs of a lane, in the background; in how many seconds to look again."""
        found = self.jobs.find(owner, name)
        if found is None:
            return None
        session, known = found
        again: list[float] = []
        for job in self._of(lane.name, known):
            if lane.stop_at < math.inf:
                return None
            row = known.get(job.kind, JobRow(job.kind))
            if row.done_seq >= session.head.seq:
                continue
            now = now_us()
            if row.retry_us > now:
                again.extend([(row.retry_us - now) / 1_000_000] if row.failures < MOST_TRIES else [])
            elif row.claimed_until_us > now:
                again.append(TAKEN_SECONDS)
            elif _is_due(job, session, row):
                outcome = self._do(job, session, owner, lambda: lane.stop_at, background=True)
                if outcome.state in ("failed", "held"):
                    again.append(SOON_SECONDS)  # then its row says until when it is left alone
        return min(again, default=None)

    def session(self, owner: str, name: str) -> list[Upkept]:
        """All that is due for a session, now.

        Raises:
            NotFound: there is no such session.
        """
        found = self.jobs.find(owner, name)
        if found is None:
            raise NotFound(f"there is no session {name!r} of this owner: sessions() lists what there is")
        session, known = found
        return [self._do(job, session, owner, lambda: math.inf, background=False) for job in self._of(None, known)]

    def all(self, owner: str | None) -> Iterator[list[Upkept]]:
        """All that is due for an owner's sessions, or for everybody's, session by session."""
        kinds = [job.kind for job in self._of(None, {})]
        for one in self.jobs.behind(kinds, owner) if kinds else ():
            try:
                yield self.session(one.owner, one.session)
            except NotFound:  # deleted since
                yield []

    def _of(self, lane: LaneName | None, known: Mapping[str, JobRow]) -> Iterator[Job]:
        if self._embedder is not None and lane != "summaries":
            yield Embedding(self.jobs, self._embedder, known)
        if self._strategy is not None and lane != "vectors":
            for recipe in self._strategy.recipes:
                yield Summaries(self.jobs, self._strategy, recipe, self._tokens_of)

    def _do(self, job: Job, session: SessionRow, owner: str, stop_at: Callable[[], float], *, background: bool) -> Upkept:
        claim = self._claim(job, session, background=background)
        if claim is None:
            return Upkept(owner, session.name, job.kind, "held")
        run = _Run(self.jobs, claim, Account(self._store, session, self._spend_cap), stop_at, rests=background)
        try:
            state = run.through(job)
        except Exception as error:  # noqa: BLE001  # a strategy, a summariser and an embedder are anybody's code
            return Upkept(owner, session.name, job.kind, "failed", run.made, run.fail(error))
        except BaseException:
            run.leave()
            raise
        return Upkept(owner, session.name, job.kind, state, run.made)

    def _claim(self, job: Job, session: SessionRow, *, background: bool) -> Claim | None:
        end = time.monotonic() + (0 if background else HELD_SECONDS)
        while True:
            claim = self.jobs.claim(session, job.kind, early=not background)
            if claim is not None or time.monotonic() >= end:
                return claim
            time.sleep(LOOK_SECONDS)


def _is_due(job: Job, session: SessionRow, row: JobRow) -> bool:
    """Whether it is worth claiming: looking writes nothing."""
    try:
        return job.next(session, row.done_seq) is not None
    except StoreError:
        raise
    except Exception:  # noqa: BLE001  # a strategy is anybody's code; once the job is claimed, its row says what it raised
        return True


class _Run:
    """A claimed job while it is worked at."""

    def __init__(self, jobs: Jobs, claim: Claim, account: Account, stop_at: Callable[[], float], *, rests: bool) -> None:
        self._jobs, self._claim, self._account, self._stop_at, self._rests = jobs, claim, account, stop_at, rests
        self.made = 0

    def through(self, job: Job) -> State:
        """Step by step until nothing is due, and give the job back."""
        took = SHORTEST_REST
        while (step := job.next(self._claim.session, self._claim.done_seq)) is not None:
            self._rest(took)
            began = time.monotonic()
            made = self._made(step, job.kind)
            if made is None:
                self.leave()
                return "stopped"
            held = made.save(self._claim)
            if held is None:
                return "held"
            self._claim, self.made = held, self.made + made.number
            if self._stop_at() < math.inf:
                self.leave()
                return "stopped"
            took = time.monotonic() - began
        self._jobs.end(self._claim, self._claim.session.head.seq)
        return "done"

    def leave(self) -> None:
        self._jobs.leave(self._claim)

    def fail(self, error: Exception) -> str:
        """Give the job back as failed; what went wrong, in words."""
        said = f"{type(error).__name__}: {error}"
        try:
            self._jobs.fail(self._claim, said)
        except StoreError as unwritten:  # the claim ends by itself
            return f"{said} (and that was not noted: {unwritten})"
        return said

    def _rest(self, took: float) -> None:
        """Turns first."""
        end = time.monotonic() + min(max(took, SHORTEST_REST), LONGEST_REST)
        while self._rests and keeper.busy and time.monotonic() < min(end, self._stop_at()):
            time.sleep(LOOK_SECONDS / 4)

    def _made(self, step: Step, name: str) -> Made | None:
        """Ask the model, and hold the claim on meanwhile; None: it was left, because the worker stops."""

        def paid() -> Made:
            with paid_by(self._account):
                return step()

        call = Call(paid, f"threadkeep {name}")
        end = time.monotonic() + DEADLINE_SECONDS
        renew = time.monotonic() + CLAIM_US / 1_000_000 / 3
        try:
            while not call.wait(LOOK_SECONDS):
                now = time.monotonic()
                if now >= self._stop_at():
                    call.leave()
                    return None
                if now >= end:
                    raise TimeoutError(f"it did not come back within {DEADLINE_SECONDS:g} s, and was left")
                if now >= renew:
                    with suppress(StoreError):  # the next try comes before the claim ends
                        self._claim = self._jobs.hold(self._claim) or self._claim  # whether it was taken is seen when saving
                    renew = now + CLAIM_US / 1_000_000 / 3
        except BaseException:
            call.leave()
            raise
        return call.result
