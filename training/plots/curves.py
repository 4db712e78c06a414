"""Curves of a run as one picture: losses, Frechet distance, and scores in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from training.plots.canvas import INK, Canvas, Plot
from training.plots.grids import png

Line = Mapping[str, float]
"""Entry of ``log.jsonl`` or of ``scores.jsonl``."""

PANEL, HEIGHT, MARGIN = 380, 330, 50
TITLES = ("losses", "Frechet distance", "scores")
LOSSES = {"d_loss": "#cf222e", "g_loss": "#0969da"}
DISTANCE = {"frechet": "#8250df"}
SHARES = {"recall": "#1a7f37", "coverage": "#bf8700", "labels_right": "#bc4c00"}


def draw(ticks: Sequence[Line], scores: Sequence[Line]) -> bytes:
    """PNG of the log's ``ticks`` and of ``scores``, over images shown in thousands (kimg)."""
    canvas = Canvas((PANEL * 3, HEIGHT))
    ends = [line["shown"] / 1000 for line in (*ticks[-1:], *scores[-1:])]
    xticks = _round_steps(0, max(ends, default=1))
    panels = ((ticks, LOSSES), (scores, DISTANCE), (scores, SHARES))
    for index, (lines, curves) in enumerate(panels):
        left = PANEL * index + MARGIN
        values = [line[name] for line in lines for name in curves if name in line]
        low, high = min([0, *values]), max([0, *values]) or 1
        yticks = _round_steps(0, 1) if curves is SHARES else _round_steps(low, high)
        plot = Plot((left, 50, left + PANEL - MARGIN - 20, HEIGHT - 70), xticks, yticks)
        for name, colour in curves.items():
            points = [(line["shown"] / 1000, line[name]) for line in lines if name in line]
            if len(points) > 1:
                xs, ys = np.array(points).T
                plot.line(xs, ys, colour)
        canvas.plot(plot)
        canvas.text((left + (PANEL - MARGIN - 20) / 2, 26), TITLES[index], 16, INK)
    canvas.legend(HEIGHT - 18, [*(LOSSES | DISTANCE | SHARES).items()])
    return png(canvas.finish())


def _round_steps(low: float, high: float) -> list[float]:
    """Evenly spaced round numbers, about five, from at most ``low`` to at least ``high``."""
    rough = max(high - low, 1e-6) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]
