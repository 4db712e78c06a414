"""Label classifier with calibrated confidence.

It is the network in whose features samples are compared, calibrated by temperature scaling. It is
exported as ``verifier.onnx`` beside the generator, so that the service can skip images whose labels
are uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.core.manifest import IMAGE
from training.core.device import CPU
from training.core.onnx_model import convert, to_bytes
from training.core.pixels import to_networks
from training.core.randomness import stream
from training.data import Dataset
from training.errors import ExportError
from training.evaluation.features import FeatureNetwork

MIN_TEMPERATURE, MAX_TEMPERATURE, CANDIDATES = 0.25, 4.0, 241
BINS = 15
DRAWS = 20
"""Label sets that are drawn to estimate the error of an exact confidence."""
PARITY = 1e-4
"""Largest difference of a probability between PyTorch and ONNX Runtime."""


class Verifier(nn.Module):
    """Probabilities ``[N, values]`` of each attribute, of uint8 ``[N, H, W, channels]``."""

    def __init__(self, network: FeatureNetwork, temperatures: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.temperatures = tuple(temperatures)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.of_features(self.network.to_features(to_networks(image)))

    def of_features(self, features: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of each attribute from the network's ``features [N, 128]``."""
        logits = self.network.to_logits(features).split(list(self.network.sizes), dim=1)
        return tuple(
            (part / temperature).softmax(dim=1)
            for part, temperature in zip(logits, self.temperatures, strict=True)
        )


@dataclass(frozen=True)
class Accuracy:
    """Accuracy and calibration for one attribute, on images that were not in the training."""

    right: float
    """Share of the images that are read right; higher is better."""
    images: int
    calibration_error: float
    """Expected calibration error over 15 bins, 0 to 1, lower is better: the mean difference between
    confidence and accuracy (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2)."""
    uncalibrated_error: float
    """Calibration error without the temperature."""
    perfect_error: float
    """Calibration error of so many images if every confidence were exactly true; above 0, because
    each bin has few images."""
    temperature: float
    """Divisor of the logits; 1 if no other makes held-out labels likelier."""


def calibrated(network: FeatureNetwork, held_out: Dataset) -> tuple[Verifier, tuple[Accuracy, ...]]:
    """Fit a verifier's confidence to ``held_out``, by one temperature for each attribute.

    Each half of the images is measured with the temperature of the other half. The verifier has
    the temperature fitted to all (Guo et al. 2017, section 4.2).
    """
    device = next(network.parameters()).device
    labels = torch.from_numpy(held_out.labels).to(device)
    with torch.no_grad():
        features = network.features(torch.from_numpy(held_out.images).to(device))
        logits = network.to_logits(features).split(list(network.sizes), dim=1)
    accuracies = tuple(_accuracy(part, truth) for part, truth in zip(logits, labels.T, strict=True))
    return Verifier(network, [each.temperature for each in accuracies]).eval(), accuracies


def _accuracy(logits: Tensor, truth: Tensor) -> Accuracy:
    scaled = logits.clone()
    for half, other in (
        (slice(0, None, 2), slice(1, None, 2)),
        (slice(1, None, 2), slice(0, None, 2)),
    ):
        scaled[half] = logits[half] / _temperature(logits[other], truth[other])
    helps = float(cross_entropy(scaled, truth)) < float(cross_entropy(logits, truth))
    if not helps:
        scaled = logits
    return Accuracy(
        right=float((logits.argmax(dim=1) == truth).float().mean()),
        images=len(truth),
        calibration_error=calibration_error(scaled.softmax(dim=1), truth),
        uncalibrated_error=calibration_error(logits.softmax(dim=1), truth),
        perfect_error=_perfect_error(scaled),
        temperature=_temperature(logits, truth) if helps else 1.0,
    )


def _temperature(logits: Tensor, truth: Tensor) -> float:
    """Temperature that makes ``truth`` likeliest, to within 1.2 %."""
    low, high = torch.tensor([MIN_TEMPERATURE, MAX_TEMPERATURE]).log()
    candidates = torch.linspace(float(low), float(high), CANDIDATES).exp().tolist()
    return float(min(candidates, key=lambda t: float(cross_entropy(logits / t, truth))))


def calibration_error(probabilities: Tensor, truth: Tensor) -> float:
    """Expected calibration error of ``probabilities [N, K]`` over 15 bins, 0 to 1."""
    # Imported here because it loads pyplot, which takes 0.5 s.
    from torchmetrics.functional.classification import multiclass_calibration_error

    return float(
        multiclass_calibration_error(probabilities, truth, probabilities.shape[1], n_bins=BINS)
    )


def _perfect_error(logits: Tensor) -> float:
    """Mean calibration error over labels drawn with exactly the predicted probabilities."""
    generator = stream(0, "calibration", 0, CPU)
    probabilities = logits.softmax(dim=1).cpu()
    labellings = torch.multinomial(probabilities, DRAWS, replacement=True, generator=generator)
    errors = [calibration_error(probabilities, labels) for labels in labellings.T]
    return fmean(errors)


def to_onnx(verifier: Verifier, held_out: Dataset) -> bytes:
    """Content of ``verifier.onnx``: input ``image``, one output for each attribute, with its name.

    No attribute of ``held_out`` may be called ``image``. Raises ``ExportError`` if ONNX Runtime and
    PyTorch differ by more than ``PARITY`` on the first images.
    """
    names = [attribute.name for attribute in held_out.attributes]
    images = held_out.images[:64]
    verifier = verifier.cpu()
    model = to_bytes(convert(verifier, [torch.from_numpy(images[:2])], [IMAGE], names))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = verifier(torch.from_numpy(images))
    for name, theirs, ours in zip(
        names, session.run(names, {IMAGE: images}), expected, strict=True
    ):
        if (off := float(np.abs(theirs - ours.numpy()).max())) > PARITY:
            raise ExportError(f"ONNX Runtime and PyTorch differ by {off:.1e} for {name!r}")
    return model
