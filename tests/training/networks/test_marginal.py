from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.core.manifest import Attribute
from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.helpers.small_runs import CPU, create_run
from training.data import Dataset
from training.errors import RunError
from training.evaluation.command import evaluate_run
from training.export.export import export
from training.networks.marginal import Marginal
from training.networks.networks import Generator
from training.runs.run import Run

HAIR = Attribute(name="hair", values=("red", "blue", "none"), frequencies=(0.2, 0.8, 0.0))
EYES = Attribute(name="eyes", values=("open", "shut"), frequencies=(0.25, 0.75))


class Echo(nn.Module):
    """Returns its condition."""

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        return torch.cat([latent, condition], dim=1)


def test_values_are_drawn_by_frequency_and_independently() -> None:
    marginal = Marginal(Echo(), 3, (HAIR, EYES))
    assert (marginal.latent_size, marginal.condition_size) == (5, 0)
    latent = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    found = marginal(latent)
    assert torch.equal(found[:, :3], latent[:, :3])
    hair, eyes = found[:, 3:6], found[:, 6:]
    assert torch.equal(hair.sum(dim=1), torch.ones(20_000))
    assert torch.equal(eyes.sum(dim=1), torch.ones(20_000))
    assert hair.mean(dim=0).tolist() == pytest.approx([0.2, 0.8, 0], abs=0.01)
    assert eyes.mean(dim=0).tolist() == pytest.approx([0.25, 0.75], abs=0.01)
    both = (hair[:, 0] * eyes[:, 0]).mean()
    assert float(both) == pytest.approx(0.2 * 0.25, abs=0.01)


def test_conditional_run_is_exported_as_an_unconditional_model(
    trained: Path, tmp_path: Path
) -> None:
    run = Run.open(trained)
    generator, shown = run.load_snapshot("last")
    folder = export(run, generator, shown, tmp_path / "models", None, "small-free")
    assert folder == tmp_path / "models" / "small-free" / "1"
    model = load_model(folder / "model.onnx", SessionFactory("cpu"))
    assert model.manifest.kind == "unconditional"
    assert model.manifest.latent_size == generator.latent_size + 2
    assert model.manifest.provenance.training["labels_drawn"] == ["hair", "glasses"]
    assert not (folder / "verifier.onnx").exists()
    assert "draws hair and glasses by frequency" in (folder / "README.md").read_text()

    marginal = Marginal(generator, generator.latent_size, run.dataset.attributes)
    latent = torch.randn(9, marginal.latent_size, generator=torch.Generator().manual_seed(1))
    one_hot = marginal(latent)
    assert one_hot.shape == (9, 3, 16, 16)
    assert np.isfinite(one_hot.detach().numpy()).all()


SETTINGS: dict[str, Any] = {"data": None, "spaces": (), "classifier": None, "device": CPU}


def test_unconditional_run_cannot_be_made_unconditional(portraits: Dataset, tmp_path: Path) -> None:
    bare = replace(portraits, labels=portraits.labels[:, :0], attributes=())
    run = create_run(tmp_path / "run", bare, attributes=())
    generator = Generator(run.config, condition_size=0, image_shape=run.dataset.image_shape)
    with pytest.raises(RunError, match="unconditional already"):
        evaluate_run(run, generator, 0, **SETTINGS, unconditional="free")
    with pytest.raises(RunError, match="unconditional already"):
        export(run, generator, 0, tmp_path / "models", None, "free")


@pytest.mark.parametrize(
    ("name", "said"), [("small", "another name"), ("../x", "no model name"), ("", "no")]
)
def test_invalid_name_is_rejected_before_anything_is_written(
    trained: Path, tmp_path: Path, name: str, said: str
) -> None:
    run = Run.open(trained)
    generator, shown = run.load_snapshot("last")
    before = sorted(trained.rglob("*"))
    with pytest.raises(RunError, match=said):
        export(run, generator, shown, tmp_path / "models", None, name)
    with pytest.raises(RunError, match=said):
        evaluate_run(run, generator, shown, **SETTINGS, unconditional=name)
    assert sorted(trained.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []
