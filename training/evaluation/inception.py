"""The features of the published FID: those of Inception v3 before its last layer.

An extra, and weights that a person brings: nothing is downloaded. The network is torch-fidelity's,
which pads, pools and resizes to 299x299 as TensorFlow 1 did, so that with the published weights
distances are those of the papers (Heusel et al. 2017, https://arxiv.org/abs/1706.08500). It was
trained on photographs, and knows nothing of labels.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import CheckpointError, RunError

NAME = "inception"
LAYER = "2048"
"""torch-fidelity's name for the last pooling, TensorFlow's ``pool_3``."""
PUBLISHED = "weights-inception-2015-12-05-6726825d.pth"
"""What torch-fidelity calls the published weights; the end is how their SHA-256 begins."""
BATCH = 32


@dataclass(frozen=True)
class Inception:
    """Images to features, ready for inference."""

    network: nn.Module
    description: str
    """Tells these weights from others: ``Inception v3, weights sha256 6726825d...``."""

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 ``[N, H, W, channels]``, grey or RGB, to float32 ``[N, 2048]``."""
        rgb = images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        return torch.cat([self.network(part)[0] for part in rgb.split(BATCH)])


def check_installed() -> None:
    """Raise ``RunError`` where torch-fidelity is not installed, or does not work."""
    _network_class()


def load(weights: Path, device: torch.device) -> Inception:
    """The network with ``weights``, a state dict as ``torch.save`` writes it.

    Raises ``RunError`` where torch-fidelity is not installed or does not work, ``CheckpointError``
    for a file that cannot be read or holds something else. Code in the file is never run.
    """
    network_class = _network_class()
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{weights}: cannot be read: {error.strerror}") from error
    state = _unpickled(weights, data)
    # torch-fidelity unpickles whatever it is given, code and all, so it is not given the file.
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    try:
        network = network_class(NAME, [LAYER], feature_extractor_weights_path=safe)
    except (RuntimeError, TypeError, AttributeError) as error:  # RuntimeError: names or shapes
        raise CheckpointError(
            f"{weights}: not the weights of FID's Inception v3, such as {PUBLISHED}"
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    return Inception(network.to(device), f"Inception v3, weights sha256 {sha256[:8]}...")


def _unpickled(path: Path, data: bytes) -> object:
    """What ``torch.save`` put into a file, if it is tensors and plain containers."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of every kind: the bytes say what PyTorch does with them
        # PyTorch's own words advise to load it without this care.
        raise CheckpointError(f"{path}: damaged, or not a file of weights alone") from error


def _network_class() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise RunError(
            f"Inception features need torch-fidelity ({error}): in Figment's folder, "
            "pip install '.[inception]'"
        ) from error
    except RuntimeError as error:  # what torchvision raises over another build of PyTorch
        raise RunError(
            f"torch-fidelity does not work here ({error}): "
            "torchvision must come from the same package index as PyTorch"
        ) from error
    return FeatureExtractorInceptionV3
