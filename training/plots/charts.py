"""Line charts as SVG inside a page: cheap to draw, sharp at any size, in the page's colours."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

STYLE = """
.chart { display: block; width: 100%; height: auto; overflow: visible }
.charts { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)) }
.charts h3 { margin: .5rem 0 }
.chart text { fill: var(--faint); font-size: 10px }
.chart .grid { stroke: var(--line) }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
.chart .level { stroke-width: 1.5; stroke-dasharray: 5 4 }
.key { display: inline-block; width: 1em; height: .3em; margin: 0 .4em .2em 0 }
figcaption ul { list-style: none; padding: 0; margin: 0 }
"""
WIDTH, HEIGHT = 360, 180
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 8, 34
MAX_POINTS = 300
"""Points of a curve; more are averaged, which no eye can tell at this width."""
COLOURS = 5
"""Colours in the style of pages."""


@dataclass(frozen=True)
class Curve:
    """Values over images shown, and the value of real images if there is one."""

    name: str
    points: Sequence[tuple[float, float]]
    """At least one (images shown, value)."""
    level: float | None = None


Scale = Literal["linear", "share", "log"]
"""From 0 or below; from 0 to 1; or of positive values."""


def chart(title: str, curves: Sequence[Curve], last: float, scale: Scale) -> str:
    """Figure of ``curves`` from 0 to ``last`` images, with their newest values as its caption."""
    values = [y for curve in curves for _, y in curve.points]
    values += [curve.level for curve in curves if curve.level is not None]
    at, ticks = _vertical(values, scale)
    right = WIDTH - RIGHT

    def across(shown: float) -> float:
        return LEFT + (right - LEFT) * shown / last

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at(y):.1f}" y2="{at(y):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{at(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        for y in ticks
    ]
    step = _step(last / 1000, 4)
    for number in range(int(last / 1000 / step) + 1):
        parts.append(
            f'<text x="{across(number * step * 1000):.1f}" y="{HEIGHT - BOTTOM + 15}" '
            f'text-anchor="middle">{number * step:g}</text>'
        )
    parts.append(
        f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">thousand images shown</text>'
    )
    for number, curve in enumerate(curves):
        colour = f"var(--curve-{number % COLOURS})"
        if curve.level is not None:
            y = at(curve.level)
            parts.append(
                f'<line class="level" stroke="{colour}" x1="{LEFT}" x2="{right}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/>'
            )
        positions = [(across(x), at(y)) for x, y in _thinned(curve.points)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
        parts.append(f'<polyline class="curve" stroke="{colour}" points="{points}"/>')
        x, y = positions[-1]
        parts.append(f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    keys = "".join(_key(number, curve) for number, curve in enumerate(curves))
    return (
        f'<figure><h3>{html.escape(title)}</h3><svg class="chart" aria-hidden="true" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'
        f"<figcaption><ul>{keys}</ul></figcaption></figure>"
    )


def _key(number: int, curve: Curve) -> str:
    level = "" if curve.level is None else f" (real images, dashed: {_number(curve.level)})"
    return (
        f'<li><span class="key" style="background:var(--curve-{number % COLOURS})"></span>'
        f"{html.escape(curve.name)}: {_number(curve.points[-1][1])}{level}</li>"
    )


def _number(value: float) -> str:
    """``value`` with three digits, or as a whole number."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _vertical(
    values: Sequence[float], scale: Scale
) -> tuple[Callable[[float], float], list[float]]:
    """Position in pixels of a value, and the values of the grid lines."""
    if scale == "log":
        low, high = max(min(values), 1e-3), max(*values, 1e-2)
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        all_ticks = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
        low = max(tick for tick in all_ticks if tick <= low)
        high = min(tick for tick in all_ticks if tick >= high and tick > low)
        ticks = [tick for tick in all_ticks if low <= tick <= high]
        ticks = ticks[:: math.ceil(len(ticks) / 6)]
        start, span = math.log10(low), math.log10(high) - math.log10(low)
        return lambda y: _up((math.log10(max(y, low)) - start) / span), ticks
    low, high = (0.0, 1.0) if scale == "share" else (min(0.0, *values), max(0.0, *values))
    step = _step((high - low) or 1.0, 5)
    low, high = step * math.floor(low / step), step * max(math.ceil(high / step), 1)
    count = round((high - low) / step)
    ticks = [round(low + number * step, 10) for number in range(count + 1)]
    return lambda y: _up((y - low) / (high - low)), ticks


def _up(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _step(span: float, count: int) -> float:
    """Round distance of at most about ``count`` ticks over ``span``."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit * count >= span * 0.999)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of successive points, at most ``MAX_POINTS``; the last one is kept."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size == 1:
        return list(points)
    groups = [points[i : i + size] for i in range(0, len(points) - 1, size)]
    means = [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]
    return [*means, points[-1]]
