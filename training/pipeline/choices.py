"""Choices of a build: training options from the data and from the speed of this machine.

Pure functions. Choices are made once, and are then in the run's ``config.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.config import TrainingConfig
from training.data import Dataset
from training.networks.augment import conflicts_with_labels
from training.presets import PRESETS

SIZES = (16, 28, 32, 48, 64, 128)
"""Sides that the networks can draw, of which the nearest to the data's is chosen."""
WIDTHS = (16, 24, 32, 48, 64)
TRAIN_SHARE = 0.6
"""Share of the minutes for steps; the rest is for snapshots, evaluation and export."""
SNAPSHOTS = 12
"""Snapshots of a run: each takes seconds, and early ones are of no use."""
TICKS = 60
PATIENCE = 0.5
"""Share of the run without a better snapshot that ends it. Half, because the learning rate of most
presets falls in the second half, and samples improve again then."""
FEW = 1000
"""Images below which a set is small (docs/training.md, "Small sets")."""
MAX_AUGMENTED = 30_000
"""Images above which the discriminator does not memorise, and none are augmented."""
USEFUL_KIMG, USEFUL_IMAGES, GROWTH = 100, 300, 0.45
"""300 images are learnt in about 100 kimg (docs/training.md, "Small sets"), and
15,700 faces in about 600 (docs/models.md): the length grows with the number to this power."""
ENOUGH = 3
"""Length, in useful lengths, beyond which a run is not made longer."""


def _needs_sides_kept(dataset: Dataset) -> bool:
    """True for labels that name sides or characters, and for small grey images (characters)."""
    height, _, channels = dataset.images.shape[1:]
    grey = channels == 1 and height <= 32
    return grey or bool(conflicts_with_labels((), True, dataset.attributes))


KINDS: tuple[tuple[Callable[[Dataset], bool], str], ...] = (
    (_needs_sides_kept, "digits"),
    (lambda dataset: len(dataset) < FEW, "small"),
    (lambda dataset: True, "faces"),
)
"""Kinds of data, and the preset of each; the first that fits is chosen."""


@dataclass(frozen=True)
class Choice:
    """Options of a run, and what they are based on."""

    config: TrainingConfig
    preset: str
    rate: float
    """Measured speed in images per second."""
    useful_kimg: float
    """Length that so many images usually take."""


def choose(
    given: TrainingConfig,
    fixed: dict[str, Any],
    preset: str | None,
    dataset: Dataset,
    minutes: float,
    speed: Callable[[TrainingConfig], float],
) -> Choice:
    """Choose the options of a run that takes about ``minutes`` with its evaluation.

    ``fixed`` are the options that the user set, as they are in ``given``; they stay, as does
    ``preset`` unless it is None. ``speed`` measures images per second.
    """
    preset = preset or next(name for fits, name in KINDS if fits(dataset))
    options = dict(PRESETS[preset])
    if len(dataset) > MAX_AUGMENTED:
        options["augment"] = ()
    seconds = minutes * 60 * TRAIN_SHARE
    useful = useful_kimg(len(dataset))
    wanted = fixed.get("kimg", useful)

    def configured(**more: Any) -> TrainingConfig:
        return TrainingConfig.model_validate(given.model_dump() | options | more | fixed)

    # The widest network that is fast enough; the speed falls with the width.
    rate = 0.0
    for width in [fixed["width"]] if "width" in fixed else WIDTHS:
        measured = speed(configured(width=width))
        is_fast = measured * seconds >= wanted * 1000
        if is_fast or not rate:
            options["width"], rate = width, measured
        if not is_fast:
            break
    config = configured()
    kimg = fixed.get("kimg") or length(rate * seconds, useful, config.batch)
    return Choice(
        configured(
            kimg=kimg,
            snapshot_kimg=kimg / SNAPSHOTS,
            tick_kimg=kimg / TICKS,
            patience_kimg=kimg * PATIENCE,
        ),
        preset,
        rate,
        useful,
    )


def nearest_size(side: float) -> int:
    """Side that the networks can draw, nearest to ``side``."""
    return min(SIZES, key=lambda size: (abs(size - side), size))


def useful_kimg(images: int) -> float:
    """Length, in thousands of images shown, that a set of so many usually takes."""
    return USEFUL_KIMG * (images / USEFUL_IMAGES) ** GROWTH


def length(reachable: float, useful: float, batch: int) -> float:
    """Length of a run in kimg, of two digits: ``reachable`` images, or less if that is plenty."""
    kimg = max(min(reachable / 1000, ENOUGH * useful), batch / 1000)
    return float(f"{kimg:.2g}")
