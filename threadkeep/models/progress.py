"""A bar on stderr while bytes come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

At: TypeAlias = Callable[[int, str], None]
"""Told the bytes that have come so far, and where from."""


@contextmanager
def bar(name: str, total: int, *, shown: bool) -> Iterator[At]:
    """A bar for `total` bytes; a function that does nothing when it is not to be shown."""
    if not shown:
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done, doing: progress.update(task, completed=min(done, total), description=f"{name} {doing}")


def _silent(done: int, doing: str) -> None:
    pass
