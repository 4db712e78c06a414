"""Measure a generator against held-out images; every result is a plain number.

Pure but for the networks that are passed in. ``report`` and ``report_markdown`` write the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.device import CPU
from training.core.randomness import batch_indices
from training.data import Dataset
from training.evaluation.failures import Failures, failures
from training.evaluation.images import MAX_IMAGES, Images, draw, rows_of
from training.evaluation.label_scores import AttributeScore, read_labels, score_attribute, share
from training.evaluation.memorisation import Embedding, Memorisation, memorisation, pixels
from training.evaluation.metrics import manifold
from training.evaluation.metrics.duplicates import duplicate_share, thumbnails
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.metrics.kernel import kernel_distance
from training.evaluation.texture import Texture, TextureScores
from training.evaluation.texture import compare as compare_texture
from training.evaluation.verifier import Verifier
from training.networks.marginal import Marginal
from training.networks.networks import Generator

SEED = 2
"""Seed of the samples. ``snapshot_scores``, by which snapshots are chosen, has another seed."""


@dataclass(frozen=True)
class Space:
    """Features in which images are compared."""

    name: str
    """Short, such as ``classifier``."""
    description: str
    """Explains the features to a reader of the report."""
    embed: Embedding


PIXELS = Space("pixels", "root mean square of the differences of pixels, of 255", pixels)


@dataclass(frozen=True)
class Comparison:
    """Distances and coverage between a set of images and as many held-out images."""

    frechet: float
    kernel: float
    kernel_deviation: float | None
    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Closeness:
    """Comparison of samples with held-out images in one space."""

    space: str
    samples: Comparison
    real: Comparison
    """Reference: as many training images, compared in the same way."""


@dataclass(frozen=True)
class Evaluation:
    """Results for samples 0, 1, 2 ... of seed 2, with labels drawn by frequency."""

    samples: Images
    real: Images
    """As many held-out images."""
    closeness: tuple[Closeness, ...]
    """One for each space; the classifier's is first."""
    attributes: tuple[AttributeScore, ...]
    right: float | None
    """Share of samples of which all labels are read as requested."""
    real_right: float | None
    """Share of held-out images of which all labels are read right."""
    failures: tuple[Failures, ...]
    """Samples that are read wrong or with least certainty; empty for data without labels."""
    duplicates: float
    real_duplicates: float
    texture: TextureScores
    real_texture: TextureScores
    """Reference: as many training images, compared in the same way."""
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
    """Measure ``generator`` against ``held_out``, which has at least ``images.MIN_IMAGES`` images.

    The first of ``spaces`` is the classifier's. ``verifier`` reads labels; None for data without
    labels. ``progress`` is called with a short sentence at the start of each part.
    """
    device = next(generator.parameters()).device
    count = min(len(held_out), len(trained), MAX_IMAGES)
    real = rows_of(held_out, held_out.spread(count), device)
    others = rows_of(trained, batch_indices(0, len(trained), 0, count, CPU).numpy(), device)
    progress(f"drawing {count} samples")
    conditional = generator.condition_size > 0
    samples = draw(generator, held_out.attributes if conditional else (), count, SEED)

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
    failed: tuple[Failures, ...] = ()
    if verifier is not None:
        progress("reading labels")
        embed = spaces[0].embed
        of_samples = read_labels(verifier, samples, embed(samples.pixels), labelled=conditional)
        of_real = read_labels(verifier, real, embed(real.pixels), labelled=True)
        attributes = tuple(
            score_attribute(a, attribute, of_samples, of_real, conditional)
            for a, attribute in enumerate(held_out.attributes)
        )
        failed = failures(of_samples, held_out.attributes, conditional)
        real_right = share(of_real.right.all(dim=1))
        right = share(of_samples.right.all(dim=1)) if conditional else None

    progress("comparing texture")
    textures = [Texture.of(images.pixels) for images in (samples, others, real)]
    progress("searching the training images for copies of samples")
    everything = torch.from_numpy(trained.images).to(device)
    thumbs = [thumbnails(images.pixels) for images in (samples, others, real)]
    return Evaluation(
        samples=samples,
        real=real,
        closeness=tuple(closeness),
        attributes=attributes,
        right=right,
        real_right=real_right,
        failures=failed,
        duplicates=duplicate_share(thumbs[0], thumbs[2]),
        real_duplicates=duplicate_share(thumbs[1], thumbs[2]),
        texture=compare_texture(textures[2], textures[0]),
        real_texture=compare_texture(textures[2], textures[1]),
        memorisation=tuple(
            memorisation(space.name, space.embed, everything, real.pixels, samples.pixels)
            for space in (PIXELS, spaces[0])
        ),
    )


def compare(real: Tensor, features: Tensor) -> Comparison:
    """Compare ``features [N, D]`` of a set of images with those of real ones, ``real [M, D]``."""
    kernel = kernel_distance(real, features)
    covered = manifold.compare(real, features)
    return Comparison(
        frechet=frechet_distance(real, features),
        kernel=kernel.value,
        kernel_deviation=kernel.deviation,
        **covered._asdict(),
    )
