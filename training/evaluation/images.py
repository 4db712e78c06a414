"""Sets of labelled images to compare: held-out images, training images and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.core import latents
from service.core.manifest import Attribute
from training.data import Dataset
from training.networks.marginal import Marginal
from training.networks.networks import Generator
from training.runs import sampling
from training.runs.run import MIN_SHARE_IMAGES, SHARES

MIN_IMAGES = 32
"""Held-out images without which nothing is measured."""
MAX_IMAGES = 2048
"""Images on each side of a comparison: distances between all pairs fit into memory."""


def limits(count: int) -> str | None:
    """Sentence on what ``count`` held-out images are too few for; None if they suffice."""
    if count < MIN_IMAGES:
        return (
            f"{count} held-out images are too few (below {MIN_IMAGES}) to score snapshots: only "
            "divergence will be detected, the last snapshot counts as the best, and the model "
            "gets no evaluation and no verifier. Add images, or use a larger --hold-out"
        )
    if count < MIN_SHARE_IMAGES:
        return (
            f"{count} held-out images are few (below {MIN_SHARE_IMAGES}): {', '.join(SHARES)} "
            "are not stated, and the share of labels read right is uncertain by up to "
            f"{100 / math.sqrt(count):.0f} points"
        )
    return None


@dataclass(frozen=True)
class Images:
    """Images on the device, with their labels."""

    pixels: Tensor
    """uint8 ``[N, H, W, channels]``."""
    labels: Tensor
    """int64 ``[N, A]``."""

    def __len__(self) -> int:
        return len(self.pixels)


def rows_of(dataset: Dataset, rows: npt.NDArray[np.intp], device: torch.device) -> Images:
    """The images of ``dataset`` at the indices ``rows [N]``."""
    return Images(
        torch.from_numpy(dataset.images[rows]).to(device),
        torch.from_numpy(dataset.labels[rows]).to(device),
    )


def draw(
    generator: Generator | Marginal, attributes: Sequence[Attribute], count: int, seed: int
) -> Images:
    """Images 0 to ``count - 1`` of ``seed``, equal to those that the service computes."""
    device = next(generator.parameters()).device
    labels = latents.draw_labels(seed, 0, count, attributes)
    samples = sampling.fixed_samples(generator, attributes, count, seed)
    return Images(torch.from_numpy(samples).to(device), torch.from_numpy(labels).to(device))
