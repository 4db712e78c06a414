"""Samples measured against images that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from service.core import latents
from service.core.manifest import Attribute
from training.core.pixels import to_networks
from training.data import Dataset
from training.evaluation.features import FeatureNetwork
from training.evaluation.metrics import manifold
from training.evaluation.metrics.duplicates import duplicate_share, thumbnails
from training.evaluation.metrics.frechet import frechet_distance
from training.networks.augment import grey_share
from training.networks.networks import Generator
from training.runs import sampling

FEWEST = 32
MOST = 2048
SEED = 1


@dataclass(frozen=True)
class Scores:
    """What one snapshot of a generator is worth, over as many samples as held-out images."""

    images: int
    """How many."""
    frechet: float
    precision: float
    recall: float
    density: float
    coverage: float
    duplicates: float
    """Share of samples that are nearly another sample; about 0.01 for real images."""
    labels_right: float | None
    """Share of samples whose every label is read as asked; None for an unconditional model."""
    attributes_right: dict[str, float]
    """The same of each attribute alone."""
    grey: float
    """Share of samples that look augmented."""

    def line(self) -> dict[str, float]:
        """Flat, for the log."""
        values = asdict(self)
        each = {f"{name}_right": share for name, share in values.pop("attributes_right").items()}
        return {
            name: round(value, 4) for name, value in (values | each).items() if value is not None
        }


class Scorer:
    """Held-out images and the feature space to compare samples with them in."""

    def __init__(
        self, held_out: Dataset, network: FeatureNetwork, augmentations: Sequence[str]
    ) -> None:
        """``held_out`` has at least ``FEWEST`` images; at most ``MOST`` are used."""
        self.network = network
        self.device = next(network.parameters()).device
        self.attributes = held_out.attributes
        self.augmentations = augmentations
        real = torch.from_numpy(held_out.images[held_out.spread(MOST)]).to(self.device)
        self.count = len(real)
        self.real = network.features(real)
        self.real_thumbnails = thumbnails(real)
        self.real_grey = grey_share(to_networks(real), augmentations)

    def measure(self, generator: Generator) -> Scores:
        """Measure images 0, 1, 2 ... of a seed of its own, as the service would answer."""
        attributes: Sequence[Attribute] = self.attributes if generator.condition_size else ()
        labels = latents.draw_labels(SEED, 0, self.count, attributes)
        latent = latents.latents(SEED, 0, self.count, generator.latent_size)
        pixels = sampling.sample(generator, latent, labels, attributes)
        samples = torch.from_numpy(pixels).to(self.device)
        features = self.network.features(samples)
        compared = manifold.compare(self.real, features)
        right = self._right(features, torch.from_numpy(labels).to(self.device))
        return Scores(
            images=self.count,
            frechet=frechet_distance(self.real, features),
            precision=compared.precision,
            recall=compared.recall,
            density=compared.density,
            coverage=compared.coverage,
            duplicates=duplicate_share(thumbnails(samples), self.real_thumbnails),
            labels_right=float(right.all(dim=1).float().mean()) if attributes else None,
            attributes_right={
                attribute.name: float(right[:, a].float().mean())
                for a, attribute in enumerate(attributes)
            },
            grey=grey_share(to_networks(samples), self.augmentations),
        )

    def _right(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.network.read(features) == labels if labels.shape[1] else labels.bool()
