"""Sentences on what a build will not give, printed before it trains. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from training.audit.audit import FEW, QuickReport
from training.core.durations import duration
from training.data import HELD_OUT_SHARE, Dataset
from training.errors import DataError
from training.evaluation.images import limits
from training.pipeline.choices import TRAIN_SHARE, Choice, useful_kimg

MIN_DISTINCT = 100
"""Different images without which there is no build: a tenth of them says nothing of the rest."""
MAX_CONFLICTS = 0.1
"""Largest share of images that repeat another one under another label."""
ERROR = 0.05
"""Half of a 95 % interval of a share, such as coverage, at which models can be compared."""
MIN_ALIGNED = 0.15
"""Least share of the variation that the mean image explains. It is 49 % of the drawn avatars, 37 %
of MNIST, 26 % of the anime faces, and 10 % of 994 icons of a desktop theme."""
LARGEST = 128
"""Side in pixels up to which these networks draw well."""
RARE = 0.1
"""Share of the most frequent value's images below which a value is drawn poorly."""
SHORT = 0.5
"""Share of the useful length below which a run is said to be short."""


def check(dataset: Dataset, report: QuickReport) -> None:
    """Raise ``DataError`` if no model can be made of ``dataset``."""
    distinct = len(dataset) - len(report.duplicates) - len(report.mirrored)
    problems = []
    if distinct < MIN_DISTINCT:
        problems.append(
            f"{distinct} different images are too few: a model would repeat them, and nothing "
            f"could be said of it. At least {MIN_DISTINCT} are needed, and 1,000 are a start. "
            "`train` takes fewer"
        )
    if len(report.conflicts) > MAX_CONFLICTS * len(dataset):
        problems.append(
            f"{len(report.conflicts)} of {len(dataset)} images are in the data again under another "
            f"label: `figment audit` lists them; --unconditional learns without labels"
        )
    if problems:
        raise DataError(dataset.name, problems)


def outlook(
    dataset: Dataset, choice: Choice, minutes: float, native_side: float | None
) -> list[str]:
    """Sentences on what will be missing; empty if nothing is known to be."""
    return [
        *_few(dataset, choice),
        *_unlike(dataset),
        *_size(dataset, native_side),
        *_rare(dataset),
        *_short(choice, minutes),
    ]


def _few(dataset: Dataset, choice: Choice) -> Iterator[str]:
    held = int(dataset.held_out(choice.config.hold_out).sum())
    if lacking := limits(held):
        yield lacking
    elif (error := 0.98 / math.sqrt(held)) > ERROR:
        needed = math.ceil((0.98 / ERROR) ** 2 / HELD_OUT_SHARE / 100) * 100
        yield (
            f"few images: {held} are held out, so shares such as coverage and labels read right "
            f"are known to ±{error:.0%}. {needed:,} images would make it ±{ERROR:.0%}"
        )


def remedy(images: int, kimg: float) -> str:
    """Remedy for a run of so many kimg that learnt too little."""
    useful = useful_kimg(images)
    if kimg < SHORT * useful:
        return (
            f"It was short, {kimg:g} of about {useful:.0f} kimg: build under another --name with "
            "more --minutes"
        )
    return "Build under another --name with more images, of one kind and cropped alike"


def _unlike(dataset: Dataset) -> Iterator[str]:
    share = aligned(dataset)
    if share < MIN_ALIGNED:
        yield (
            f"the images are unlike each other: their mean explains {share:.0%} of their variation "
            "(26% of faces that are cropped alike). Expect shapes and colours rather than "
            "things one can name; images of one kind, cropped alike, are learnt far better"
        )


def aligned(dataset: Dataset) -> float:
    """Share of the variation of all pixels that the mean image explains, 0 to 1."""
    images = dataset.images[dataset.spread(2048)].astype(np.float32)
    total = np.square(images - images.mean(axis=(0, 1, 2))).mean()
    rest = np.square(images - images.mean(axis=0)).mean()
    return float(1 - rest / total) if total else 1.0


def _size(dataset: Dataset, native_side: float | None) -> Iterator[str]:
    side = dataset.images.shape[1]
    if native_side is not None and native_side < side:
        yield (
            f"small images: most are {native_side:.0f} pixels a side, and are enlarged to {side} "
            "without more detail"
        )
    if side > LARGEST:
        yield (
            f"--size {side} is more than a DCGAN draws well: above {LARGEST} expect blots where "
            "there should be details"
        )


def _rare(dataset: Dataset) -> Iterator[str]:
    for attribute, column in zip(dataset.attributes, dataset.labels.T, strict=True):
        counts = np.bincount(column, minlength=len(attribute.values))
        most = int(counts.argmax())
        poor = [
            f"{attribute.values[value]} ({counts[value]:,})"
            for value in np.argsort(counts, kind="stable").tolist()
            if FEW <= counts[value] < RARE * counts[most]
        ]
        if poor:
            more = f" and {len(poor) - 5} more" if len(poor) > 5 else ""
            yield (
                f"{attribute.name} is unbalanced: beside {attribute.values[most]} "
                f"({counts[most]:,}), expect poor images of {', '.join(poor[:5])}{more}"
            )


def _short(choice: Choice, minutes: float) -> Iterator[str]:
    config = choice.config
    reachable = minutes * 60 * TRAIN_SHARE * choice.rate / 1000
    if max(config.kimg, reachable) < SHORT * choice.useful_kimg:
        needed = choice.useful_kimg * 1000 / choice.rate
        yield (
            f"too slow for {minutes:g} minutes: {choice.rate:.0f} images/s give {config.kimg:g} "
            f"kimg, and so many images usually take {choice.useful_kimg:.0f} "
            f"({duration(needed)}). Expect the right colours and rough shapes. Give it "
            "more --minutes, a smaller --size, or a GPU"
        )
