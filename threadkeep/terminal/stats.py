"""How much a database holds, on a screen."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from threadkeep.stores.stats import Stats
from threadkeep.terminal.screen import line


def show_stats(console: Console, stats: Stats) -> None:
    """The whole in a line, then the tables, then the largest sessions."""
    size = f", {_size(stats.bytes)}" if stats.bytes is not None else ""
    span = f", said from {stats.first:%Y-%m-%d} to {stats.last:%Y-%m-%d}" if stats.first and stats.last else ""
    rows = stats.rows
    console.print(Text(f"{stats.database}{size}", style="bold"))
    console.print(
        Text(f"{rows['owners']:,} owners, {rows['sessions']:,} sessions, {rows['messages']:,} entries of {stats.tokens:,} tokens{span}")
    )
    parts: list[RenderableType] = [Text(), _tables(stats)]
    if stats.largest:
        parts += [Text(), _largest(stats)]
    console.print(Group(*parts))


def stats_data(stats: Stats) -> dict[str, object]:
    return {
        "database": stats.database,
        "bytes": stats.bytes,
        "rows": dict(stats.rows),
        "table_bytes": dict(stats.table_bytes),
        "tokens": stats.tokens,
        "first": stats.first.isoformat() if stats.first else None,
        "last": stats.last.isoformat() if stats.last else None,
        "largest": [{"owner": one.owner, "session": one.session, "entries": one.entries, "tokens": one.tokens} for one in stats.largest],
    }


def _tables(stats: Stats) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("table")
    table.add_column("rows", justify="right")
    if stats.table_bytes:
        table.add_column("size", justify="right")
    for name, rows in sorted(stats.rows.items(), key=lambda row: (-stats.table_bytes.get(row[0], 0), row[0])):
        table.add_row(name, f"{rows:,}", *([_size(stats.table_bytes.get(name, 0))] if stats.table_bytes else []))
    return table


def _largest(stats: Stats) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("largest sessions", "of", "entries", "tokens"):
        table.add_column(heading, justify="right" if heading in ("entries", "tokens") else "left", overflow="fold")
    for one in stats.largest:
        table.add_row(Text(line(one.session)), Text(line(one.owner)), f"{one.entries:,}", f"{one.tokens:,}")
    return table


def _size(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} bytes"
