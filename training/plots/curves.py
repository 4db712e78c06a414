"""Curves of a run as one picture: losses, Frechet distance, and scores in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.plots.figures import add_legend, new_figure, to_image
from training.plots.grids import png

Line = Mapping[str, float]
"""Entry of ``log.jsonl`` or of ``scores.jsonl``."""

SIZE = (1140, 330)
TITLES = ("losses", "Frechet distance", "scores")
LOSSES = {"d_loss": "#cf222e", "g_loss": "#0969da"}
DISTANCE = {"frechet": "#8250df"}
SHARES = {"recall": "#1a7f37", "coverage": "#bf8700", "labels_right": "#bc4c00"}


def draw(ticks: Sequence[Line], scores: Sequence[Line]) -> bytes:
    """PNG of the log's ``ticks`` and of ``scores``, over images shown in thousands (kimg)."""
    figure, (losses, distance, shares) = new_figure(SIZE, TITLES)
    panels = ((losses, ticks, LOSSES), (distance, scores, DISTANCE), (shares, scores, SHARES))
    last = max((line["shown"] / 1000 for line in (*ticks[-1:], *scores[-1:])), default=1)
    for axes, lines, curves in panels:
        for name, colour in curves.items():
            known = [line for line in lines if name in line]
            kimg = [line["shown"] / 1000 for line in known]
            axes.plot(kimg, [line[name] for line in known], color=colour, label=name)
        axes.set_xlim(0, last)
        axes.set_xlabel("kimg")
    losses.set_ylim(bottom=min(0, losses.get_ylim()[0]))
    distance.set_ylim(bottom=0)
    shares.set_ylim(0, 1)
    add_legend(figure)
    return png(to_image(figure))
