"""Ranking of the snapshots of a run by their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Line = Mapping[str, Any]
"""Line of ``scores.jsonl``."""


def ranked(lines: Sequence[Line]) -> list[int]:
    """Positions (images shown) of all snapshots, best first.

    The best is the latest whose ``faults`` are the least within the standard error of both. The
    others follow by their ``faults``.
    """
    rising = sorted(lines, key=faults)
    if not rising:
        return []
    best = max(line["shown"] for line in rising if _is_equal(line, rising[0]))
    return [best, *(line["shown"] for line in rising if line["shown"] != best)]


def plateaued(lines: Sequence[Line], patience_kimg: float | None) -> bool:
    """True if no snapshot has been better for ``patience_kimg``.

    A function of the scores alone, so that a resumed run ends where an uninterrupted one does.
    """
    if not (lines and patience_kimg):
        return False
    return lines[-1]["shown"] - min(lines, key=faults)["shown"] >= patience_kimg * 1000


def faults(line: Line) -> float:
    """Product of the Frechet distance and the mean pyramid distance of a line of scores."""
    levels = [value for name, value in line.items() if name.startswith("pyramid_")]
    return float(line["frechet"] * fmean(levels))


def _is_equal(line: Line, least: Line) -> bool:
    """True if the ``faults`` of ``line`` are the ``least`` within the standard error.

    Runs with enough held-out images have none.
    """
    margin = math.hypot(*(each.get("faults_error", 0) for each in (line, least)))
    return faults(line) <= (1 + margin) * faults(least)
