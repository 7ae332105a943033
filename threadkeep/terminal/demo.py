"""The demo: a long conversation is stored, a real model answers from a window of its end, and then with what recall finds of the rest."""

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from threadkeep.backends.base import Backend, Usage
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.history import Entry
from threadkeep.memory.memory import Memory
from threadkeep.memory.session import Session
from threadkeep.stores.sql import SQLStore
from threadkeep.strategies.sliding_window import SlidingWindow
from threadkeep.terminal.conversation import INSTRUCTIONS, QUESTIONS, Question, said
from threadkeep.terminal.listing import day, show_line
from threadkeep.terminal.screen import figures, line, show_reply

BUDGET = Budget(1000, reply=48)
"""Far less than the model could take: small enough that a conversation of three weeks does not fit."""
WINDOW = 1024
"""What the model is loaded with."""
SESSION, RECALLING = "demo", "demo with recall"
SHOWN_ENDS = 4
"""Entries shown of each end of the conversation."""
AFTERWARDS = (
    (f"show {SESSION}", "all that was said"),
    (f"explain {SESSION}", "the last context, made again from its record"),
    (f"chat -s {SESSION}", "go on talking, in a window that holds all of it"),
)
"""What one may look at next."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with what came of it."""

    question: Question
    entry: Entry
    """Where the fact was said."""
    inside: bool
    """Whether the context showed that entry."""
    reply: str
    usage: Usage | None

    @property
    def right(self) -> bool:
        return self.question.answer.casefold() in self.reply.casefold()


def demo(console: Console, backend: Backend, store: SQLStore, path: Path) -> None:
    """Store the conversation in a fresh database, ask the questions, and say what the window lost."""
    began = time.perf_counter()
    console.print(Text.assemble(("threadkeep demo", "bold"), f"  ·  {backend.name}  ·  {path}\n"), soft_wrap=True)
    with Memory(store, backend=backend, budget=BUDGET, instructions=INSTRUCTIONS, strategy=SlidingWindow()) as memory:
        log = _store(memory, SESSION)
        _introduce(console, log)
        asked = enumerate(QUESTIONS, 1)
        answered = [_ask(console, memory.session(SESSION), log, f"question {number} of {len(QUESTIONS)}", one) for number, one in asked]
        _conclude(console, answered)
        lost = [one.question for one in answered if not one.inside]
        if lost:
            _recall(console, Memory(store, backend=backend, budget=BUDGET, instructions=INSTRUCTIONS), lost)
    console.print(Text(f"\nIt took {time.perf_counter() - began:.0f} s. Nothing is lost from the database: look further with\n"))
    for command, why in AFTERWARDS:
        console.print(Text.assemble(f"  {_program()} {command} -d {shlex.quote(str(path))}", (f"   # {why}", "dim")), soft_wrap=True)


def _program() -> str:
    """How the command line is called here: by its name where the shell finds it, otherwise by its path."""
    called = Path(sys.argv[0])
    return "threadkeep" if called.name != "threadkeep" or shutil.which("threadkeep") else shlex.quote(str(called))


def _store(memory: Memory, name: str) -> list[Entry]:
    session = memory.session(name)
    return [session.append(message, created_at=at)[0] for message, at in said()]


def _introduce(console: Console, log: Sequence[Entry]) -> None:
    console.print(f"A conversation of {len(log)} messages over three weeks, made up for this demo, is now in the database:\n")
    for entry in log[:SHOWN_ENDS]:
        show_line(console, entry)
    console.print(Text(f"      … {len(log) - 2 * SHOWN_ENDS} more", style="dim"))
    for entry in log[-SHOWN_ENDS:]:
        show_line(console, entry)
    stored = sum(entry.tokens for entry in log)
    console.print(f"\n{stored:,} tokens are stored. A context may take {BUDGET.ceiling:,}, so a window leaves the oldest entries out.")


def _recall(console: Console, memory: Memory, lost: Sequence[Question]) -> None:
    """Ask what the window had lost once more, of the same conversation with the default strategy."""
    console.print()
    console.rule(Text("the same with the default strategy: a smaller window, and recall", style="bold"), style="dim", align="left")
    log = _store(memory, RECALLING)
    answered = [_ask(console, memory.session(RECALLING), log, "asked again", question) for question in lost]
    found, right = sum(one.inside for one in answered), sum(one.right for one in answered)
    console.print(f"\nRecall found {found} of {len(lost)} facts that the window had lost; {right} of {len(lost)} answered rightly.")


def _ask(console: Console, session: Session, log: Sequence[Entry], heading: str, question: Question) -> Answered:
    console.print()
    console.rule(Text(heading, style="dim"), style="dim", align="left")
    console.print(Text(f"  you  {question.text}", style="bold"))
    with session.stream(question.text) as stream:
        context = stream.context
        show_reply(console, stream, "model  ")
    reply = stream.reply
    if reply.usage is not None:
        console.print(Text(f"       {figures(reply.usage)}\n", style="dim"))
    console.print(Padding(context.explain(), (0, 0, 0, 7)))
    entry = next(entry for entry in log if question.answer in entry.message.text)
    return Answered(question, entry, _is_shown(context, entry.seq), reply.text, reply.usage)


def _is_shown(context: Context, seq: int) -> bool:
    return any(decision.first <= seq <= decision.last and decision.tokens > 0 for decision in context.decisions)


def _conclude(console: Console, answered: Sequence[Answered]) -> None:
    console.print()
    console.rule(Text("what the window kept, and what it lost", style="bold"), style="dim", align="left")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("fact", "said", "in the window", "answer"):
        table.add_column(heading, no_wrap=True)
    table.add_column("the model said", ratio=1)
    for one in answered:
        where = f"{day(one.entry.created_at)}, entry {one.entry.seq}"
        mark = Text("yes", style="green") if one.inside else Text("no, lost", style="yellow")
        table.add_row(one.question.fact, where, mark, _verdict(one), Text(line(one.reply)))
    console.print(table)
    inside = [one for one in answered if one.inside]
    outside = [one for one in answered if not one.inside]
    right = sum(one.right for one in inside)
    console.print(f"\nInside the window: {right} of {len(inside)} answered rightly.", end="")
    console.print("" if right == len(inside) else " The words were there, and the model did not use them.")
    if outside:
        lost = " or ".join(one.question.answer for one in outside)
        console.print(
            f"Outside: {sum(one.right for one in outside)} of {len(outside)}. "
            f"The model was never shown {lost}: a sliding window forgets what is old."
        )
    usages = [one.usage for one in answered if one.usage is not None]
    cached, sent = sum(usage.cached_tokens for usage in usages), sum(usage.prompt_tokens for usage in usages)
    if sent:
        console.print(f"Of {sent:,} tokens sent, {cached / sent:.0%} were cached: the model had read them for the question before.")


def _verdict(one: Answered) -> Text:
    if one.right:
        return Text("right" if one.inside else "right by luck", style="green")
    return Text("wrong", style="red") if one.inside else Text("not known", style="yellow")
