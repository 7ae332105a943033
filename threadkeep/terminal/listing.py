"""Sessions, branches and entries: as a screen shows them, and as data that JSON can hold."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from threadkeep.memory.blob import Blob, blobs_in
from threadkeep.memory.branch import Branch
from threadkeep.memory.history import Entry
from threadkeep.memory.message import ImagePart, Message, TextPart
from threadkeep.memory.searching import Found
from threadkeep.stores.queries import Listed
from threadkeep.terminal.screen import line, plain

ROLE_STYLES = {"user": "bold", "assistant": "cyan", "tool": "yellow"}
SMALLEST_PART = 0.005
"""Parts of a score below this round to nothing."""
LONGEST_URL = 60
"""Characters of a picture's address that are shown."""


def sessions_table(sessions: Sequence[Listed]) -> Table:
    """A row for each session."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("session", overflow="fold")
    table.add_column("entries", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("begun", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for session in sessions:
        begun, used = at(session.created_at), at(session.updated_at)
        table.add_row(Text(line(session.name)), f"{session.entries:,}", f"{session.tokens:,}", begun, used)
    return table


def session_data(session: Listed) -> dict[str, object]:
    return {
        "name": session.name,
        "title": session.title,
        "entries": session.entries,
        "tokens": session.tokens,
        "created_at": session.created_at.isoformat(),
        "updated_at": session.updated_at.isoformat(),
    }


def branches_table(branches: Sequence[Branch]) -> Table:
    """A row for each branch; the active one is marked."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("branch", "forked from"):
        table.add_column(heading, overflow="fold")
    for heading in ("behind entry", "entries", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("begun", no_wrap=True)
    for one in branches:
        parent, behind = ("", "") if one.parent is None else (line(one.parent), f"{one.at:,}")
        mark, name = ("*", Text(line(one.name), style="bold")) if one.active else ("", Text(line(one.name)))
        table.add_row(mark, name, Text(parent), behind, f"{one.entries:,}", f"{one.tokens:,}", at(one.created_at))
    return table


def branch_data(branch: Branch) -> dict[str, object]:
    return {**asdict(branch), "created_at": branch.created_at.isoformat()}


def show_entry(console: Console, entry: Entry) -> None:
    """An entry whole, under a line that says whose, when and how it ended."""
    head = Text.assemble(
        (f"{entry.seq:>4}  ", "dim"),
        (entry.role, ROLE_STYLES.get(entry.role, "")),
        (f"  {at(entry.created_at)} · {entry.tokens:,} tokens", "dim"),
        ("" if entry.status == "complete" else f" · {entry.status}", "yellow"),
    )
    console.print(head)
    console.print(Padding(Text(plain(shown(entry.message))), (0, 0, 1, 6)))


def show_line(console: Console, entry: Entry) -> None:
    """An entry on one line, as much of it as there is room for."""
    cut = " (interrupted)" if entry.status == "interrupted" else ""
    text = Text.assemble(
        (f"{entry.seq:>4}  {day(entry.created_at)}  ", "dim"),
        (f"{entry.role:<11}", ROLE_STYLES.get(entry.role, "")),
        line(shown(entry.message)) + cut,
    )
    console.print(text, no_wrap=True, overflow="ellipsis")


def show_found(console: Console, found: Found, *, named: bool) -> None:
    """An entry that a search found, under a line with its score and what that is made of; `named`: with its session."""
    made_of = " + ".join(f"{name} {part:.2f}" for name, part in _parts(found).items() if part >= SMALLEST_PART)
    console.print(Text(f"{found.score:.2f}  {made_of}" + (f"  · {line(found.session)}" if named else ""), style="green"))
    show_entry(console, found.entry)


def found_data(found: Found) -> dict[str, object]:
    return {"session": found.session, "score": found.score, "parts": _parts(found), **entry_data(found.entry)}


def _parts(found: Found) -> dict[str, float]:
    """What a score is made of."""
    return {"words": found.words, "meaning": found.meaning, "neighbours": found.neighbours, "date": found.date}


def entry_data(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "created_at": entry.created_at.isoformat(),
        "status": entry.status,
        "tokens": entry.tokens,
        "key": entry.key,
        "metadata": entry.metadata,
        "message": entry.raw,
    }


def shown(message: Message) -> str:
    """What a message says; pictures, calls and what has no text, by a word."""
    said = []
    for part in message.parts:
        if isinstance(part, TextPart):
            said.append(part.text)
        elif isinstance(part, ImagePart):
            said.append(f"[image: {_address(part.url) if part.blob is None else _kept(part.blob)}]")
        else:
            said.append(f"[{', '.join((part.type, *map(_kept, blobs_in([part.raw]))))}]")
    said += [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    return "\n".join(said) or "[empty]"


def _address(url: str) -> str:
    """A picture's address; of one that carries the picture itself, what it says of it."""
    return (url.partition(",")[0] if url[:5].lower() == "data:" else url)[:LONGEST_URL]


def _kept(blob: Blob) -> str:
    """What is in the store, in words: `image/png, 12.3 kB`."""
    size = f"{blob.size:,} bytes" if blob.size < 1000 else f"{blob.size / 1000:,.1f} kB"
    return f"{blob.media_type}, {size}" if blob.media_type else size


def at(moment: datetime) -> str:
    """A time as the reader's clock shows it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def day(moment: datetime) -> str:
    """A day as the reader's calendar shows it."""
    local = moment.astimezone()
    return f"{local.day:>2} {local:%b}"
