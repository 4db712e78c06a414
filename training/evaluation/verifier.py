"""The classifier that reads an image's labels, and says how sure it is.

It is the network whose features samples are measured in, with its confidence made true: exported as
``verifier.onnx`` beside the generator, it lets the service leave out images whose labels it doubts.
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
from torchmetrics.functional.classification import multiclass_calibration_error

from service.core.manifest import IMAGE
from training.core.onnx_model import convert, to_bytes
from training.core.pixels import to_networks
from training.core.randomness import stream
from training.data import Dataset
from training.errors import ExportError
from training.evaluation.features import FeatureNetwork

COLDEST, HOTTEST, CANDIDATES = 0.25, 4.0, 241
BINS = 15
DRAWN = 20
PARITY = 1e-4


class Verifier(nn.Module):
    """uint8 ``[N, H, W, channels]`` to probabilities ``[N, values]`` of each attribute."""

    def __init__(self, network: FeatureNetwork, temperatures: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.temperatures = tuple(temperatures)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.of_features(self.network.to_features(to_networks(image)))

    def of_features(self, features: Tensor) -> tuple[Tensor, ...]:
        """The same from ``features [N, 128]`` of the network."""
        logits = self.network.to_logits(features).split(list(self.network.sizes), dim=1)
        return tuple(
            (part / temperature).softmax(dim=1)
            for part, temperature in zip(logits, self.temperatures, strict=True)
        )


@dataclass(frozen=True)
class Accuracy:
    """How far one attribute of a verifier can be trusted, on images that it was not trained on."""

    right: float
    """Share that it reads right."""
    images: int
    calibration_error: float
    """By how much its confidence is off on average, 0 to 1: the expected calibration error over 15
    bins (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2)."""
    uncalibrated_error: float
    """What it would be without the temperature."""
    perfect_error: float
    """What it would be of so many images if every confidence were exactly true: more than 0, since
    every bin holds few."""
    temperature: float
    """1 where no other made held-out labels likelier."""


def calibrated(network: FeatureNetwork, held_out: Dataset) -> tuple[Verifier, tuple[Accuracy, ...]]:
    """A verifier whose confidence is fitted to ``held_out``, one temperature for each attribute.

    Each half of the images is judged by the temperature of the other half; the verifier gets that
    of all (Guo et al. 2017, section 4.2).
    """
    device = next(network.parameters()).device
    labels = torch.from_numpy(held_out.labels).to(device)
    with torch.no_grad():
        features = network.features(torch.from_numpy(held_out.images).to(device))
        logits = network.to_logits(features).split(list(network.sizes), dim=1)
    found = tuple(_accuracy(part, truth) for part, truth in zip(logits, labels.T, strict=True))
    return Verifier(network, [each.temperature for each in found]).eval(), found


def _accuracy(logits: Tensor, truth: Tensor) -> Accuracy:
    judged = logits.clone()
    for half, other in (
        (slice(0, None, 2), slice(1, None, 2)),
        (slice(1, None, 2), slice(0, None, 2)),
    ):
        judged[half] = logits[half] / _temperature(logits[other], truth[other])
    helps = float(cross_entropy(judged, truth)) < float(cross_entropy(logits, truth))
    if not helps:
        judged = logits
    return Accuracy(
        right=float((logits.argmax(dim=1) == truth).float().mean()),
        images=len(truth),
        calibration_error=_calibration_error(judged, truth),
        uncalibrated_error=_calibration_error(logits, truth),
        perfect_error=_perfect_error(judged),
        temperature=_temperature(logits, truth) if helps else 1.0,
    )


def _temperature(logits: Tensor, truth: Tensor) -> float:
    """That under which ``truth`` is likeliest, to within 1.2 %."""
    low, high = torch.tensor([COLDEST, HOTTEST]).log()
    candidates = torch.linspace(float(low), float(high), CANDIDATES).exp().tolist()
    return float(min(candidates, key=lambda t: float(cross_entropy(logits / t, truth))))


def _calibration_error(logits: Tensor, truth: Tensor) -> float:
    probabilities = logits.softmax(dim=1)
    return float(
        multiclass_calibration_error(probabilities, truth, probabilities.shape[1], n_bins=BINS)
    )


def _perfect_error(logits: Tensor) -> float:
    """The mean error over labels that are drawn with the very probabilities."""
    generator = stream(0, "calibration", 0, torch.device("cpu"))
    probabilities = logits.softmax(dim=1).cpu()
    drawn = torch.multinomial(probabilities, DRAWN, replacement=True, generator=generator)
    errors = [_calibration_error(logits, labels.to(logits.device)) for labels in drawn.T]
    return fmean(errors)


def to_onnx(verifier: Verifier, held_out: Dataset) -> bytes:
    """``verifier.onnx``: input ``image``, an output named after each attribute of ``held_out``.

    None of these may be called ``image``. Raises ``ExportError`` where ONNX Runtime reads the first
    images differently from PyTorch.
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
            raise ExportError(f"ONNX Runtime and PyTorch disagree over {name!r} by {off:.1e}")
    return model
