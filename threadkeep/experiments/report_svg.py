"""Elements, axes, and how a strategy looks: what the plots are drawn with.

Text is escaped by the serialiser of the standard library, and never put together by hand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

Child = Element | str

COLOURS = 8
"""Hues in the style sheet, `--s0` to `--s7`. Markers and dashes come in other numbers: a combination returns after 280 strategies."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4")
MARKERS = (  # drawn around (0, 0), about 9 wide
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.7,-3.7h7.4v7.4h-7.4z",
    "M0,-4.8L4.5,3.4H-4.5z",
    "M0,-5.2L5.2,0L0,5.2L-5.2,0z",
    "M0,4.8L4.5,-3.4H-4.5z",
    "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M0,-5L4.8,-1.5L3,4.2H-3L-4.8,-1.5z",
)


def element(kind: str, /, *children: Child | None, **attributes: str | float | None) -> Element:
    """An element of HTML or SVG. `class_` stands for class, an underscore within a name for a hyphen; None leaves out."""
    made = Element(kind)
    for key, value in attributes.items():
        if value is not None:
            made.set(key.rstrip("_").replace("_", "-"), printable(value) if isinstance(value, str) else short(value))
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + printable(child)
        elif child is not None:
            made.text = (made.text or "") + printable(child)
    return made


def serialised(root: Element) -> str:
    return tostring(root, encoding="unicode", method="html")


def printable(text: str) -> str:
    """Without characters that a page cannot hold (NUL, lone surrogates) or that would turn its text around."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def short(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


def clipped(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to coordinates, linearly or by their logarithm; a value off the ends lands on the nearer one."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, point = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, point = math.log(low), math.log(high), math.log(point)
        share = 0.5 if high == low else (point - low) / (high - low)
        return self.start + share * (self.end - self.start)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis over positive values, with a little air at both ends."""
    return Axis(min(values) / 1.12, max(values) * 1.12, start, end, log=True)


def log_ticks(axis: Axis, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten within the axis; fewer where those are too many, evenly spaced ones where they are too few."""
    first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps if axis.low <= step * 10.0**power <= axis.high]
        if len(found) <= most:
            break
    if len(found) < 3:
        found = [tick for tick in ticks(axis.low, axis.high, most) if axis.low <= tick <= axis.high]
    return found[:: math.ceil(len(found) / most)]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that span low to high; the first and the last are where the axis ends."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next((factor * power for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= most), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Look:
    """How one strategy is told from the others: by colour, by dash and by marker."""

    index: int
    bound: bool = False
    """No strategy but what none can exceed: drawn in grey."""

    @property
    def colour(self) -> str:
        return "var(--soft)" if self.bound else f"var(--s{self.index % COLOURS})"

    def marker(self, x: float, y: float, *, title: str | None = None, hollow: bool = False) -> Element:
        return element(
            "path",
            element("title", title) if title else None,
            d=MARKERS[self.index % len(MARKERS)],
            transform=f"translate({short(x)},{short(y)})",
            class_="marker hollow" if hollow else "marker",
            style=f"--c:{self.colour}",
        )

    def line(self, points: Sequence[tuple[float, float]]) -> Element:
        return element(
            "path",
            d="M" + "L".join(f"{short(x)},{short(y)}" for x, y in points),
            class_="line",
            style=f"--c:{self.colour}",
            stroke_dasharray="1 4" if self.bound else DASHES[self.index % len(DASHES)] or None,
        )

    def swatch(self) -> Element:
        """What the legend shows."""
        return element(
            "svg", self.line([(1, 8), (35, 8)]), self.marker(18, 8), viewBox="0 0 36 16", width=36, height=16, aria_hidden="true"
        )
