"""Shipped models meet the measurements in their model cards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.core import latents
from service.core.labels import Vocabulary
from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.helpers.server import MODELS

SAMPLES = 256
SHIPPED = [
    max(model.iterdir(), key=lambda version: int(version.name)) for model in MODELS.glob("*/")
]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_shipped_model_meets_its_quality_limits(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    manifest = load_model(folder / "model.onnx", SessionFactory("cpu")).manifest
    assert [metric.model_dump() for metric in manifest.metrics] == report["metrics"]
    assert report["images_shown"] == manifest.provenance.training["images_shown"]
    found = report["closeness"]["classifier"]
    assert found["samples"]["frechet"] < 4 * found["real"]["frechet"]
    assert found["samples"]["recall"] > 0.5
    assert found["samples"]["coverage"] > 0.75
    assert all(each["nearer"] < 0.03 for each in report["memorisation"])
    card = (folder / "README.md").read_text()
    assert "(samples.png)" in card
    assert all((folder / name).exists() for name in re.findall(r"\]\(([^)]+)\)", card))


@pytest.mark.parametrize("name", ["anime-faces", "digits"])
def test_verifier_reads_the_requested_labels(name: str) -> None:
    """By the verifier that comes with the model, on images that its report has not seen."""
    (folder,) = (folder for folder in SHIPPED if folder.parent.name == name)
    options = {"providers": ["CPUExecutionProvider"]}
    generator = ort.InferenceSession(folder / "model.onnx", **options)
    verifier = ort.InferenceSession(folder / "verifier.onnx", **options)
    manifest = load_model(folder / "model.onnx", SessionFactory("cpu")).manifest
    labels = latents.draw_labels(11, 0, SAMPLES, manifest.attributes)
    condition = Vocabulary(manifest.attributes, where="").condition(labels)
    latent = latents.latents(11, 0, SAMPLES, manifest.latent_size)
    (images,) = generator.run(["image"], {"latent": latent, "condition": condition})
    names = [attribute.name for attribute in manifest.attributes]
    assert [output.name for output in verifier.get_outputs()] == names
    read = np.stack([each.argmax(axis=1) for each in verifier.run(names, {"image": images})], 1)
    assert (read == labels).all(axis=1).mean() > 0.88
