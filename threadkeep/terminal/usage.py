"""What model calls took, on a screen: sums by model and purpose, and what they cost."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

from rich.table import Table
from rich.text import Text

from threadkeep.memory.money import EXACT
from threadkeep.stores.ledger import Used
from threadkeep.terminal.screen import line


def usage_table(used: Sequence[Used]) -> Table:
    """A row for each model and purpose, and their sum."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_footer=len(used) > 1, footer_style="bold")
    total = Decimal(0)
    with localcontext(EXACT):
        for one in used:
            total += one.cost
    table.add_column("model", "all", overflow="fold")
    table.add_column("for", no_wrap=True)
    for heading, name in (("calls", "calls"), ("sent", "prompt_tokens"), ("cached", "cached_tokens"), ("said", "completion_tokens")):
        table.add_column(heading, f"{sum(getattr(one, name) for one in used):,}", justify="right", no_wrap=True)
    table.add_column("seconds", f"{sum(one.total_ms for one in used) / 1000:,.1f}", justify="right", no_wrap=True)
    table.add_column("US dollars", _cost(total, sum(one.unpriced for one in used)), justify="right", no_wrap=True)
    for one in used:
        counts = (one.calls, one.prompt_tokens, one.cached_tokens, one.completion_tokens)
        seconds = f"{one.total_ms / 1000:,.1f}"
        table.add_row(Text(line(one.model)), one.purpose, *(f"{count:,}" for count in counts), seconds, _cost(one.cost, one.unpriced))
    return table


def usage_data(used: Used) -> dict[str, object]:
    return used._asdict() | {"cost": f"{used.cost:f}"}


def _cost(cost: Decimal, unpriced: int) -> str:
    """All digits; with the calls whose price is not known."""
    text = f"{cost:f}"
    known = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{known} + {unpriced:,} unpriced" if unpriced else known
