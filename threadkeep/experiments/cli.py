"""The command line of experiments: what is run is asked for by name, and a run that was interrupted goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from threadkeep import Embedder, InvalidSetting, MissingExtra, SentenceTransformerEmbedder
from threadkeep.experiments.base import ORACLE, Task
from threadkeep.terminal.opening import open_backend
from threadkeep.terminal.screen import line, open_console

if TYPE_CHECKING:
    from threadkeep.experiments.report_shape import Comparison
    from threadkeep.experiments.run import Plan, Ran

STRATEGIES = ("SlidingWindow", "LastMessages", "BM25Turns", "BM25Turns(neighbours=1)", "BM25Sittings", "RandomMessages")
BUDGETS = (1024, 2048, 4096)
EXTRA = {"genai_prices": "genai-prices", "numpy": "numpy"}
"""The modules that the extra brings, and their packages."""
INTERRUPTED = 130
"""The exit code of what Ctrl-C ended, as shells have it."""

app = typer.Typer(no_args_is_help=True, help="Measure strategies: which keeps what, at which budget, at what cost.")

ResultsFile = Annotated[Path, typer.Argument(metavar="RESULTS.json", help="What a run wrote.")]


@app.command()
def tasks() -> None:
    """List the tasks, and what each reads."""
    from threadkeep.experiments.tasks import TASKS

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("task", no_wrap=True)
    shown.add_column("what it asks, and what it reads", ratio=1)
    for task in TASKS.values():
        shown.add_row(Text(task.name, style="bold"), Text(task.about))
    open_console().print(shown)


@app.command()
def run(
    task: Annotated[list[str], typer.Option(metavar="NAME[=PATH]", help="What to measure on (see: tasks). May be given again.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Name, Name(setting=value), my_strategy.py:Name or package.module:Name. May be given again.",
            show_default=", ".join(STRATEGIES),
        ),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tokens that a context may take. May be given again.", show_default=", ".join(map(str, BUDGETS))),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where finished cells and the results are kept.")] = Path("experiment"),
    data: Annotated[
        Path | None, typer.Option(envvar="THREADKEEP_DATA", help="A folder of datasets, for tasks without a path.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of made-up conversations, and of the intervals.")] = 0,
    oracle: Annotated[bool, typer.Option("--oracle/--no-oracle", help="Also what a perfect choice would reach.")] = True,
    tokens: Annotated[int, typer.Option(help="How long the planted conversation is.")] = 20_000,
    answers: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A model that answers from every context, and is scored.", show_default="none is asked"),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model that gives messages vectors, for strategies that recall by meaning; kept for the next run.",
            show_default="none have any",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(envvar="THREADKEEP_CACHE", help="The folder of fetched models.", show_default="the user's cache")
    ] = None,
) -> None:
    """Run strategies at budgets on tasks. The same command again goes on where it was interrupted."""
    summarise = _summarise()  # what is not installed is said before anything runs
    from threadkeep.experiments.named import named
    from threadkeep.experiments.report import read_json, table, write_html, write_json
    from threadkeep.experiments.report_shape import results_from
    from threadkeep.experiments.run import Plan
    from threadkeep.experiments.run import run as run_plan

    messages = open_console(stderr=True)
    plan = Plan(
        tasks=_tasks(task, data, tokens, seed),
        strategies=[named(text) for text in strategy or STRATEGIES],
        budgets=budget or BUDGETS,
        folder=_folder(out),
        seed=seed,
        oracle=oracle,
        embedder=None if embedder is None else _cached(embedder, cache),
    )
    bars = Bars(messages)
    try:
        with ExitStack() as opened:
            if answers is not None:
                model = open_backend(messages, answers, _window_for(plan.budgets), cache, temperature=0)
                opened.enter_context(closing(model))
                plan = replace(plan, answers=model)
            opened.enter_context(bars.progress)
            ran = run_plan(plan, bars.told)
    except KeyboardInterrupt:
        messages.print(Text(f"Interrupted. What is finished is kept in {out}: give the same command again to go on."), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    with _written(out):
        write_json(summarise(plan, ran), out / "results.json")
        results = read_json(out / "results.json")  # what is shown is what was written
        write_html(results, out / "report.html")
    console = open_console()
    console.print(table(results))
    console.print(Text(f"{out / 'results.json'}\n{out / 'report.html'}"), soft_wrap=True)
    errors = list(dict.fromkeys(cell.error for cell in results_from(results).cells if cell.error))
    for error in errors:
        messages.print(Text.assemble(("error: ", "bold red"), line(error)), soft_wrap=True)
    if errors:
        raise typer.Exit(1)


@app.command()
def compare(
    path: ResultsFile,
    strategies: Annotated[
        list[str] | None, typer.Argument(metavar="[A B]", help="Only these two, as the run named them.", show_default="every two")
    ] = None,
) -> None:
    """Show the differences of any two strategies, with paired intervals: by how much A is above B."""
    from threadkeep.experiments.report import comparison_table, read_json
    from threadkeep.experiments.report_shape import results_from

    wanted = list(strategies or ())
    if len(wanted) not in (0, 2):
        raise typer.BadParameter(f"two strategies are compared, not {len(wanted)}: give A and B, or neither")
    data = read_json(path)
    results = results_from(data, str(path))
    unknown = [name for name in wanted if name not in results.strategies]
    if unknown:
        raise InvalidSetting(f"{path} has no strategy {unknown[0]!r}: it has {', '.join(results.strategies)}")
    if wanted:
        results = replace(results, comparisons=[_turned(one, *wanted) for one in results.comparisons if {one.a, one.b} == set(wanted)])
    if not results.comparisons:
        raise InvalidSetting(f"{path} compares no such strategies: it takes two of them (no {ORACLE}) and questions with evidence")
    open_console().print(comparison_table({**data, "comparisons": [asdict(one) for one in results.comparisons]}))


@app.command()
def report(
    path: ResultsFile,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the page.", show_default=False)] = None,
) -> None:
    """Show a run's table again; with --html also write the page with its plots."""
    from threadkeep.experiments.report import read_json, table, write_html

    results = read_json(path)
    console = open_console()
    console.print(table(results))
    if html is not None:
        _folder(html.parent)
        with _written(html):
            write_html(results, html)
        console.print(Text(str(html)), soft_wrap=True)


def _turned(one: "Comparison", a: str, b: str) -> "Comparison":
    """The same comparison, told as A above B."""
    return one if one.a == a else replace(one, a=a, b=b, difference=-one.difference, low=-one.high, high=-one.low)


def _cached(model: str, cache: Path | None) -> Embedder:
    from threadkeep.experiments.embeddings import CachedEmbedder, default_path

    return CachedEmbedder(SentenceTransformerEmbedder(model, cache=cache), default_path())


def _window_for(budgets: Sequence[int]) -> int:
    """A window that holds any context and its answer, though the model may take more tokens for a text than o200k_base does."""
    from threadkeep.experiments.answers import MOST_TOKENS

    return max(budgets) * 3 // 2 + MOST_TOKENS


class Bars:
    """A bar a task, moved as its conversations are done."""

    def __init__(self, console: Console) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self._bars: dict[str, TaskID] = {}

    def told(self, task: str, done: int, total: int) -> None:
        if task not in self._bars:
            self._bars[task] = self.progress.add_task(task, total=total)
        self.progress.update(self._bars[task], completed=done)


def _tasks(texts: Sequence[str], data: Path | None, tokens: int, seed: int) -> list[tuple[Task, Path | str | None]]:
    from threadkeep.experiments.datasets import find
    from threadkeep.experiments.tasks import TASKS, Planted

    found: dict[str, tuple[Task, Path | str | None]] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if name not in TASKS:
            raise InvalidSetting(f"there is no task {name!r}: there are {', '.join(TASKS)}")
        if name in found:
            raise InvalidSetting(f"task {name} is asked for twice: a run takes each once, and another run goes to another --out")
        task = Planted(tokens, seed) if name == Planted.name else TASKS[name]
        found[name] = task, path or (find(name, data) if data else None)
    return list(found.values())


def _folder(path: Path) -> Path:
    """A folder that files can be put in."""
    with _written(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be written: {error.strerror or error}") from error


def _summarise() -> "Callable[[Plan, Sequence[Ran]], dict[str, object]]":
    """The function that needs the extra."""
    try:
        from threadkeep.experiments.summary import summarise
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise MissingExtra(EXTRA[error.name], "experiments") from error
    return summarise
