"""Upkeep on a screen: its jobs as a table and as data, and a bar while it is caught up with."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from threadkeep.embedders.base import Embedder
from threadkeep.memory.errors import NotFound
from threadkeep.memory.memory import Memory
from threadkeep.memory.upkeep import Upkept
from threadkeep.stores.jobs import Jobs
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.upkeep_queries import JobStatus, kind_of
from threadkeep.terminal.listing import at
from threadkeep.terminal.screen import line

LONGEST_ERROR = 200
"""Characters of an error that the table shows."""


def status_table(jobs: Sequence[JobStatus]) -> Table:
    """A row for each job."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("owner", "session", "job"):
        table.add_column(heading, overflow="fold")
    for heading in ("done", "failures"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("next try", no_wrap=True)
    table.add_column("error", ratio=1, overflow="fold")
    for job in jobs:
        whole = "green" if job.done >= job.entries else ""
        table.add_row(
            Text(line(job.owner)),
            Text(line(job.session)),
            job.kind,
            Text(f"{job.done:,} of {job.entries:,}", style=whole),
            Text(str(job.failures or ""), style="red"),
            "now at work" if _claimed(job) else at(job.retry_at) if job.retry_at else "",
            Text(line((job.error or "")[:LONGEST_ERROR])),
        )
    return table


def status_data(job: JobStatus) -> dict[str, object]:
    return {
        "owner": job.owner,
        "session": job.session,
        "kind": job.kind,
        "done": job.done,
        "entries": job.entries,
        "at_work": _claimed(job),
        "failures": job.failures,
        "retry_at": job.retry_at.isoformat() if job.retry_at else None,
        "error": job.error,
    }


def upkept_data(done: Upkept) -> dict[str, object]:
    return {
        "owner": done.owner,
        "session": done.session,
        "kind": done.kind,
        "state": done.state,
        "made": done.made,
        "error": done.error,
    }


def catch_up(console: Console, store: SQLStore, embedder: Embedder, owner: str | None) -> list[Upkept]:
    """Embed what is not embedded yet, session by session."""
    jobs, kinds = Jobs(store), [kind_of("embed", embedder.name)]
    memory = Memory(store, embedder=embedder, upkeep=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    outcomes: list[Upkept] = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sessions", total=jobs.count_behind(kinds, owner))
        for behind in jobs.behind(kinds, owner):
            try:
                outcomes += memory.session(behind.session, owner=behind.owner).upkeep()
            except NotFound:  # deleted since it was found
                continue
            finally:
                progress.advance(task)
    return outcomes


def show_outcome(console: Console, outcomes: Sequence[Upkept]) -> None:
    """What was made, and what failed."""
    made, sessions = sum(one.made for one in outcomes), len({(one.owner, one.session) for one in outcomes})
    console.print(Text(f"{made:,} vectors made in {sessions:,} sessions."))
    for one in outcomes:
        if one.state != "done":
            console.print(Text.assemble((f"{one.state}: ", "red"), line(f"{one.owner} / {one.session}: {one.error or one.kind}")))


def _claimed(job: JobStatus) -> bool:
    return job.claimed_until_us > datetime.now(UTC).timestamp() * 1_000_000
