"""What model calls took, on a screen: one by one, and as sums by model and purpose; with what they cost."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

from rich.table import Table
from rich.text import Text

from threadkeep.memory.money import EXACT
from threadkeep.stores.ledger import CallRow, Used
from threadkeep.terminal.listing import at
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


def calls_table(calls: Sequence[CallRow]) -> Table:
    """A row for each call."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("at", "turn", "model", "for", "sent", "cached", "said", "seconds", "US dollars", "ended"):
        words = heading in ("at", "model", "for", "ended")
        table.add_column(heading, justify="left" if words else "right", overflow="fold" if heading == "model" else "ellipsis")
    for call in calls:
        counts = (f"{count:,}" for count in (call.prompt_tokens, call.cached_tokens, call.completion_tokens))
        seconds = "" if call.total_ms is None else f"{call.total_ms / 1000:,.1f}"
        cost = "" if call.cost is None else _cost(call.cost, 0)
        turn = "" if call.turn_id is None else str(call.turn_id)
        table.add_row(at(call.created_at), turn, Text(line(call.model)), call.purpose, *counts, seconds, cost, call.outcome)
    return table


def call_data(call: CallRow) -> dict[str, object]:
    made = {name: value for name, value in call._asdict().items() if name != "created_us"}
    return made | {"cost": None if call.cost is None else f"{call.cost:f}", "created_at": call.created_at.isoformat()}


def _cost(cost: Decimal, unpriced: int) -> str:
    """All digits; with the calls whose price is not known."""
    text = f"{cost:f}"
    known = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{known} + {unpriced:,} unpriced" if unpriced else known
