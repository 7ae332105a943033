"""What looking over a database came to, on a screen."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from threadkeep.stores.findings import Check
from threadkeep.terminal.screen import line

SHOWN = 10
"""Findings of one check; of the others it is said how many there are."""


def show_checks(console: Console, checks: Iterable[Check]) -> bool:
    """A line for each check as it is done, what it found below it; whether nothing is wrong."""
    well = True
    for check in checks:
        grave = sum(finding.grave for finding in check.findings)
        well = well and not grave
        mark = ("wrong", "bold red") if grave else ("look", "yellow") if check.findings else ("well", "green")
        console.print(
            Text.assemble(f"{mark[0]:<6}", (f"{check.name:<12}", "bold"), (f"{check.looked_at:,} {check.unit}", "dim"), style=mark[1])
        )
        for finding in check.findings[:SHOWN]:
            console.print(Text("        " + line(finding.said), style="red" if finding.grave else ""), soft_wrap=True)
        if len(check.findings) > SHOWN:
            console.print(Text(f"        and {len(check.findings) - SHOWN:,} more", style="dim"))
    return well


def check_data(check: Check) -> dict[str, object]:
    findings = [{"said": finding.said, "grave": finding.grave} for finding in check.findings]
    return {"name": check.name, "looked_at": check.looked_at, "unit": check.unit, "findings": findings}
