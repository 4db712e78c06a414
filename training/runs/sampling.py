"""Samples of a PyTorch generator, by the same seeds and indices as in the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from service.core import latents
from service.core.labels import Vocabulary
from service.core.manifest import Attribute
from training.core.pixels import to_uint8
from training.networks.marginal import Marginal
from training.networks.networks import Generator

BATCH = 64


@torch.no_grad()
def sample(
    generator: Generator | Marginal,
    latent: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    attributes: Sequence[Attribute],
) -> npt.NDArray[np.uint8]:
    """Generate uint8 images ``[N, H, W, channels]`` from ``latent [N, Z]``, ``labels [N, A]``."""
    device = next(generator.parameters()).device
    condition = torch.from_numpy(Vocabulary(attributes, where="").condition(labels))
    batches = zip(torch.from_numpy(latent).split(BATCH), condition.split(BATCH), strict=True)
    return np.concatenate(
        [to_uint8(generator(z.to(device), c.to(device))).cpu().numpy() for z, c in batches]
    )


def fixed_samples(
    generator: Generator | Marginal, attributes: Sequence[Attribute], count: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Return images 0 to ``count - 1`` of ``seed``, as ``POST /generate`` would."""
    return sample(
        generator,
        latents.latents(seed, 0, count, generator.latent_size),
        latents.draw_labels(seed, 0, count, attributes),
        attributes,
    )
