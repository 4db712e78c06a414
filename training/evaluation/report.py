"""An evaluation as people and programs read it: Markdown, JSON, metrics, a picture."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from service.core.manifest import Metric
from training.data import Dataset
from training.evaluation.measure import PIXELS, SEED, AttributeScore, Evaluation, Space, ValueScore
from training.evaluation.memorisation import Memorisation, Neighbours
from training.evaluation.verifier import Accuracy
from training.plots import grids

WORST = 12
LONGEST = 200
"""Characters of a text in the manifest."""
SIDE = 64
"""Pictures are enlarged to about so many pixels."""


@dataclass(frozen=True)
class Meaning:
    """What a person must know to read a number."""

    title: str
    better: str
    blind: str
    """What it cannot see."""


COMPARED = {
    "frechet": Meaning(
        "Frechet distance",
        "lower",
        "anything but mean and covariance of the features; it falls with N, and with N below "
        "twice the number of features it is mostly that",
    ),
    "kernel": Meaning(
        "kernel distance (KID)",
        "lower",
        "what the features leave out; may be a little below 0; ± is the spread over subsets",
    ),
    "precision": Meaning(
        "precision",
        "higher",
        "variety: one image repeated may have 1, even noise, if it lies near one outlier",
    ),
    "recall": Meaning(
        "recall", "higher", "quality: samples spread over everything cover all; grows with N"
    ),
    "density": Meaning("density", "about 1", "variety; above 1, samples crowd where images are"),
    "coverage": Meaning(
        "coverage", "higher", "quality of the samples that are nobody's nearest; grows with N"
    ),
}
DUPLICATES = Meaning(
    "duplicates among the samples", "lower", "repeats that differ in brightness or by a shift"
)
RIGHT = Meaning(
    "all labels read as asked",
    "higher",
    "errors that the classifier shares; more than real images get means typical images only",
)


@dataclass(frozen=True)
class EvaluationContext:
    """An evaluation and what it was made of."""

    name: str
    shown: int
    """Images shown to the generator by then."""
    evaluation: Evaluation
    spaces: tuple[Space, ...]
    """``PIXELS`` is not among them."""
    trained: Dataset
    readers: dict[str, Accuracy]
    """How well the classifier reads each attribute; empty where there are no labels."""

    @property
    def images(self) -> int:
        return len(self.evaluation.samples)

    @property
    def against(self) -> str:
        return f"{self.images:,} images kept from training"


def metrics(told: EvaluationContext) -> tuple[Metric, ...]:
    """What the model file says of itself."""
    found = told.evaluation
    rows: list[tuple[str, float, float, str]] = []
    for close in found.closeness:
        suffix = "" if close is found.closeness[0] else f", {close.space}"
        for key, meaning in COMPARED.items():
            value, real = getattr(close.samples, key), getattr(close.real, key)
            against = f"{told.against}, in the features of {close.space}"
            rows.append((f"{meaning.title}{suffix}", value, real, against))
    rows.append((DUPLICATES.title, found.duplicates, found.real_duplicates, told.against))
    reader = "what a classifier of real images reads, and how often it reads these right"
    if found.right is not None and found.real_right is not None:
        rows.append((RIGHT.title, found.right, found.real_right, reader))
    for attribute in found.attributes:
        if attribute.right is not None and attribute.real_right is not None:
            title = f"{attribute.name} read as asked"
            rows.append((title, attribute.right, attribute.real_right, reader))
    for each in found.memorisation:
        against = f"{told.against}: 1st percentile of the distance to the nearest training image"
        title = f"distance to the nearest training image, by {each.space}"
        rows.append((title, each.samples.low, each.held_out.low, against))
    return tuple(
        Metric(
            name=title[:LONGEST],
            value=round(value, 5),
            real=round(real, 5),
            samples=told.images,
            against=against,
        )
        for title, value, real, against in rows
    )


def as_json(told: EvaluationContext) -> dict[str, Any]:
    """All of it; training images are told by their names, or by their indices."""
    found = told.evaluation
    return {
        "model": told.name,
        "images_shown": told.shown,
        "samples": {"images": told.images, "seed": SEED},
        "spaces": {space.name: space.description for space in (PIXELS, *told.spaces)},
        "metrics": [metric.model_dump() for metric in metrics(told)],
        "closeness": {
            close.space: {"samples": vars(close.samples), "real": vars(close.real)}
            for close in found.closeness
        },
        "duplicates": {"samples": found.duplicates, "real": found.real_duplicates},
        "labels": {
            "right": found.right,
            "real_right": found.real_right,
            "attributes": [_attribute_json(attribute) for attribute in found.attributes],
        },
        "memorisation": [_memorisation_json(each, told.trained) for each in found.memorisation],
        "verifier": {name: vars(accuracy) for name, accuracy in told.readers.items()},
    }


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


def _distances_json(found: Neighbours) -> dict[str, float]:
    return {"minimum": found.minimum, "low": found.low, "median": found.median}


def as_picture(told: EvaluationContext) -> bytes:
    """PNG: the samples that come nearest to training images, each above its nearest, and below them
    the held-out images that do; so in each space."""
    found = told.evaluation
    rows, captions = [], []
    for each in found.memorisation:
        for what, images, neighbours in (
            ("samples", found.samples, each.samples),
            ("held out", found.real, each.held_out),
        ):
            worst = neighbours.worst(WORST)
            rows.append(images.pixels[worst].cpu().numpy())
            rows.append(_training_images(neighbours, worst, told.trained))
            captions += [what, f"by {each.space}"]
    scale = max(1, SIDE // told.trained.images.shape[1])
    return grids.captioned_rows(np.concatenate(rows), captions, scale)


def _training_images(found: Neighbours, rows: Tensor, trained: Dataset) -> npt.NDArray[np.uint8]:
    images = trained.images[found.indices[rows].cpu().numpy()]
    mirrored = found.mirrored[rows].cpu().numpy()
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def as_markdown(told: EvaluationContext) -> str:
    """Sections of the third level, for the report and the model's card."""
    sections = [_introduction(told), _closeness(told)]
    if told.evaluation.attributes:
        sections += [_labels(told), *map(_values, told.evaluation.attributes)]
    sections.append(_memorisation(told))
    if told.readers:
        sections.append(_verifier(told))
    return "\n".join(line for section in sections for line in [*section, ""])


def _introduction(told: EvaluationContext) -> list[str]:
    spaces = [f"*{space.name}*: {space.description}." for space in told.spaces]
    return [
        f"{told.images:,} samples (0 to {told.images - 1} of seed {SEED}, labels drawn by "
        f"frequency) after {told.shown:,} images shown, against {told.against}. Beside each number "
        "stands what real images get: as many training images in place of the samples. Numbers "
        "over other N or other features cannot be compared with these.",
        "",
        f"Features: {' '.join(spaces)}",
    ]


def _closeness(told: EvaluationContext) -> list[str]:
    lines = [
        "### Fidelity and variety",
        "",
        "| metric | features | samples | real | better | cannot see |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for close in told.evaluation.closeness:
        for key, meaning in COMPARED.items():
            value, real = (_number(getattr(x, key)) for x in (close.samples, close.real))
            if key == "kernel" and close.samples.kernel_deviation is not None:
                value += f" ± {_number(close.samples.kernel_deviation)}"
            lines.append(
                f"| {meaning.title} | {close.space} | {value} | {real} | {meaning.better} "
                f"| {meaning.blind} |"
            )
    found, meaning = told.evaluation, DUPLICATES
    lines.append(
        f"| {meaning.title} | 8x8 thumbnails | {found.duplicates:.1%} | "
        f"{found.real_duplicates:.1%} | {meaning.better} | {meaning.blind} |"
    )
    return lines


def _labels(told: EvaluationContext) -> list[str]:
    found = told.evaluation
    lines = [
        "### Labels",
        "",
        "As a classifier of real images reads them, which is wrong at times itself: the column "
        "*real* is how often it reads held-out images right. H(y\\|x), in nats, is its doubt about "
        "one image, and H(y) the variety of what it reads over all (together they are the "
        "inception score); neither sees a fault that the classifier does not. Diversity, for each "
        "value, is the mean distance in the classifier's features between two images with it: best "
        "as real; less is sameness, more may be labels that are not followed; variety that is no "
        "business of the labels is not seen.",
        "",
        "| attribute | right | real | H(y\\|x) | real | H(y) | real | at most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found.attributes:
        mine, real = each.entropies, each.real_entropies
        lines.append(
            f"| {_cell(each.name)} | {_share(each.right)} | {_share(each.real_right)} | "
            f"{mine.conditional:.3f} | {real.conditional:.3f} | {mine.marginal:.3f} | "
            f"{real.marginal:.3f} | {math.log(len(each.values)):.3f} |"
        )
    lines.append(f"| all together | {_share(found.right)} | {_share(found.real_right)} | | | | | |")
    if found.right is not None and found.real_right is not None and found.right > found.real_right:
        lines += ["", f"Careful: {RIGHT.blind.split('; ')[1]}."]
    return lines


def _values(attribute: AttributeScore) -> list[str]:
    asked = "asked" if attribute.right is not None else "read"
    return [
        f"#### {_cell(attribute.name)}",
        "",
        f"| value | samples {asked} | read as asked | real images | read right | diversity | of "
        "real ones |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_value(value) for value in attribute.values),
    ]


def _value(value: ValueScore) -> str:
    return (
        f"| {_cell(value.value)} | {value.samples} | {_share(value.right)} | {value.real} | "
        f"{_share(value.real_right)} | {_number(value.diversity)} | "
        f"{_number(value.real_diversity)} |"
    )


def _memorisation(told: EvaluationContext) -> list[str]:
    lines = [
        "### Memorisation",
        "",
        "Distance to the nearest training image, mirrored ones too. Images that training never saw "
        "set the measure: samples that copy nothing come about as near as these do, now a little "
        "nearer, now a little less.",
        "",
        "| by | | minimum | 1st percentile | median |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in told.evaluation.memorisation:
        for what, found in (("samples", each.samples), ("held out", each.held_out)):
            lines.append(
                f"| {each.space} | {what} | {_number(found.minimum)} | {_number(found.low)} | "
                f"{_number(found.median)} |"
            )
    lines += ["", *(_verdict(each) for each in told.evaluation.memorisation)]
    return [
        *lines,
        "",
        "![The samples that come nearest to training images, and these](memorisation.png)",
        "",
        f"The {WORST} samples that come nearest to a training image, each above it; below, the "
        "held-out images that do. What this cannot see: a copied part of an image, or a copy that "
        "is shifted or recoloured. Images that are smoother or paler than real ones, as samples "
        "often are, come nearer to everything by pixels: then the median is lower, too.",
    ]


def _verdict(each: Memorisation) -> str:
    told = (
        f"{each.nearer:.1%} of the samples are nearer than the 1st percentile of held-out images; "
        f"that so many of the nearest are samples has a probability of {each.chance:.2g} by chance"
    )
    if each.suspicious:
        return f"- By {each.space}: **nearer than held-out images**. {told}."
    return f"- By {each.space}: as near as held-out images, as far as can be told. {told}."


def _verifier(told: EvaluationContext) -> list[str]:
    conditional = told.evaluation.right is not None
    lines = [
        "### Verifier" if conditional else "### Classifier",
        "",
        f"{'`verifier.onnx` is this classifier. ' if conditional else ''}How far the classifier "
        "can be trusted, on images that it was not trained on: its confidence is off on average by "
        "the *calibration error*, beside what that would be without calibration, and what so few "
        "images make of a confidence that is exactly true. Each half of the images was judged by "
        "the temperature of the other half.",
        "",
        "| attribute | read right | images | calibration error | without | if exactly true |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, reader in told.readers.items():
        errors = (reader.calibration_error, reader.uncalibrated_error, reader.perfect_error)
        cells = " | ".join(f"{error:.1%}" for error in errors)
        lines.append(f"| {_cell(name)} | {reader.right:.1%} | {reader.images:,} | {cells} |")
    return lines


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cell(text: str) -> str:
    """Somebody's words where Markdown must not act on them."""
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", text)
