"""A context's account, as a table and as data."""

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from threadkeep.memory.context import Context, PickKind, Verdict, spans

if TYPE_CHECKING:
    from rich.console import RenderableType

COLOURS: dict[Verdict, str] = {
    "kept": "green",
    "clipped": "yellow",
    "recalled": "cyan",
    "summarised": "blue",
    "left out": "dim",
    "late": "magenta",
    "erased": "red",
}
PARTS: dict[PickKind, str] = {"instructions": "instructions", "entries": "entries", "summary": "summaries", "excerpt": "excerpts"}
WIDTH = 80
"""Columns of the plain text."""
LONGEST = 96
"""Characters of a reason that are shown."""


class Explanation:
    """Where a context's tokens went, and what became of every entry.

    `print` it for a plain table of 80 columns, hand it to a rich console for one in colour, or read `data`.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def parts(self) -> dict[str, int]:
        """Tokens by what they were spent on; together the context's."""
        parts = dict.fromkeys(PARTS.values(), 0)
        for pick in self.context.picks:
            parts[PARTS[pick.kind]] += pick.tokens
        return parts | {"tools": self.context.tools_tokens, "overhead": self.context.overhead}

    @property
    def data(self) -> dict[str, object]:
        """The account as a dict that JSON can hold."""
        context, budget = self.context, self.context.budget
        return {
            "tokens": context.tokens,
            "exact": context.exact,
            "counter": context.counter,
            "strategy": context.strategy,
            "budget": {
                "window": budget.window,
                "reply": budget.reply,
                "ceiling": budget.ceiling,
                "reserved": budget.reserved,
                "live": budget.live,
            },
            "parts": self.parts,
            "picks": [
                {
                    "kind": pick.kind,
                    "seqs": [list(run) for run in spans(pick.seqs)],
                    "tokens": pick.tokens,
                    "score": pick.score,
                    "reason": pick.reason,
                    "text": pick.text,
                }
                for pick in context.picks
            ],
            "decisions": [
                {
                    "first": decision.first,
                    "last": decision.last,
                    "verdict": decision.verdict,
                    "tokens": decision.tokens,
                    "score": decision.score,
                    "reason": decision.reason,
                }
                for decision in context.decisions
            ],
            "cache_note": context.cache_note,
        }

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        context = self.context
        share = f"{context.tokens / context.budget.ceiling:.0%}"
        kind = "exact" if context.exact else "estimated"
        head = Text.assemble(
            (f"{context.tokens:,}", "bold"),
            f" of {context.budget.ceiling:,} tokens ({share})  ·  strategy {_shown(context.strategy)}",
            f"  ·  {kind} by {_shown(context.counter)}",
        )
        spent = Text("  ".join(f"{name} {tokens:,}" for name, tokens in self.parts.items() if tokens), style="dim")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("entries", no_wrap=True)
        table.add_column("became", no_wrap=True)
        table.add_column("tokens", justify="right", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("why", ratio=1, overflow="fold")
        for decision in context.decisions:
            run = str(decision.first) if decision.first == decision.last else f"{decision.first}-{decision.last}"
            score = "" if decision.score is None else f"{decision.score:.3g}"
            verdict = Text(decision.verdict, style=COLOURS[decision.verdict])
            table.add_row(run, verdict, f"{decision.tokens:,}", score, Text(_shown(decision.reason)))
        lines: Sequence[RenderableType] = [head, spent, Text(), table, Text(), Text(f"cache: {_shown(context.cache_note)}", style="dim")]
        return Group(*lines)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=StringIO(), width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _shown(text: str) -> str:
    """On one line, cut where it is long, without what a terminal would obey or could not show."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: LONGEST + 1])
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
