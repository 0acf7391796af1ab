"""Draw plots as inline SVG that follows the page's colours and scales to its width. It does not know what it plots."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 34, 40

Point = tuple[float, float]
Format = Callable[[float], str]

STYLE = """
svg.plot { width: 100%; max-width: 27rem; height: auto; display: block; font: 12px system-ui, sans-serif; }
svg.plot text { fill: currentColor; } svg.plot .grid { stroke: var(--line); stroke-width: 1; }
svg.plot .s0 { stroke: var(--first); fill: var(--first); } svg.plot .s1 { stroke: var(--second); fill: var(--second); }
svg.plot .s2 { stroke: currentColor; fill: currentColor; opacity: .5; }
svg.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round; } svg.plot .guide { stroke-dasharray: 4 4; }
svg.plot .band { stroke: none; opacity: .2; }
svg.plot tspan[class] { stroke: none; font-weight: 600; } svg.plot tspan.s2 { opacity: 1; font-weight: 400; }
"""
"""Wants --first, --second and --line as colours of the page."""


@dataclass(frozen=True)
class Series:
    """A line through points. `band` (x, low, high) is filled behind it, `guide` is dashed and without dots."""

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    guide: bool = False


def percent(value: float) -> str:
    """Return a share as text, with as many places as its nearness to 0 or 1 wants."""
    return f"{value:.2%}" if min(abs(value), abs(1 - value)) < 0.01 and value not in (0, 1) else f"{value:.0%}"


def plain(value: float) -> str:
    """Return a number as short text."""
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.0e}"


def chart(
    title: str, series: Sequence[Series], *, across: str, format_x: Format = plain, format_y: Format = plain
) -> str:
    """Return a plot of lines over common axes; `across` names what the horizontal one is. Needs one point at least."""
    shown = [line for line in series if line.points]
    xs = [x for line in shown for x, _ in line.points]
    ys = [y for line in shown for _, y in line.points] + [y for line in shown for _, *ends in line.band for y in ends]
    ticks_x, ticks_y = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    low_x, span_x = min(xs), (max(xs) - min(xs)) or 1.0
    low_y, span_y = ticks_y[0], ticks_y[-1] - ticks_y[0]
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> str:
        along, up = (x - low_x) / span_x, (y - low_y) / span_y
        return f"{_LEFT + along * wide:.1f},{_HEIGHT - _BOTTOM - up * high:.1f}"

    parts = [f"<text x='{_LEFT}' y='14' font-weight='600'>{escape(title)}</text>"]
    for y in ticks_y:
        height = place(low_x, y).split(",")[1]
        parts.append(f"<line class=grid x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{height}' y2='{height}'/>")
        parts.append(f"<text x='{_LEFT - 6}' y='{float(height) + 4:.1f}' text-anchor='end'>{format_y(y)}</text>")
    for x in ticks_x:
        between_whole_ones = all(float(known).is_integer() for known in xs) and not float(x).is_integer()
        if 0 <= x - low_x <= span_x and not between_whole_ones:
            along = place(x, low_y).split(",")[0]
            parts.append(f"<text x='{along}' y='{_HEIGHT - _BOTTOM + 16}' text-anchor='middle'>{format_x(x)}</text>")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f"<text x='{middle:.0f}' y='{_HEIGHT - 6}' text-anchor='middle' opacity='.75'>{escape(across)}</text>")
    for number, line in enumerate(shown):
        parts.append(_drawn(line, 2 if line.guide else number % 2, place))
    parts.append(_legend(shown))
    described = ", ".join(line.name for line in shown)
    return (
        f"<svg class=plot viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img aria-label='{escape(title)}: {escape(described)}'>"
        f"{''.join(parts)}</svg>"
    )


def _drawn(line: Series, colour: int, place: Callable[[float, float], str]) -> str:
    drawn = ""
    if line.band:
        upper = [place(x, high) for x, _, high in line.band]
        lower = [place(x, low) for x, low, _ in reversed(line.band)]
        drawn += f"<polygon class='band s{colour}' points='{' '.join([*upper, *lower])}'/>"
    points = [place(x, y) for x, y in line.points]
    guide = " guide" if line.guide else ""
    drawn += f"<polyline class='line s{colour}{guide}' points='{' '.join(points)}'/>"
    if not line.guide and len(points) <= 40:
        for point, (x, y) in zip(points, line.points, strict=True):
            cx, cy = point.split(",")
            drawn += f"<circle class=s{colour} cx='{cx}' cy='{cy}' r='2.6'><title>{plain(x)}: {y:.5g}</title></circle>"
    return drawn


def _legend(shown: Sequence[Series]) -> str:
    if len(shown) == 1:
        return ""
    words = "".join(
        f"<tspan class=s{2 if line.guide else number % 2} dx='{10 if number else 0}'>{escape(line.name)}</tspan>"
        for number, line in enumerate(shown)
    )
    return f"<text x='{_WIDTH - _RIGHT}' y='14' text-anchor='end'>{words}</text>"


def _ticks(low: float, high: float) -> list[float]:
    """Return round values that span [low, high], about five."""
    span = high - low or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * count, 12) for count in range(first, max(last, first + 1) + 1)]
