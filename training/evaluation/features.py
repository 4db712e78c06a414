"""A feature space that belongs to the data: that of a classifier trained on its own labels.

It needs no download, fits grey and small images, and sees what the labels say. Where there are no
labels, the classifier learns by how much an image was turned (Gidaris et al. 2018,
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

from training.core.device import choose_precision, convolutions_in
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
LARGEST_FACTOR = 4
BATCH = 64
LR = 1e-3


@dataclass(frozen=True)
class Schedule:
    """How long a network learns."""

    epochs: int
    most: int
    """Images shown, at most, however large the data."""
    translate: bool
    """Whether images are shifted by up to an eighth of their side, which pays over many epochs."""


QUICK = Schedule(epochs=5, most=200_000, translate=False)
"""To compare the snapshots of a run."""
THOROUGH = Schedule(epochs=15, most=2_000_000, translate=True)
"""To judge a model by, and to read labels."""


class FeatureNetwork(nn.Module):
    """Images to features ``[N, 128]`` and to the labels read off them."""

    def __init__(self, image_shape: tuple[int, int, int], sizes: Sequence[int]) -> None:
        """``image_shape`` is height, width, channels; ``sizes`` the values of each attribute."""
        super().__init__()
        height, width, channels = image_shape
        levels = halvings(height, width)
        maps = [channels, *(WIDTH * min(2**level, LARGEST_FACTOR) for level in range(levels))]
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
        """``[N, channels, H, W]`` in [-1, 1] to logits of all attributes, ``[N, sum(sizes)]``."""
        return self.to_logits(self.dropout(self.to_features(images)))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 ``[N, H, W, channels]`` to ``[N, 128]``."""
        return torch.cat([self.to_features(to_networks(part)) for part in images.split(256)])

    @torch.no_grad()
    def read(self, features: Tensor) -> Tensor:
        """Features ``[N, 128]`` to the likeliest value of each attribute, ``[N, A]``."""
        logits = self.to_logits(features).split(list(self.sizes), dim=1)
        return torch.stack([part.argmax(dim=1) for part in logits], dim=1)


def new_network(dataset: Dataset, device: torch.device) -> FeatureNetwork:
    """New network that ``train_network`` trains for ``dataset``, in inference mode."""
    height, width, channels = dataset.images.shape[1:]
    sizes = [len(attribute.values) for attribute in dataset.attributes]
    network = FeatureNetwork((height, width, channels), sizes or [_turns(dataset)])
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
    """Train a feature network on ``dataset``, with every other image mirrored where ``mirror``.

    A function of its arguments.
    """
    turns = _turns(dataset)
    with scoped_seed(seed, "features", 0, device):
        network = new_network(dataset, device).train()
        optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
        total = min(schedule.epochs * len(dataset), schedule.most)
        images, labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
        for shown in tqdm(range(0, total, BATCH), "classifier", unit="batch", disable=None):
            chosen = batch_indices(seed, len(dataset), shown, BATCH, torch.device("cpu"))
            batch = to_networks(images[chosen].to(device))
            targets = labels[chosen].to(device)
            coins = torch.rand(len(batch), generator=stream(seed, "mirror", shown, device))
            if mirror:
                batch = mirrored(batch, coins)
            if schedule.translate:
                chance = stream(seed, "translation", shown, device)
                uniform = torch.rand(len(batch), 1, DRAWS, generator=chance, device=device)
                batch = augment(batch, ["translation"], 1, uniform)
            if not dataset.attributes:
                turn = (coins * 2 * turns).long() % turns
                batch, targets = _turned(batch, turn, turns), turn[:, None]
            train_step(network, optimizer, LR * (1 - shown / total), batch, targets)
    return network.eval().requires_grad_(False)


def train_step(
    network: FeatureNetwork,
    optimizer: torch.optim.Optimizer,
    lr: float,
    images: Tensor,
    labels: Tensor,
) -> None:
    """One step on ``images [N, channels, H, W]`` in [-1, 1] and their ``labels [N, A]``."""
    with convolutions_in(choose_precision("auto", images.device), images.device):
        logits = network(images.contiguous(memory_format=torch.channels_last))
    known = torch.ones_like(labels, dtype=torch.bool)
    loss = label_loss(logits.float(), labels, known, network.sizes)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _turns(dataset: Dataset) -> int:
    """What an image may be turned by without changing its shape: quarters, or halves."""
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
    """The network in ``path``, which is fitted and written first where there is none.

    Raises ``CheckpointError``.
    """
    if not path.exists():
        print(f"learning {path.stem} ...", file=sys.stderr, flush=True)
        network = train_network(dataset, mirror=mirror, device=device, schedule=schedule)
        checkpoint.write(path, 0, checkpoint.collect({"features": network}, {}))
    network = new_network(dataset, device).requires_grad_(False)
    checkpoint.read(path, {"features": network}, {})
    return network


def _turned(images: Tensor, turn: Tensor, turns: int) -> Tensor:
    """Each image turned by ``turn`` of ``turns`` equal parts of a circle."""
    quarters = 4 // turns
    every = torch.stack([images.rot90(k * quarters, (2, 3)) for k in range(turns)])
    return every[turn, torch.arange(len(images), device=images.device)]
