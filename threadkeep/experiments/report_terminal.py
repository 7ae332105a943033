"""Results as tables for a terminal of 80 columns or more."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from threadkeep.experiments.report_figures import Figure, difference, figures, flags, highest, words
from threadkeep.experiments.report_shape import Cell, Results, results_from
from threadkeep.experiments.report_svg import printable

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

TIGHT = (0, 1, 0, 0)


def table(results: Mapping[str, object]) -> "Group":
    """A rich renderable: for each task every cell's figures, the highest of a budget in bold.

    Raises:
        ResultsError: a field is missing or of another kind.
    """
    from rich.console import Group
    from rich.text import Text

    read = results_from(results)
    return Group(*(part for task in read.tasks for part in (Text(_title(read, task), style="bold"), _cells_table(read, task), "")))


def comparison_table(results: Mapping[str, object]) -> "Group":
    """A rich renderable: for each task the paired differences and their intervals; those that leave 0 out in bold.

    Raises:
        ResultsError: a field is missing or of another kind.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    comparisons = results_from(results).comparisons
    parts: list[RenderableType] = []
    for task, metric in dict.fromkeys((one.task, one.metric) for one in comparisons):
        shown = Table(box=None, pad_edge=False, header_style="bold")
        shown.add_column("budget", justify="right", no_wrap=True)
        shown.add_column("strategies", overflow="fold", ratio=1)
        shown.add_column("difference", justify="right", no_wrap=True)
        shown.add_column("interval", justify="right", no_wrap=True)
        for one in comparisons:
            if (one.task, one.metric) == (task, metric):
                texts = (f"{one.budget:,}", f"{printable(one.a)} − {printable(one.b)}", *difference(one))
                shown.add_row(*(Text(text, style="bold" if one.clear else "dim") for text in texts))
        parts += [Text(f"{printable(task)} · differences in {printable(words(metric))}", style="bold"), shown, ""]
    return Group(*parts)


def _cells_table(results: Results, task: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    cells = sorted(results.of(task), key=lambda cell: cell.budget)
    columns = [figure for figure in figures(cells) if figure.brief]
    shown = Table(box=None, pad_edge=False, padding=TIGHT, header_style="bold")
    shown.add_column("budget", justify="right", no_wrap=True)
    shown.add_column("strategy", overflow="fold", ratio=1)
    for figure in columns:
        shown.add_column(f"{figure.head}\n{figure.unit}", justify="right", no_wrap=True)
    best = {figure.head: highest(figure, cells) for figure in columns if figure.best}
    for index, cell in enumerate(cells):
        first = index == 0 or cells[index - 1].budget != cell.budget
        shown.add_row(Text(f"{cell.budget:,}" if first else ""), _named(cell), *(_written(figure, cell, best) for figure in columns))
    return shown


def _named(cell: Cell) -> "Text":
    """What must not be overlooked stands under the name, where no narrow terminal cuts it off."""
    from rich.text import Text

    flagged = [*([f"error: {printable(cell.error)}"] if cell.error else []), *flags(cell)]
    return Text("\n").join([Text(printable(cell.strategy)), *(Text(f"! {flag}", style="red") for flag in flagged)])


def _written(figure: Figure, cell: Cell, best: Mapping[str, set[tuple[str, int]]]) -> "Text":
    from rich.text import Text

    top = (cell.strategy, cell.budget) in best.get(figure.head, ())
    return Text(figure.text(figure.value(cell)), style="bold green" if top else "")


def _title(results: Results, task: str) -> str:
    sizes = results.facts[task].sizes if task in results.facts else {}
    return " · ".join([printable(task), *(f"{size:,} {name}" for name, size in sizes.items())])
