"""One HTML page that needs nothing else: no network, no script. What can be chosen on it is chosen by the style sheet."""

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element

from threadkeep.experiments.base import ORACLE
from threadkeep.experiments.report_charts import COSTS, Chart, over_budgets, per_budget
from threadkeep.experiments.report_figures import ABOUT, Figure, figures, flags, highest, percent, share_of, words
from threadkeep.experiments.report_shape import Cell, Results
from threadkeep.experiments.report_svg import Look, element, printable, serialised

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is fetched and nothing runs, whatever the results hold."""
RULES = {
    "hidden": '.task:has(.legend [data-k="{0}"] input:not(:checked)) .plot [data-s="{0}"] {{ opacity: .06; }}',
    "lifted": '.task:has(.legend [data-k="{0}"]:hover) .plot [data-s]:not([data-s="{0}"]) {{ opacity: .14; }}',
    "chosen": '.chosen:has(> .choice [value="{0}"]:checked) .at:not([data-at="{0}"]) {{ display: none; }}',
}


def page(results: Results) -> str:
    """The whole page as text."""
    looks = {strategy: Look(index, strategy == ORACLE) for index, strategy in enumerate(results.strategies)}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"threadkeep experiment: {', '.join(results.tasks)}"),
        element("style", _style(results)),
    )
    body = element("body", _header(results), element("main", *(_task(results, task, looks) for task in results.tasks)), _made(results))
    return "<!doctype html>\n" + serialised(element("html", head, body, lang="en")) + "\n"


def _style(results: Results) -> str:
    budgets = sorted({cell.budget for cell in results.cells})
    rules = [RULES[kind].format(index) for kind in ("hidden", "lifted") for index in range(len(results.strategies))]
    rules += [RULES["chosen"].format(one) for one in (*budgets, *(cost.name for cost in COSTS))]
    return "\n".join([files("threadkeep.experiments").joinpath("report.css").read_text("utf-8"), *rules])


def _header(results: Results) -> Element:
    made, budgets = results.made, {cell.budget for cell in results.cells}
    counts = (
        (len(results.tasks), "task", "tasks"),
        (len(results.strategies), "strategy", "strategies"),
        (len(budgets), "budget", "budgets"),
    )
    counted = " × ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)
    named = [(name, made[name]) for name in ("threadkeep", "seed", "counter") if name in made]
    by = [str(value) if name == "counter" else f"{name} {value}" for name, value in named]
    links = [element("a", task, href=f"#task-{index}") for index, task in enumerate(results.tasks)]
    return element(
        "header",
        element("h1", "Which memory strategy, at which budget, at what cost"),
        element("p", " · ".join([counted, *by]), class_="soft"),
        _verdict(results.cells),
        element("nav", *links, aria_label="Tasks") if len(links) > 1 else None,
    )


def _verdict(cells: Sequence[Cell]) -> Element:
    errors = sum(1 for cell in cells if cell.error)
    found = [f"cells with an error: {errors} of {len(cells)}"] if errors else []
    counts = ((cell.over_budget or 0, cell.cannot_fit or 0, cell.failures or 0) for cell in cells)
    names = ("contexts over budget", "questions that could not fit", "questions that failed")
    found += [f"{name}: {sum(count):,}" for name, count in zip(names, zip(*counts, strict=True), strict=False) if sum(count)]
    unknown = sum(1 for cell in cells if not cell.error and cell.over_budget is None)
    if unknown:
        found.append(f"cells that do not say whether a context was over budget: {unknown}")
    if found:
        return element("p", "⚠ " + " · ".join(found), class_="verdict bad")
    return element("p", f"✓ {len(cells)} cells: no context over budget, none that could not fit, none failed", class_="verdict good")


def _task(results: Results, task: str, looks: dict[str, Look]) -> Element:
    number = results.tasks.index(task)
    cells = results.of(task)
    facts = results.facts.get(task)
    section = element("section", element("h2", task), class_="task", id=f"task-{number}")
    if facts:
        section.append(element("p", " · ".join(f"{size:,} {name}" for name, size in facts.sizes.items()), class_="soft"))
        if facts.notes:
            notes = element("ul", *(element("li", note) for note in facts.notes))
            section.append(element("details", element("summary", f"How its files were taken ({len(facts.notes)})"), notes))
    if not cells:
        section.append(element("p", "No cell of this task was run."))
        return section
    section.extend(_best(cells))
    section.append(_legend([strategy for strategy in looks if any(cell.strategy == strategy for cell in cells)], looks))
    spanning = "charts" if len({cell.budget for cell in cells}) > 1 else "columns"
    section.append(element("div", *(_figure(chart, f"cost-{number}") for chart in over_budgets(cells, looks)), class_=spanning))
    section.append(_by_budget(results, task, looks, number))
    section.append(_table(cells))
    return section


def _best(cells: Sequence[Cell]) -> Iterator[Element]:
    """For each budget the strategy that keeps most."""
    judged = [metric for metric in ("evidence_recall", "answer_coverage") if any(share_of(cell, metric) is not None for cell in cells)]
    if not judged:
        failed = all(cell.error for cell in cells)
        why = "Every cell of this task failed." if failed else "No gold: what is measured here is cost, reuse and latency."
        yield element("p", why, class_="soft")
        return
    metric, items = judged[0], []
    strategies = [cell for cell in cells if cell.strategy != ORACLE]
    for budget in sorted({cell.budget for cell in cells}):
        rated = [(share, cell.strategy) for cell in strategies if cell.budget == budget and (share := share_of(cell, metric)) is not None]
        if not rated:
            continue
        top = percent(max(rated)[0])
        names = [strategy for share, strategy in rated if percent(share) == top]
        named = " and ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
        items.append(element("li", element("span", f"{words(metric)} at {budget:,} tokens", class_="soft"), element("b", f"{top}%"), named))
    yield element("ul", *items, class_="best")


def _legend(strategies: Sequence[str], looks: dict[str, Look]) -> Element:
    fieldset = element("fieldset", element("legend", "Strategies"), class_="legend")
    for name in strategies:
        box = element("input", type="checkbox", checked="checked")
        fieldset.append(
            element(
                "label",
                box,
                looks[name].swatch(),
                element("span", f"{name} (sees the gold)" if looks[name].bound else name),
                data_k=looks[name].index,
            )
        )
    return fieldset


def _by_budget(results: Results, task: str, looks: dict[str, Look], number: int) -> Element:
    """What is drawn for one budget at a time; the middle one is shown first."""
    cells = results.of(task)
    budgets = sorted({cell.budget for cell in cells})
    section = element("section", class_="chosen", aria_label=f"{task}, one budget at a time")
    if len(budgets) > 1:
        options = [(str(budget), f"{budget:,}") for budget in budgets]
        section.append(_choice("At a budget of", f"budget-{number}", options, len(budgets) // 2))
    columns = element("div", class_="columns")
    for budget in budgets:
        comparisons = [one for one in results.comparisons if (one.task, one.budget) == (task, budget)]
        for chart in per_budget([cell for cell in cells if cell.budget == budget], comparisons, looks):
            figure = _figure(chart)
            figure.set("class", "at")
            figure.set("data-at", str(budget))
            columns.append(figure)
    section.append(columns)
    return section


def _choice(legend: str, name: str, options: Sequence[tuple[str, str]], first: int) -> Element:
    labels = [
        element("label", element("input", type="radio", name=name, value=value, checked="checked" if index == first else None), text)
        for index, (value, text) in enumerate(options)
    ]
    return element("fieldset", element("legend", legend), *labels, class_="choice")


def _figure(chart: Chart, name: str = "") -> Element:
    """With several drawings there is a choice between them, which `name` tells from the page's others."""
    figure = element("figure", element("figcaption", element("h3", chart.title), element("p", chart.about)))
    if len(chart.drawings) > 1:
        figure.set("class", "chosen")
        figure.append(_choice("in", name, [(key, key) for key in chart.drawings], 0))
    for key, drawing in chart.drawings.items():
        figure.append(element("div", drawing, class_="at", data_at=key) if len(chart.drawings) > 1 else drawing)
    if chart.rows:
        kinds = ["text", *(None for _ in chart.heads[1:])]
        heads = element("tr", *(element("th", head, scope="col", class_=kind) for head, kind in zip(chart.heads, kinds, strict=True)))
        table = element("table", element("thead", heads), element("tbody", *(_row(row) for row in chart.rows)))
        figure.append(element("details", element("summary", "As a table"), _scrolled(table, chart.title)))
    return figure


def _scrolled(table: Element, label: str) -> Element:
    """Wider than a phone: it is moved with a finger, or with the arrow keys once it has the focus."""
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _row(row: Sequence[str]) -> Element:
    return element("tr", element("th", row[0], scope="row", class_="text"), *(element("td", text) for text in row[1:]))


def _table(cells: Sequence[Cell]) -> Element:
    columns = figures(cells)
    best = {column.head: highest(column, cells) for column in columns if column.best}
    heads = [element("th", "strategy", scope="col", class_="text"), element("th", "budget", element("br"), "tokens", scope="col")]
    for column in columns:
        unit = (element("br"), column.unit) if column.unit else ()
        heads.append(element("th", column.head, *unit, scope="col"))
    body = element("tbody")
    ordered = sorted(cells, key=lambda cell: cell.budget)
    for index, cell in enumerate(ordered):
        first = index == 0 or ordered[index - 1].budget != cell.budget
        body.append(_cell_row(cell, columns, best, first=first))
    caption = element("caption", "All figures; the highest of a budget in bold")
    table = element("table", caption, element("thead", element("tr", *heads)), body)
    return _scrolled(table, "All figures")


def _cell_row(cell: Cell, columns: Sequence[Figure], best: dict[str, set[tuple[str, int]]], *, first: bool) -> Element:
    """What must not be overlooked stands under the strategy's name, which stays in sight however far the table is moved."""
    flagged = [f"error: {cell.error}"] if cell.error else []
    flagged += flags(cell)
    name = element("th", cell.strategy, *(element("span", f"⚠ {flag}", class_="flag") for flag in flagged), scope="row", class_="text")
    row = element("tr", name, element("td", f"{cell.budget:,}"), class_="first" if first else None)
    for column in columns:
        top = (cell.strategy, cell.budget) in best.get(column.head, ())
        row.append(element("td", column.text(column.value(cell)), class_="top" if top else None))
    return row


def _made(results: Results) -> Element:
    versions = element("dl")
    for name, value in results.made.items():
        versions.extend([element("dt", name), element("dd", str(value))])
    meanings = element("dl")
    for name, meaning in ABOUT.items():
        meanings.extend([element("dt", words(name)), element("dd", meaning)])
    settings = json.dumps(results.settings, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return element(
        "footer",
        element("h2", "How this was made"),
        versions,
        element("details", element("summary", "Settings, as they were given"), element("pre", printable(settings))),
        element("details", element("summary", "What the figures mean"), meanings),
        class_="task",
    )
