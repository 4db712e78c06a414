"""An evaluation as JSON, as the metrics of a manifest, and as a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from service.core.manifest import Metric
from training.data import Dataset
from training.evaluation.label_scores import AttributeScore
from training.evaluation.measure import PIXELS, SEED, Evaluation, Space
from training.evaluation.memorisation import Memorisation, Neighbours
from training.evaluation.privacy import Privacy
from training.evaluation.repeats import Spread
from training.evaluation.verifier import Accuracy
from training.plots import grids
from training.runs.run import MIN_SHARE_IMAGES, SHARES

WORST = 12
"""Images that are listed and shown, those nearest to a training image."""
MAX_NAME_LENGTH = 200
"""Characters that a manifest allows in a metric's name."""
SIDE = 64
"""Pixels to which small images are enlarged, about."""
CELL = 112
"""Pixels to which failure cases are enlarged, at least: a caption is as wide."""


@dataclass(frozen=True)
class Explanation:
    """Title, direction and limits of a metric, for a reader of the report."""

    title: str
    better: str
    blind: str
    """Faults that the metric does not show."""


COMPARED = {
    "frechet": Explanation(
        "Frechet distance",
        "lower",
        "anything but mean and covariance of the features; it falls with N, and with N below "
        "twice the number of features it depends mostly on N",
    ),
    "kernel": Explanation(
        "kernel distance (KID)",
        "lower",
        "what the features leave out; may be slightly below 0; ± is the deviation over subsets",
    ),
    "precision": Explanation(
        "precision",
        "higher",
        "variety: a single repeated image may reach 1; so may noise near one outlier",
    ),
    "recall": Explanation(
        "recall", "higher", "quality: samples scattered everywhere cover all images; grows with N"
    ),
    "density": Explanation(
        "density", "about 1", "variety; above 1, samples crowd where images are"
    ),
    "coverage": Explanation(
        "coverage", "higher", "quality of samples that are nearest to no real image; grows with N"
    ),
}


def stated(images: int) -> dict[str, Explanation]:
    """Measures of ``COMPARED`` for which so many held-out images suffice."""
    few = images < MIN_SHARE_IMAGES
    return {name: each for name, each in COMPARED.items() if not (few and name in SHARES)}


DUPLICATES = Explanation(
    "duplicates among the samples", "lower", "repeats that differ in brightness or by a shift"
)
PYRAMID = Explanation(
    "pyramid distance (SWD, x1000)", "lower", "contrast, and what a patch belongs to; falls with N"
)
FINE = Explanation("power of fine details, dB", "0", "details of another shape and equal power")
HATCH = Explanation(
    "power of hatch, dB", "0", "patterns coarser than a checkerboard of single pixels"
)
RIGHT = Explanation(
    "all labels read as asked",
    "higher",
    "errors that the classifier shares; a higher share than for real images means that samples "
    "are typical images only",
)


@dataclass(frozen=True)
class EvaluationContext:
    """An evaluation, with the model and the data that it is about."""

    name: str
    shown: int
    """Images shown during training up to this snapshot."""
    evaluation: Evaluation
    spaces: tuple[Space, ...]
    """Spaces of the comparison; ``PIXELS`` is not among them."""
    trained: Dataset
    spread: tuple[Spread, Spread]
    """Error bars of samples and of training images, in the first space."""
    privacy: Privacy
    readers: dict[str, Accuracy]
    """The classifier's accuracy for each attribute; empty for data without labels."""

    @property
    def images(self) -> int:
        return len(self.evaluation.samples)

    @property
    def against(self) -> str:
        return f"{self.images:,} images kept from training"


def metrics(context: EvaluationContext) -> tuple[Metric, ...]:
    """Metrics for the manifest of the model file."""
    evaluation = context.evaluation
    rows: list[tuple[str, float, float, str]] = []
    for close in evaluation.closeness:
        suffix = "" if close is evaluation.closeness[0] else f", {close.space}"
        for key, explanation in stated(context.images).items():
            value, real = getattr(close.samples, key), getattr(close.real, key)
            against = f"{context.against}, in the features of {close.space}"
            rows.append((f"{explanation.title}{suffix}", value, real, against))
    rows.append(
        (DUPLICATES.title, evaluation.duplicates, evaluation.real_duplicates, context.against)
    )
    for title, _, value, real in texture_rows(context):
        rows.append((title, value, real, context.against))
    reader = "what a classifier of real images reads, and how often it reads these right"
    if evaluation.right is not None and evaluation.real_right is not None:
        rows.append((RIGHT.title, evaluation.right, evaluation.real_right, reader))
    for attribute in evaluation.attributes:
        if attribute.right is not None and attribute.real_right is not None:
            title = f"{attribute.name} read as asked"
            rows.append((title, attribute.right, attribute.real_right, reader))
    for each in evaluation.memorisation:
        against = f"{context.against}: 1st percentile of the distance to the nearest training image"
        title = f"distance to the nearest training image, by {each.space}"
        rows.append((title, each.samples.low, each.held_out.low, against))
    return tuple(
        Metric(
            name=title[:MAX_NAME_LENGTH],
            value=round(value, 5),
            real=round(real, 5),
            samples=context.images,
            against=against,
        )
        for title, value, real, against in rows
    )


def texture_rows(
    context: EvaluationContext,
) -> list[tuple[str, Explanation, float, float]]:
    """Title, explanation, value and real value of each measure of texture."""
    found = context.evaluation.texture.line()
    real = context.evaluation.real_texture.line()
    explained = {"fine": FINE, "hatch": HATCH}
    rows = []
    for name in found:
        explanation = explained.get(name, PYRAMID)
        level = "" if name in explained else f" at {name.removeprefix('pyramid_')} pixels"
        rows.append((f"{explanation.title}{level}", explanation, found[name], real[name]))
    return rows


def as_json(context: EvaluationContext) -> dict[str, Any]:
    """Full report as JSON; a training image is given by its name, or by its index without names."""
    evaluation = context.evaluation
    return {
        "model": context.name,
        "images_shown": context.shown,
        "samples": {"images": context.images, "seed": SEED},
        "spaces": {space.name: space.description for space in (PIXELS, *context.spaces)},
        "metrics": [metric.model_dump() for metric in metrics(context)],
        "closeness": {
            close.space: {"samples": vars(close.samples), "real": vars(close.real)}
            for close in evaluation.closeness
        },
        "duplicates": {"samples": evaluation.duplicates, "real": evaluation.real_duplicates},
        "texture": {
            "samples": evaluation.texture.line(),
            "real": evaluation.real_texture.line(),
        },
        "labels": {
            "right": evaluation.right,
            "real_right": evaluation.real_right,
            "attributes": [_attribute_json(attribute) for attribute in evaluation.attributes],
        },
        "failures": [asdict(each) for each in evaluation.failures],
        "memorisation": [
            _memorisation_json(each, context.trained) for each in evaluation.memorisation
        ],
        "spread": {
            role: {name: asdict(x) for name, x in spread.items()}
            for role, spread in zip(("samples", "real"), context.spread, strict=True)
        },
        "privacy": _privacy_json(context.privacy),
        "verifier": {name: vars(accuracy) for name, accuracy in context.readers.items()},
    }


def _privacy_json(found: Privacy) -> dict[str, Any]:
    attacks = [asdict(attack) | {"alarming": attack.alarming} for attack in found.attacks]
    return asdict(found) | {"attacks": attacks}


def _attribute_json(attribute: AttributeScore) -> dict[str, Any]:
    return vars(attribute) | {
        "entropies": attribute.entropies._asdict(),
        "real_entropies": attribute.real_entropies._asdict(),
        "values": [vars(value) for value in attribute.values],
    }


def _memorisation_json(each: Memorisation, trained: Dataset) -> dict[str, Any]:
    return {
        "space": each.space,
        "samples": _distances_json(each.samples),
        "held_out": _distances_json(each.held_out),
        "nearer": each.nearer,
        "worst": [
            {
                "index": row,
                "training_image": trained.title(int(each.samples.indices[row])),
                "mirrored": bool(each.samples.mirrored[row]),
                "distance": float(each.samples.distances[row]),
            }
            for row in each.samples.worst(WORST).tolist()
        ],
    }


def _distances_json(neighbours: Neighbours) -> dict[str, float]:
    return {"minimum": neighbours.minimum, "low": neighbours.low, "median": neighbours.median}


def as_picture(context: EvaluationContext) -> bytes:
    """PNG of the samples nearest to training images, each above its nearest training image.

    The nearest held-out images follow in the same way, and both again in the next space.
    """
    evaluation = context.evaluation
    rows, captions = [], []
    for each in evaluation.memorisation:
        for title, images, neighbours in (
            ("samples", evaluation.samples, each.samples),
            ("held out", evaluation.real, each.held_out),
        ):
            worst = neighbours.worst(WORST)
            rows.append(images.pixels[worst].cpu().numpy())
            rows.append(_training_images(neighbours, worst, context.trained))
            captions += [title, f"by {each.space}"]
    scale = max(1, SIDE // context.trained.images.shape[1])
    return grids.captioned_rows(np.concatenate(rows), captions, scale)


def failures_picture(context: EvaluationContext) -> bytes:
    """PNG of the failure cases, each with what was asked for and what is read."""
    pixels = context.evaluation.samples.pixels
    rows = [
        (
            row.title,
            pixels[[case.index for case in row.cases]].cpu().numpy(),
            [case.caption for case in row.cases],
        )
        for row in context.evaluation.failures
    ]
    return grids.captioned_images(rows, max(1, -(-CELL // context.trained.images.shape[2])))


def _training_images(
    neighbours: Neighbours, rows: Tensor, trained: Dataset
) -> npt.NDArray[np.uint8]:
    images = trained.images[neighbours.indices[rows].cpu().numpy()]
    mirrored = neighbours.mirrored[rows].cpu().numpy()
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
