"""Scores of a run's snapshots: samples compared with held-out images while training goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from torch import Tensor

from service.core.manifest import Attribute
from training.core.pixels import to_networks
from training.data import Dataset
from training.evaluation.copying import CopyCheck
from training.evaluation.features import FeatureNetwork
from training.evaluation.images import MAX_IMAGES, draw, rows_of
from training.evaluation.metrics import manifold
from training.evaluation.metrics.duplicates import duplicate_share, thumbnails
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.texture import Texture, TextureScores
from training.evaluation.texture import compare as compare_texture
from training.networks.augment import grey_share
from training.networks.networks import Generator
from training.runs.ranking import faults

SEED = 1
"""Seed of the samples. ``measure`` has another, so that a chosen snapshot is measured anew."""
SCORED_IMAGES = 512
"""Samples of a snapshot, about: with few held-out images, several sets of as many."""


@dataclass(frozen=True)
class Scores:
    """Scores of one snapshot, over as many samples as held-out images."""

    images: int
    """Samples, and held-out images."""
    frechet: float
    precision: float
    recall: float
    density: float
    coverage: float
    duplicates: float
    """Share of samples that nearly equal another sample; about 0.01 for real images."""
    labels_right: float | None
    """Share of samples of which all labels are read as requested; None for an unconditional
    model."""
    attributes_right: dict[str, float]
    """Share of samples read as requested, for each attribute."""
    grey: float
    """Share of samples that look augmented."""
    copied: float
    """Share of samples that repeat a training image, at least; 0 if chance explains all."""
    texture: TextureScores

    def line(self) -> dict[str, float]:
        """Flat entry for the log, rounded to 4 digits."""
        values = asdict(self)
        each = {f"{name}_right": share for name, share in values.pop("attributes_right").items()}
        del values["texture"]
        flat = values | each | self.texture.line()
        return {name: round(value, 4) for name, value in flat.items() if value is not None}


class Scorer:
    """Held-out images, and the feature space in which samples are compared with them.

    The kernel distance is left out: 5 s on a CPU core for 2,048 images, against 4 s for the rest.
    """

    def __init__(
        self,
        held_out: Dataset,
        network: FeatureNetwork,
        augmentations: Sequence[str],
        trained: Dataset,
    ) -> None:
        """``held_out`` has at least ``images.MIN_IMAGES``; at most ``images.MAX_IMAGES`` are
        used."""
        self.network = network
        self.attributes = held_out.attributes
        self.augmentations = augmentations
        device = next(network.parameters()).device
        real = rows_of(held_out, held_out.spread(MAX_IMAGES), device)
        self.labels = real.labels
        self.count = len(real)
        self.seeds = [SEED + 100 * number for number in range(max(1, SCORED_IMAGES // self.count))]
        self.real = network.features(real.pixels)
        self.real_thumbnails = thumbnails(real.pixels)
        self.real_texture = Texture.of(real.pixels)
        self.real_grey = grey_share(to_networks(real.pixels), augmentations)
        self.copies = CopyCheck(trained, held_out, device)

    def line(self, generator: Generator) -> dict[str, float]:
        """Entry for the log: means over the sets of samples.

        Of several sets, ``faults_error`` is the relative standard error of the ``faults``.
        """
        lines = [self.measure(generator, seed).line() for seed in self.seeds]
        if len(lines) == 1:
            return lines[0]
        products = [faults(line) for line in lines]
        means = {name: round(fmean(line[name] for line in lines), 4) for name in lines[0]}
        mean = fmean(products)
        error = stdev(products) / math.sqrt(len(products)) / mean if mean else 0.0
        return means | {"images": self.count, "faults_error": round(error, 4)}

    def measure(self, generator: Generator, seed: int = SEED) -> Scores:
        """Score images 0, 1, 2 ... of ``seed``, equal to those that the service computes."""
        attributes: Sequence[Attribute] = self.attributes if generator.condition_size else ()
        samples = draw(generator, attributes, self.count, seed)
        features = self.network.features(samples.pixels)
        right = self.network.read(features) == samples.labels if attributes else None
        return self._scores(samples.pixels, features, right, self.copies.share(samples.pixels))

    def reference(self, trained: Dataset) -> Scores:
        """Scores of as many training images in place of samples: those of a perfect generator.

        The labels are those of held-out images, which the network was not trained to read.
        """
        device = self.real.device
        pixels = rows_of(trained, trained.spread(self.count), device).pixels
        right = self.network.read(self.real) == self.labels if self.attributes else None
        return self._scores(pixels, self.network.features(pixels), right, copied=0.0)

    def _scores(
        self, pixels: Tensor, features: Tensor, right: Tensor | None, copied: float
    ) -> Scores:
        """Compare ``pixels`` and their ``features``; ``right [N, A]`` says which labels are."""
        return Scores(
            images=self.count,
            frechet=frechet_distance(self.real, features),
            duplicates=duplicate_share(thumbnails(pixels), self.real_thumbnails),
            labels_right=None if right is None else float(right.all(dim=1).float().mean()),
            attributes_right={}
            if right is None
            else {
                attribute.name: float(right[:, a].float().mean())
                for a, attribute in enumerate(self.attributes)
            },
            grey=grey_share(to_networks(pixels), self.augmentations),
            copied=copied,
            texture=compare_texture(self.real_texture, Texture.of(pixels)),
            **manifold.compare(self.real, features)._asdict(),
        )
