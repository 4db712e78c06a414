"""Figures with matplotlib, drawn in memory: they need no display.

Functions import matplotlib when they are called: the import takes 0.4 s, and most commands draw
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
INK, FAINT, GRID = "#24292f", "#6e7781", "#e4e7eb"
BOTTOM_PIXELS = 75
"""Height below the plots for ticks, a label and the legend."""


def new_figure(size: tuple[int, int], titles: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """Figure of ``size`` (width, height) in pixels, with one plot for each title."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure((width / DPI, height / DPI), dpi=DPI)
    axes: Sequence[Axes] = figure.subplots(1, len(titles), squeeze=False)[0]
    for each, title in zip(axes, titles, strict=True):
        each.set_title(title, y=1, color=INK, fontsize=11)
        each.grid(axis="y", color=GRID)
        each.set_axisbelow(True)
        each.spines[["left", "top", "right"]].set_visible(False)
        each.spines["bottom"].set_color(FAINT)
        each.tick_params(color=FAINT, labelcolor=FAINT, labelsize=9)
        each.tick_params(axis="y", length=0)
        each.locator_params(nbins=5)
        each.margins(x=0)
        each.xaxis.label.set_color(INK)
    bottom = BOTTOM_PIXELS / height
    figure.subplots_adjust(left=50 / width, right=1 - 20 / width, bottom=bottom, wspace=0.15)
    return figure, axes


def add_legend(figure: Figure) -> None:
    """Add one row below the axes with every label in the figure, each once."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="lower center",
        ncols=len(entries),
        frameon=False,
        labelcolor=INK,
        fontsize=10,
    )


def to_image(figure: Figure) -> Image.Image:
    """RGB image of ``figure``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
