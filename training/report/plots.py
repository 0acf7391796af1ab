"""Lay out lines, axes and ticks of plots, which templates/plot.html.j2 draws. It does not know their meaning."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

Point = tuple[float, float]
Format = Callable[[float], str]

_MOST_DOTS = 40


@dataclass(frozen=True)
class Series:
    """A line through points. `band` (x, low, high) is filled behind it, `guide` is dashed and without dots."""

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    guide: bool = False


@dataclass(frozen=True)
class Dot:
    x: str
    y: str
    text: str


@dataclass(frozen=True)
class Tick:
    at: str
    text: str


@dataclass(frozen=True)
class Line:
    """A series to draw. `points` and the outline `band` are texts "x,y"; `colour` numbers a colour of report.css."""

    name: str
    colour: int
    guide: bool
    points: Sequence[str]
    band: Sequence[str]
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Plot:
    """Lines over common axes, which end at `left`, `right`, `top` and `bottom` of the drawing."""

    width: ClassVar = 420
    height: ClassVar = 260
    left: ClassVar = 58
    right: ClassVar = 400
    top: ClassVar = 34
    bottom: ClassVar = 220

    title: str
    across: str
    ticks_x: Sequence[Tick]
    ticks_y: Sequence[Tick]
    lines: Sequence[Line]


def percent(value: float) -> str:
    """Return a share as text, with more decimal places the nearer it is to 0 or 1."""
    return f"{value:.2%}" if min(abs(value), abs(1 - value)) < 0.01 and value not in (0, 1) else f"{value:.0%}"


def plain(value: float) -> str:
    """Return a number as short text."""
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.0e}"


def plot(
    title: str, series: Sequence[Series], *, across: str, format_x: Format = plain, format_y: Format = plain
) -> Plot:
    """Return a plot of lines; `across` names the horizontal axis. Needs at least one point."""
    shown = [each for each in series if each.points]
    xs = [x for each in shown for x, _ in each.points]
    ys = [y for each in shown for _, y in each.points] + [y for each in shown for _, *ends in each.band for y in ends]
    ticks_x, ticks_y = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    low_x, span_x = min(xs), (max(xs) - min(xs)) or 1.0
    low_y, span_y = ticks_y[0], ticks_y[-1] - ticks_y[0]
    if all(float(x).is_integer() for x in xs):
        ticks_x = [x for x in ticks_x if x.is_integer()]

    def along(x: float) -> str:
        return f"{Plot.left + (x - low_x) / span_x * (Plot.right - Plot.left):.1f}"

    def up(y: float) -> str:
        return f"{Plot.bottom - (y - low_y) / span_y * (Plot.bottom - Plot.top):.1f}"

    def place(x: float, y: float) -> str:
        return f"{along(x)},{up(y)}"

    def line(each: Series, colour: int) -> Line:
        dotted = not each.guide and len(each.points) <= _MOST_DOTS
        return Line(
            name=each.name,
            colour=colour,
            guide=each.guide,
            points=[place(x, y) for x, y in each.points],
            band=[place(x, high) for x, _, high in each.band] + [place(x, low) for x, low, _ in reversed(each.band)],
            dots=[Dot(along(x), up(y), f"{plain(x)}: {y:.5g}") for x, y in each.points] if dotted else [],
        )

    return Plot(
        title=title,
        across=across,
        ticks_x=[Tick(along(x), format_x(x)) for x in ticks_x if 0 <= x - low_x <= span_x],
        ticks_y=[Tick(up(y), format_y(y)) for y in ticks_y],
        lines=[line(each, 2 if each.guide else number % 2) for number, each in enumerate(shown)],
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round values that span [low, high]."""
    span = high - low or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * count, 12) for count in range(first, max(last, first + 1) + 1)]
