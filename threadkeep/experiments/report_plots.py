"""The plots: figures in, SVG out. Each is drawn at the width it is shown at on a phone, so that its words stay legible there.

What belongs to one strategy carries `data-s`, its number, so that the legend can show, hide and lift it without a script.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from xml.etree.ElementTree import Element

from threadkeep.experiments.report_svg import Axis, Look, clipped, element, log_axis, log_ticks, short, ticks

WIDTH = 400
LEFT, RIGHT = 46, 14
NAME = 52
"""Characters of a name that fit into the width."""
WIDE = 6.9
"""About the width of a character; bold digits are among the widest."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a line, with the interval around it where there is one, and what is said when it is pointed at."""

    x: float
    y: float
    said: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One strategy's points. None is a hole: a cell that failed breaks the line."""

    look: Look
    points: Sequence[Point | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy's value along an axis: a marker at `value`, a stroke from `low` to `high`, and the figures as text."""

    name: str
    readout: str
    look: Look | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    hollow: bool = False


def lines(
    title: str, series: Sequence[Line], *, x_ticks: Sequence[float] | None, x_label: str, x_text: Callable[[float], str], about: str
) -> Element:
    """Shares (0 to 1) against something that spans magnitudes. Without `x_ticks`, round numbers are chosen."""
    height, top, bottom = 286, 12, 42
    points = [point for line in series for point in line.points if point]
    xs = log_axis([point.x for point in points], LEFT, WIDTH - RIGHT)
    marks = _room(xs, x_ticks, x_text) if x_ticks else log_ticks(xs, 6)
    low, high = share_span([value for point in points for value in (point.y, point.low, point.high) if value is not None])
    levels = ticks(low, high, 5)
    ys = Axis(levels[0], levels[-1], height - bottom, top)
    plot = _canvas(title, about, height)
    for level in levels:
        y = ys.at(level)
        plot.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        plot.append(element("text", f"{level * 100:g}%", x=LEFT - 7, y=y + 4, class_="end"))
    for mark in marks:
        x = xs.at(mark)
        plot.append(element("line", x1=x, x2=x, y1=height - bottom, y2=height - bottom + 5, class_="tick"))
        plot.append(element("text", x_text(mark), x=x, y=height - bottom + 18, class_="middle"))
    plot.append(element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=height - 5, class_="middle label"))
    plot.extend(_band(line, xs, ys) for line in series)
    plot.extend(_drawn(line, xs, ys) for line in series)
    return plot


def rows(
    title: str, entries: Sequence[Row], axis: Axis, marks: Sequence[float], text: Callable[[float], str], *, zero: float, about: str
) -> Element:
    """One value a row, its name above it; a bar leads from `zero` where the axis has it, unless the row is a difference (without a look).

    A name has as many lines as it has line breaks.
    """
    named = max(row.name.count("\n") for row in entries) + 1
    step, top = 19 + 14 * named, 6
    foot = top + step * len(entries)
    plot = _canvas(title, about, foot + 26)
    for mark in marks:
        x = axis.at(mark)
        plot.append(element("line", x1=x, x2=x, y1=top, y2=foot + 4, class_="zero" if mark == zero else "grid"))
        plot.append(element("text", text(mark), x=x, y=foot + 19, class_=_anchor(x)))
    for index, row in enumerate(entries):
        y = top + step * index
        group = element("g", data_s=row.look.index if row.look else None)
        for line, name in enumerate(row.name.split("\n")):
            longest = NAME if line else int((WIDTH - 8 - WIDE * len(row.readout)) / WIDE)
            group.append(element("text", element("title", name), clipped(name, longest), x=2, y=y + 12 + 14 * line, class_="name halo"))
        group.append(element("text", row.readout, x=WIDTH - 2, y=y + 12, class_="end strong halo"))
        if row.value is not None:
            group.extend(_row_marks(row, axis, zero, y + 9 + 14 * named))
        plot.append(group)
    return plot


def bars(title: str, groups: Mapping[str, Sequence[Row]], *, about: str) -> Element:
    """Shares as bars, grouped; the strategy's marker stands at the bar's end, so that it is told without its colour."""
    thick, step, head = 9, 15, 24
    height = sum(head + step * len(group) + 6 for group in groups.values()) + 22
    left = 8
    axis = Axis(0, 1, left, WIDTH - 48)
    plot = _canvas(title, about, height)
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = axis.at(share)
        plot.append(element("line", x1=x, x2=x, y1=4, y2=height - 20, class_="zero" if share == 0 else "grid"))
        plot.append(element("text", f"{share:.0%}", x=x, y=height - 5, class_=_anchor(x)))
    y = 0.0
    for name, group in groups.items():
        plot.append(element("text", element("title", name), clipped(name, NAME), x=left + 4, y=y + 16, class_="name strong halo"))
        y += head
        for row in group:
            bar = element("g", element("title", f"{row.name}, {name}: {row.readout}"), data_s=row.look.index if row.look else None)
            if row.value is not None and row.look:
                x = axis.at(row.value)
                bar.append(element("rect", x=left, y=y, width=max(x - left, 0), height=thick, class_="bar", style=f"--c:{row.look.colour}"))
                bar.append(row.look.marker(x, y + thick / 2))
            bar.append(element("text", row.readout, x=WIDTH - 2, y=y + thick, class_="end"))
            plot.append(bar)
            y += step
        y += 6
    return plot


def deciles(title: str, entries: Sequence[tuple[str, Look, Sequence[tuple[int, int]]]], *, about: str) -> Element:
    """For each strategy ten columns, the oldest tenth of the history first: how much of the gold that lies there is kept."""
    tall, step, pitch = 30, 62, (WIDTH - 4) / 10
    foot = step * len(entries)
    plot = _canvas(title, about, foot + 40)
    for index, (name, look, ages) in enumerate(entries):
        y = step * index
        row = element("g", data_s=look.index)
        row.append(element("text", element("title", name), clipped(name, NAME), x=2, y=y + 12, class_="name"))
        for age, (kept, total) in enumerate(ages):
            x, base = 2 + pitch * age, y + 18 + tall
            share = kept / total if total else 0.0
            said = f"{name}, {_age(age)}: {kept} of {total} gold messages kept"
            column = element("g", element("title", said))
            wide, high, colour = pitch - 4, tall * share, f"--c:{look.colour}"
            column.append(element("rect", x=x + 2, y=base - tall, width=wide, height=tall, class_="track" if total else "track none"))
            column.append(element("rect", x=x + 2, y=base - high, width=wide, height=high, class_="bar", style=colour))
            column.append(element("text", f"{share * 100:.0f}" if total else "–", x=x + pitch / 2, y=base + 11, class_="middle small"))
            row.append(column)
        plot.append(row)
    totals = [total for _, total in max((ages for _, _, ages in entries), key=lambda ages: sum(total for _, total in ages))]
    for age, total in enumerate(totals):
        plot.append(element("text", f"{total:,}", x=2 + pitch * (age + 0.5), y=foot + 16, class_="middle small strong"))
    plot.append(element("text", "← oldest tenth", x=4, y=foot + 34, class_="label"))
    plot.append(element("text", "gold messages there", x=WIDTH / 2, y=foot + 34, class_="middle label"))
    plot.append(element("text", "newest tenth →", x=WIDTH - 4, y=foot + 34, class_="end label"))
    return plot


def share_span(shares: Sequence[float]) -> tuple[float, float]:
    """From a round tenth below the lowest to a round tenth above the highest, at least 20 points: small differences stay small."""
    low, high = floor(min(shares) * 10 + 1e-9) / 10, ceil(max(shares) * 10 - 1e-9) / 10
    high = min(max(high, low + 0.2), 1.0)
    return max(min(low, high - 0.2), 0.0), high


def _age(decile: int) -> str:
    return f"{decile * 10} to {decile * 10 + 10}% of the history"


def _canvas(title: str, about: str, height: float) -> Element:
    box = f"0 0 {WIDTH} {short(height)}"
    return element("svg", element("title", title), element("desc", about), viewBox=box, role="img", class_="plot")


def _anchor(x: float) -> str | None:
    """A tick's words keep within the picture."""
    return None if x < 16 else "end" if x > WIDTH - 16 else "middle"


def _room(axis: Axis, marks: Sequence[float], text: Callable[[float], str]) -> list[float]:
    """The marks whose words do not run into the one before."""
    shown: list[float] = []
    for mark in sorted(set(marks)):
        wide = 3.6 * (len(text(mark)) + (len(text(shown[-1])) if shown else 0)) + 8
        if not shown or axis.at(mark) - axis.at(shown[-1]) >= wide:
            shown.append(mark)
    return shown


def _band(line: Line, xs: Axis, ys: Axis) -> Element:
    group = element("g", data_s=line.look.index, class_="bands")
    for before, after in pairwise(line.points):
        if before and after and None not in (before.low, before.high, after.low, after.high):
            corners = [(before.x, before.low), (after.x, after.low), (after.x, after.high), (before.x, before.high)]
            path = "L".join(f"{short(xs.at(x))},{short(ys.at(y or 0.0))}" for x, y in corners)
            group.append(element("path", d=f"M{path}Z", class_="band", style=f"--c:{line.look.colour}"))
    return group


def _drawn(line: Line, xs: Axis, ys: Axis) -> Element:
    group = element("g", data_s=line.look.index)
    run: list[tuple[float, float]] = []
    for point in [*line.points, None]:
        if point:
            run.append((xs.at(point.x), ys.at(point.y)))
            continue
        if len(run) > 1:
            group.append(line.look.line(run))
        run = []
    group.extend(line.look.marker(xs.at(point.x), ys.at(point.y), title=point.said) for point in line.points if point)
    return group


def _row_marks(row: Row, axis: Axis, zero: float, y: float) -> list[Element]:
    value = axis.at(row.value if row.value is not None else zero)
    marks = []
    colour = f"--c:{row.look.colour}" if row.look else None
    if row.look and axis.low <= zero:
        marks.append(element("rect", x=axis.at(zero), y=y - 3.5, width=max(value - axis.at(zero), 0), height=7, class_="bar", style=colour))
    if row.low is not None and row.high is not None:
        low, high = axis.at(row.low), axis.at(row.high)
        marks.append(element("path", d=f"M{short(low)},{short(y)}H{short(high)}m0,-5v10", class_="range", style=colour))
        if row.low != row.value:
            marks.append(element("path", d=f"M{short(low)},{short(y - 5)}v10", class_="range", style=colour))
    said = f"{row.name}: {row.readout}"
    if row.look:
        marks.append(row.look.marker(value, y, title=said))
    else:
        marks.append(element("circle", element("title", said), cx=value, cy=y, r=4, class_="marker hollow" if row.hollow else "marker"))
    return marks
