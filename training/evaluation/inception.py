"""Features of the published FID: Inception v3 before its last layer.

Needs the extra ``inception``, and a file of weights from the user: nothing is downloaded. The
network is torch-fidelity's, which pads, pools and resizes to 299x299 as TensorFlow 1 did. With the
published weights, distances are therefore those of the papers (Heusel et al. 2017,
https://arxiv.org/abs/1706.08500). It was trained on photographs and has no labels of the data.
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
"""Last pooling layer in torch-fidelity; ``pool_3`` in TensorFlow."""
PUBLISHED = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's name of the published weights; it ends with the first digits of their
SHA-256."""
BATCH = 32


@dataclass(frozen=True)
class Inception:
    """Network that computes features, in inference mode."""

    network: nn.Module
    description: str
    """Identifies the weights: ``Inception v3, weights sha256 6726825d...``."""

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features, float32 ``[N, 2048]``, of uint8 ``[N, H, W, channels]``, grey or RGB."""
        rgb = images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        return torch.cat([self.network(part)[0] for part in rgb.split(BATCH)])


def check_installed() -> None:
    """Raise ``RunError`` if torch-fidelity is not installed, or does not work."""
    _network_class()


def load(weights: Path, device: torch.device) -> Inception:
    """Load the network with ``weights``, a state dict written by ``torch.save``.

    Raises ``RunError`` if torch-fidelity is not installed or does not work, ``CheckpointError`` if
    the file cannot be read or has other content. Code in the file is never run.
    """
    network_class = _network_class()
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{weights}: cannot be read: {error.strerror}") from error
    state = _unpickled(weights, data)
    # torch-fidelity unpickles with code, so it gets a copy that holds nothing but tensors.
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
    """Content of a file written by ``torch.save``, if it is tensors and plain containers."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises errors of every kind, depending on the bytes
        # PyTorch's own message advises to load the file without this protection.
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
