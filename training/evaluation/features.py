"""Feature space of a dataset: the last layer of a classifier trained on its labels.

It needs no download, works for grey and small images, and depends on the features that decide a
label. Without labels, the classifier learns by how much an image was rotated (Gidaris et al. 2018,
https://arxiv.org/abs/1803.07728).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.core.adam import Adam
from training.core.device import CPU, choose_precision, convolutions_in
from training.core.pixels import to_networks
from training.core.randomness import batch_indices, scoped_seed, stream
from training.data import Dataset
from training.networks.augment import DRAWS, augment
from training.networks.augment import mirror as mirrored
from training.networks.losses import label_loss
from training.networks.networks import halvings
from training.runs import checkpoint

FEATURES = 128
WIDTH = 24
MAX_WIDTH_FACTOR = 4
BATCH = 64
LR = 1e-3


@dataclass(frozen=True)
class Schedule:
    """Length of a training."""

    epochs: int
    min_images: int
    """Images shown at least: a network of 245 faces read 86 % of other faces right after 1,200,
    and 99 % after 4,900."""
    max_images: int
    """Limit on the images shown, for large data."""
    translate: bool
    """Shift images by up to an eighth of their side, which helps over many epochs."""


QUICK = Schedule(epochs=5, min_images=5_000, max_images=200_000, translate=False)
"""For the scores of a run's snapshots."""
THOROUGH = Schedule(epochs=15, min_images=10_000, max_images=2_000_000, translate=True)
"""For an evaluation, and for the verifier."""


class FeatureNetwork(nn.Module):
    """Classifier with features ``[N, 128]`` before its last layer."""

    def __init__(
        self, image_shape: tuple[int, int, int], sizes: Sequence[int], first: int = WIDTH
    ) -> None:
        """``image_shape`` is height, width, channels; ``sizes`` the values of each attribute.

        ``first`` is the number of channels of the first layer.
        """
        super().__init__()
        height, width, channels = image_shape
        levels = halvings(height, width)
        maps = [channels, *(first * min(2**level, MAX_WIDTH_FACTOR) for level in range(levels))]
        layers: list[nn.Module] = []
        for before, after in pairwise(maps):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        flat = maps[-1] * (height >> levels) * (width >> levels)
        self.to_features = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(flat, FEATURES), nn.ReLU()
        )
        self.dropout = nn.Dropout(0.3)
        self.to_logits = nn.Linear(FEATURES, sum(sizes))
        self.sizes = tuple(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all attributes, ``[N, sum(sizes)]``, of ``[N, channels, H, W]`` in [-1, 1]."""
        return self.to_logits(self.dropout(self.to_features(images)))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features ``[N, 128]`` of uint8 ``[N, H, W, channels]``."""
        return torch.cat([self.to_features(to_networks(part)) for part in images.split(256)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> tuple[Tensor, ...]:
        """Probabilities ``[N, values]`` of each attribute, of uint8 ``[N, H, W, channels]``."""
        logits = self.to_logits(self.features(images)).split(list(self.sizes), dim=1)
        return tuple(part.softmax(dim=1) for part in logits)

    @torch.no_grad()
    def read(self, features: Tensor) -> Tensor:
        """Likeliest value of each attribute, ``[N, A]``, from features ``[N, 128]``."""
        logits = self.to_logits(features).split(list(self.sizes), dim=1)
        return torch.stack([part.argmax(dim=1) for part in logits], dim=1)


def new_network(dataset: Dataset, device: torch.device, first: int = WIDTH) -> FeatureNetwork:
    """Untrained network for the shape and labels of ``dataset``, in inference mode.

    ``first`` is the number of channels of its first layer.
    """
    height, width, channels = dataset.images.shape[1:]
    sizes = [len(attribute.values) for attribute in dataset.attributes]
    network = FeatureNetwork((height, width, channels), sizes or [_rotations(dataset)], first)
    # Twice as fast on CPUs as the usual order.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device).eval()


def train_network(
    dataset: Dataset,
    *,
    mirror: bool,
    device: torch.device,
    schedule: Schedule = QUICK,
    seed: int = 0,
) -> FeatureNetwork:
    """Train a feature network on ``dataset``; ``mirror`` flips half of the images at random.

    Deterministic, given its arguments.
    """
    rotations = _rotations(dataset)
    with scoped_seed(seed, "features", 0, device):
        network = new_network(dataset, device).train()
        optimizer = Adam(network.parameters(), LR, fused=True)
        total = min(max(schedule.epochs * len(dataset), schedule.min_images), schedule.max_images)
        images, labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
        for shown in tqdm(range(0, total, BATCH), "classifier", unit="batch", disable=None):
            chosen = batch_indices(seed, len(dataset), shown, BATCH, CPU)
            batch = to_networks(images[chosen].to(device))
            targets = labels[chosen].to(device)
            chance = stream(seed, "mirror", shown, CPU)
            coins = torch.rand(len(batch), generator=chance).to(device)
            if mirror:
                batch = mirrored(batch, coins)
            if schedule.translate:
                chance = stream(seed, "translation", shown, CPU)
                uniform = torch.rand(len(batch), 1, DRAWS, generator=chance)
                batch = augment(batch, ["translation"], 1, uniform.to(device))
            if not dataset.attributes:
                rotation = (coins * 2 * rotations).long() % rotations
                batch, targets = _rotate(batch, rotation, rotations), rotation[:, None]
            train_step(network, optimizer, LR * (1 - shown / total), batch, targets)
    return network.eval().requires_grad_(False)


def train_step(
    network: FeatureNetwork,
    optimizer: torch.optim.Optimizer,
    lr: float,
    images: Tensor,
    labels: Tensor,
) -> None:
    """Take one step on ``images [N, channels, H, W]`` in [-1, 1] and their ``labels [N, A]``."""
    with convolutions_in(choose_precision("auto", images.device), images.device):
        logits = network(images.contiguous(memory_format=torch.channels_last))
    known = torch.ones_like(labels, dtype=torch.bool)
    loss = label_loss(logits.float(), labels, known, network.sizes)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _rotations(dataset: Dataset) -> int:
    """Rotations that keep an image's shape: 4 (quarters) for a square, otherwise 2 (halves)."""
    height, width = dataset.images.shape[1:3]
    return 4 if height == width else 2


def load_or_train(
    path: Path,
    dataset: Dataset,
    *,
    mirror: bool,
    device: torch.device,
    schedule: Schedule = QUICK,
) -> FeatureNetwork:
    """Load the network in ``path``; train and write it first if the file does not exist.

    Raises ``CheckpointError`` if the file cannot be read or holds another network.
    """
    if not path.exists():
        print(f"training {path.stem} ...", file=sys.stderr, flush=True)
        network = train_network(dataset, mirror=mirror, device=device, schedule=schedule)
        checkpoint.write(path, 0, checkpoint.collect({"features": network}, {}))
    network = new_network(dataset, device).requires_grad_(False)
    checkpoint.read(path, {"features": network}, {})
    return network


def _rotate(images: Tensor, rotation: Tensor, rotations: int) -> Tensor:
    """Rotate each image by ``rotation [N]`` of ``rotations`` equal parts of a circle."""
    quarters = 4 // rotations
    every = torch.stack([images.rot90(k * quarters, (2, 3)) for k in range(rotations)])
    return every[rotation, torch.arange(len(images), device=images.device)]
