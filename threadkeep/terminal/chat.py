"""A conversation at the prompt: it goes on where it was, streams the replies, and keeps what was said when one is stopped."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from threadkeep.memory.errors import ThreadkeepError
from threadkeep.memory.memory import Memory
from threadkeep.memory.session import Session
from threadkeep.memory.stream import Stream
from threadkeep.terminal.listing import sessions_table, show_line
from threadkeep.terminal.screen import figures, line, show_reply

RECALLED = 6
"""Entries shown when a session goes on."""
HELP = """\
/context    what the model was sent last, and what became of every entry
/sessions   the sessions of this owner
/help       this
/quit       leave; so does Ctrl-D
Ctrl-C stops a reply: what was said is kept. Anything else is said to the model."""


def chat(console: Console, memory: Memory, session: Session) -> None:
    """Read, answer, until the reader leaves."""
    _greet(console, memory, session)
    while True:
        try:
            said = input("you> ").strip()
            if not sys.stdin.isatty():
                console.print(Text(line(said)))  # so that what is recorded of a script reads as it would on a screen
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print(Text("\n/quit or Ctrl-D leaves", style="dim"))
            continue
        if said in ("/quit", "/exit"):
            return
        try:
            _obey(console, memory, session, said)
        except ThreadkeepError as error:
            console.print(Text(f"error: {line(str(error))}", style="red"))


def last_turn(memory: Memory, session: Session) -> int | None:
    """The number of the newest turn, if it came as far as a context."""
    with memory.store.history(session.owner, session.name) as (_, _, newest):
        return None if newest is None or newest.manifest is None else newest.id


def _greet(console: Console, memory: Memory, session: Session) -> None:
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 - gives input() its line editing and its history
    row = memory.store.session(session.owner, session.name)
    length = 0 if row is None else row.head.seq
    begins = f"goes on after {length:,} entries" if length else "begins"
    console.print(Text(f"session {line(session.name)} {begins}  ·  /help says what can be typed", style="dim"))
    if length:
        for entry in session.entries(after=length - RECALLED, limit=RECALLED):
            show_line(console, entry)


def _obey(console: Console, memory: Memory, session: Session, said: str) -> None:
    if said == "/help":
        console.print(Text(HELP))
    elif said == "/sessions":
        console.print(sessions_table(memory.sessions(owner=session.owner)))
    elif said == "/context":
        console.print(Padding(session.context(as_of=last_turn(memory, session)).explain(), (0, 0, 1, 0)))
    elif said.startswith("/"):
        console.print(Text(f"there is no {line(said.split(maxsplit=1)[0])}: /help says what there is", style="yellow"))
    elif said:
        _answer(console, session.stream(said))


def _answer(console: Console, stream: Stream) -> None:
    with _left_on_interrupt(stream), stream:
        show_reply(console, stream, "  ")
    reply = stream.turn.reply
    if reply is None:
        console.print(Text("  stopped before anything was said", style="yellow"))
        return
    said = ["stopped, and kept"] if reply.status == "interrupted" else []
    said += [f"turn {stream.turn.id}"] + ([] if reply.usage is None else [figures(reply.usage)])
    console.print(Text(f"  {' · '.join(said)}", style="dim"))


@contextmanager
def _left_on_interrupt(stream: Stream) -> Iterator[None]:
    """The first Ctrl-C ends the stream at its next event, never half way through a write; a second one breaks off."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        if stream.left:
            raise KeyboardInterrupt
        stream.leave()

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
