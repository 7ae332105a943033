"""Text on a terminal or in a pipe: at most 100 columns, colours only where they show, nothing that a terminal would obey."""

import json
import re
import sys
from contextlib import ExitStack

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from threadkeep.backends.base import Usage
from threadkeep.memory.stream import Stream

WIDTH = 100
"""The most columns, and those of a pipe."""
GROWTH = 16
"""Columns by which the last word of a stream may still grow: a word that could reach the margin is held until it is whole."""
_PIECES = re.compile(r"\n|[^\S\n]+|\S+")


def open_console(*, stderr: bool = False) -> Console:
    """A console for what stdout (or stderr) is at this moment."""
    stream = sys.stderr if stderr else sys.stdout
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a pipe's encoding may know fewer letters than a conversation
    console = Console(stderr=stderr, highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def plain(text: str) -> str:
    """Stored or generated text without what a terminal would obey, or could not show."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def line(text: str) -> str:
    """The same, on one line."""
    return " ".join(plain(text).split())


class Flow:
    """Text shown as it comes, wrapped between words behind an indent."""

    def __init__(self, console: Console, first: str, *, style: str = "") -> None:
        self._console, self._first, self._style = console, first, style
        self._indent = " " * cell_len(first)
        self._column = 0
        self._held = ""
        self._space = ""

    def write(self, text: str) -> None:
        """Show what is sure of its line; keep back the last word where it may still grow over the margin."""
        pieces = _PIECES.findall(self._held + plain(text))
        self._held = ""
        for place, piece in enumerate(pieces):
            last = place == len(pieces) - 1
            if last and not piece.isspace() and len(piece) <= GROWTH and self._reach(piece) + GROWTH > self._console.width:
                self._held = piece
            else:
                self._put(piece)

    def end(self) -> None:
        """Show what is left, and end the line."""
        if self._held:
            self._put(self._held)
        self._held = self._space = ""
        if self._column:
            self._console.print()
        self._column = 0

    def _reach(self, piece: str) -> int:
        return self._column + len(self._space) + cell_len(piece)

    def _put(self, piece: str) -> None:
        if piece == "\n":
            self._console.print()
            self._column, self._space = 0, ""
        elif piece.isspace():
            self._space = piece if self._column > cell_len(self._indent) else ""
        else:
            if self._column and self._reach(piece) > self._console.width:
                self._console.print()
                self._column, self._space = 0, ""
            if not self._column:
                self._console.print(Text(self._first, style="bold"), end="")
                self._first, self._column = self._indent, cell_len(self._indent)
            self._console.print(Text(self._space + piece, style=self._style), end="", soft_wrap=True)
            self._column, self._space = self._reach(piece), ""


def show_reply(console: Console, stream: Stream, first: str) -> None:
    """A reply as it comes; a sign of life while the model reads."""
    flow = Flow(console, first, style="cyan")
    with ExitStack() as waiting:
        waiting.enter_context(console.status(f"[dim]reading {stream.context.tokens:,} tokens …"))
        for event in stream:
            if event.text:
                waiting.close()
                flow.write(event.text)
    flow.end()


def figures(usage: Usage) -> str:
    """What a reply took, on one line."""
    said = [f"{usage.prompt_tokens:,} tokens sent, {usage.cached_tokens:,} cached", f"{usage.completion_tokens:,} said"]
    if usage.first_token_ms is not None:
        said.append(f"first token {usage.first_token_ms:,.0f} ms")
    if usage.total_ms is not None:
        said.append(f"{usage.total_ms / 1000:.1f} s in all")
    return " · ".join(said)


def say_json(value: object) -> None:
    """One JSON document, for scripts."""
    typer.echo(json.dumps(value, indent=2))
