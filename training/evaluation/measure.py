"""How good a generator is: everything that is measured of it, as plain numbers.

Pure but for the networks that are passed in: ``evaluation_report`` tells it to people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.core import latents
from service.core.manifest import Attribute
from training.core.randomness import batch_indices
from training.data import Dataset
from training.evaluation.memorisation import Embedding, Memorisation, memorisation, pixels
from training.evaluation.metrics import manifold
from training.evaluation.metrics.diversity import diversity
from training.evaluation.metrics.duplicates import duplicate_share, thumbnails
from training.evaluation.metrics.entropy import Entropies, entropies
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.metrics.kernel import kernel_distance
from training.evaluation.snapshot_scores import MOST
from training.evaluation.verifier import Verifier
from training.networks.marginal import Marginal
from training.networks.networks import Generator
from training.runs import sampling

SEED = 2
"""Of the samples. Snapshots are chosen by those of another seed (``scores``)."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Images:
    """Images ``[N, H, W, channels]`` on the device, and their labels ``[N, A]``."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Space:
    """Features to compare images in."""

    name: str
    """Short, such as ``classifier``."""
    description: str
    """What a reader of a number must know of it."""
    embed: Embedding


PIXELS = Space("pixels", "root mean square of the differences of pixels, of 255", pixels)


@dataclass(frozen=True)
class Comparison:
    """A set of images against as many held-out ones."""

    frechet: float
    kernel: float
    kernel_deviation: float | None
    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Closeness:
    """How close samples come to held-out images in one space."""

    space: str
    samples: Comparison
    real: Comparison
    """The floor: as many training images, compared in the same way."""


@dataclass(frozen=True)
class ValueScore:
    """Images with one value of an attribute.

    Of samples, those asked for it, or read as it where the model is unconditional; of held-out
    images, those labelled with it.
    """

    value: str
    samples: int
    right: float | None
    """Share of them that the classifier reads as asked; None where nothing can be asked."""
    diversity: float | None
    """Mean distance between two of them; None where there are fewer than two."""
    real: int
    real_right: float | None
    real_diversity: float | None


@dataclass(frozen=True)
class AttributeScore:
    name: str
    right: float | None
    """Share of the samples that are read as asked; None where nothing can be asked."""
    real_right: float | None
    """Share of the held-out images that are read right."""
    entropies: Entropies
    real_entropies: Entropies
    values: tuple[ValueScore, ...]


@dataclass(frozen=True)
class Evaluation:
    """Of samples 0, 1, 2 ... of seed 2, labels drawn by frequency."""

    samples: Images
    real: Images
    """As many held-out images."""
    closeness: tuple[Closeness, ...]
    """In each space; that of the classifier first."""
    attributes: tuple[AttributeScore, ...]
    right: float | None
    """Share of samples whose every label is read as asked."""
    real_right: float | None
    """Share of held-out images whose every label is read right."""
    duplicates: float
    real_duplicates: float
    memorisation: tuple[Memorisation, ...]
    """By pixels, and in the classifier's features."""


def evaluate(
    generator: Generator | Marginal,
    trained: Dataset,
    held_out: Dataset,
    spaces: Sequence[Space],
    verifier: Verifier | None,
    progress: Callable[[str], None],
) -> Evaluation:
    """Measure ``generator`` against ``held_out``, which has at least ``scores.FEWEST`` images.

    The first of ``spaces`` is the classifier's, whose ``verifier`` reads labels; it is None where
    the data has none. ``progress`` is told of each part before it begins.
    """
    device = next(generator.parameters()).device
    count = min(len(held_out), len(trained), MOST)
    real = _images(held_out, held_out.spread(count), device)
    others = _images(trained, batch_indices(0, len(trained), 0, count, CPU).numpy(), device)
    progress(f"drawing {count} samples")
    conditional = generator.condition_size > 0
    samples = draw(generator, held_out.attributes if conditional else (), count)

    closeness = []
    for space in spaces:
        progress(f"comparing features of {space.name}")
        features = space.embed(real.pixels)
        closeness.append(
            Closeness(
                space.name,
                samples=compare(features, space.embed(samples.pixels)),
                real=compare(features, space.embed(others.pixels)),
            )
        )
    attributes: tuple[AttributeScore, ...] = ()
    right = real_right = None
    if verifier is not None:
        progress("reading labels")
        embed = spaces[0].embed
        mine = _read(verifier, samples, embed(samples.pixels), asked=conditional)
        theirs = _read(verifier, real, embed(real.pixels), asked=True)
        attributes = tuple(
            _attribute(a, attribute, mine, theirs, conditional)
            for a, attribute in enumerate(held_out.attributes)
        )
        real_right = _share(theirs.right.all(dim=1))
        right = _share(mine.right.all(dim=1)) if conditional else None

    progress("looking for training images among the samples")
    everything = torch.from_numpy(trained.images).to(device)
    thumbs = [thumbnails(images.pixels) for images in (samples, others, real)]
    return Evaluation(
        samples=samples,
        real=real,
        closeness=tuple(closeness),
        attributes=attributes,
        right=right,
        real_right=real_right,
        duplicates=duplicate_share(thumbs[0], thumbs[2]),
        real_duplicates=duplicate_share(thumbs[1], thumbs[2]),
        memorisation=tuple(
            memorisation(space.name, space.embed, everything, real.pixels, samples.pixels)
            for space in (PIXELS, spaces[0])
        ),
    )


def draw(
    generator: Generator | Marginal, attributes: Sequence[Attribute], count: int, seed: int = SEED
) -> Images:
    """Images 0 to ``count - 1`` of ``seed``, as the service would answer."""
    device = next(generator.parameters()).device
    labels = latents.draw_labels(seed, 0, count, attributes)
    drawn = sampling.fixed_samples(generator, attributes, count, seed)
    return Images(torch.from_numpy(drawn).to(device), torch.from_numpy(labels).to(device))


def compare(real: Tensor, features: Tensor) -> Comparison:
    """Features ``[N, D]`` of a set of images with those of ``real [M, D]`` ones."""
    kernel = kernel_distance(real, features)
    found = manifold.compare(real, features)
    return Comparison(
        frechet=frechet_distance(real, features),
        kernel=kernel.value,
        kernel_deviation=kernel.deviation,
        precision=found.precision,
        recall=found.recall,
        density=found.density,
        coverage=found.coverage,
    )


@dataclass(frozen=True)
class _Reading:
    """What a verifier sees in images."""

    probabilities: tuple[Tensor, ...]
    """Of each attribute, ``[N, values]``."""
    labels: Tensor
    """``[N, A]``: the true ones, those asked for, or those read where nothing was asked."""
    right: Tensor
    """bool ``[N, A]``: whether they are read."""
    features: Tensor


def _read(verifier: Verifier, images: Images, features: Tensor, *, asked: bool) -> _Reading:
    with torch.no_grad():
        parts = [verifier.of_features(part) for part in features.split(256)]
    probabilities = tuple(torch.cat(attribute) for attribute in zip(*parts, strict=True))
    read = torch.stack([each.argmax(dim=1) for each in probabilities], dim=1)
    labels = images.labels if asked else read
    return _Reading(probabilities, labels, read == labels, features)


def _attribute(
    a: int, attribute: Attribute, samples: _Reading, real: _Reading, conditional: bool
) -> AttributeScore:
    values = []
    for v, value in enumerate(attribute.values):
        rows, real_rows = samples.labels[:, a] == v, real.labels[:, a] == v
        values.append(
            ValueScore(
                value=value,
                samples=int(rows.sum()),
                right=_share(samples.right[rows, a]) if conditional else None,
                diversity=_diversity(samples.features[rows]),
                real=int(real_rows.sum()),
                real_right=_share(real.right[real_rows, a]),
                real_diversity=_diversity(real.features[real_rows]),
            )
        )
    return AttributeScore(
        name=attribute.name,
        right=_share(samples.right[:, a]) if conditional else None,
        real_right=_share(real.right[:, a]),
        entropies=entropies(samples.probabilities[a]),
        real_entropies=entropies(real.probabilities[a]),
        values=tuple(values),
    )


def _share(which: Tensor) -> float | None:
    return float(which.float().mean()) if len(which) else None


def _diversity(features: Tensor) -> float | None:
    return diversity(features) if len(features) > 1 else None


def _images(dataset: Dataset, rows: np.ndarray, device: torch.device) -> Images:
    return Images(
        torch.from_numpy(dataset.images[rows]).to(device),
        torch.from_numpy(dataset.labels[rows]).to(device),
    )
