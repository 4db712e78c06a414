from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.core.randomness import scoped_seed
from training.errors import CheckpointError, RunError
from training.evaluation import inception
from training.evaluation.inception import Inception

CPU = torch.device("cpu")
MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class StandIn(nn.Module):
    """Is made, loads its weights and is called as torch-fidelity's network is, and is small."""

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: io.BytesIO
    ) -> None:
        super().__init__()
        assert features_list == ["2048"]
        assert isinstance(feature_extractor_weights_path, io.BytesIO)  # never the file itself
        self.convolution = nn.Conv2d(3, 2048, 4, stride=4)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return (self.convolution(images.float() / 128 - 1).amax(dim=(2, 3)),)


@pytest.fixture(scope="module", params=["torch-fidelity", "stand-in"])
def network_class(request: pytest.FixtureRequest) -> Iterator[type[Any]]:
    """Stand-in for torch-fidelity."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "stand-in":
            module = ModuleType(MODULE)
            module.__dict__["FeatureExtractorInceptionV3"] = StandIn
            patch.setitem(sys.modules, MODULE, module)
        try:
            inception.check_installed()
        except RunError as error:
            pytest.skip(f"NOT TESTED over the real Inception v3: {error}")
        yield sys.modules[MODULE].FeatureExtractorInceptionV3


@pytest.fixture(scope="module")
def state(network_class: type[Any]) -> dict[str, Tensor]:
    """Random weights, of a scale that keeps the features of different images apart."""

    class Untrained(network_class):  # type: ignore[misc]
        def load_state_dict(self, state: object) -> None:
            """As it is made."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with scoped_seed(0, "inception", 0, CPU):
        network = Untrained("untrained", ["2048"], feature_extractor_weights_path=nothing)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    return network.state_dict()


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def loaded(weights: Path) -> Inception:
    return inception.load(weights, CPU)


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_features_do_not_depend_on_their_batch(
    loaded: Inception, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(5, 32, 48, 3)
    together = loaded.features(images)
    assert together.shape == (5, 2048)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    # Another image is much further than any rounding.
    assert torch.pdist(together).min() > 0.05
    monkeypatch.setattr(inception, "BATCH", 2)
    assert torch.allclose(loaded.features(images), together, atol=1e-4)
    assert torch.allclose(loaded.features(images.flip(0)).flip(0), together, atol=1e-4)


def test_grey_is_the_same_as_grey_in_colour(loaded: Inception) -> None:
    grey = noise(2, 28, 28, 1)
    in_colour = loaded.features(grey.expand(-1, -1, -1, 3).contiguous())
    assert torch.allclose(loaded.features(grey), in_colour, atol=1e-4)


def test_colours_are_red_green_blue_as_the_network_has_them(
    network_class: type[Any], weights: Path, loaded: Inception
) -> None:
    images = noise(2, 16, 16, 3)
    held = io.BytesIO(weights.read_bytes())
    network = network_class("itself", ["2048"], feature_extractor_weights_path=held)
    (expected,) = network(images.permute(0, 3, 1, 2).contiguous())
    assert torch.allclose(loaded.features(images), expected, atol=1e-4)
    assert not torch.allclose(loaded.features(images.flip(3)), expected, atol=1e-4)


def test_description_identifies_the_weights(
    weights: Path, loaded: Inception, state: dict[str, Tensor], tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert loaded.description == f"Inception v3, weights sha256 {sha256[:8]}..."
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "others.pth")
    assert inception.load(tmp_path / "others.pth", CPU).description != loaded.description


def test_the_older_format_of_pytorch_is_read_too(
    state: dict[str, Tensor], loaded: Inception, tmp_path: Path
) -> None:
    path = tmp_path / "older.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    images = noise(1, 16, 16, 3)
    assert torch.equal(inception.load(path, CPU).features(images), loaded.features(images))


def saved(held: object) -> Callable[[Path], None]:
    return lambda path: torch.save(held, path)


@pytest.mark.parametrize(
    ("write", "why"),
    [
        pytest.param(lambda path: None, "cannot be read: No such file", id="missing"),
        pytest.param(Path.mkdir, "cannot be read: Is a directory", id="folder"),
        pytest.param(lambda path: path.write_bytes(b""), "damaged, or not", id="empty"),
        pytest.param(lambda path: path.write_text("weights"), "damaged, or not", id="text"),
        pytest.param(lambda path: path.write_bytes(b"PK\3\4" * 99), "damaged, or not", id="zip"),
        pytest.param(
            lambda path: save_file({"w": torch.ones(1)}, path), "damaged, or not", id="safetensors"
        ),
        pytest.param(saved(nn.Linear(2, 2)), "damaged, or not", id="network"),
        pytest.param(saved(nn.Linear(2, 2).state_dict()), "not the weights of FID", id="others"),
        pytest.param(saved({}), "not the weights of FID", id="none"),
        pytest.param(saved({1: torch.ones(1)}), "not the weights of FID", id="numbered"),
        pytest.param(saved([torch.ones(1)]), "not the weights of FID", id="list"),
    ],
)
def test_other_files_are_rejected(
    network_class: type[Any], tmp_path: Path, write: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(CheckpointError) as refused:
        inception.load(path, CPU)
    assert str(refused.value).startswith(f"{path}: {why}")
    assert "weights_only" not in str(refused.value)


def test_damaged_file_is_rejected(weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    path = tmp_path / "weights.pth"
    for kept in (100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match=r"weights\.pth: damaged, or not"):
            inception.load(path, CPU)


def test_weights_of_other_shapes_are_rejected(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({name: value[None] for name, value in state.items()}, path)
    with pytest.raises(CheckpointError, match="not the weights of FID's Inception v3"):
        inception.load(path, CPU)


class Bomb:
    """Writes to a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "went off")


@pytest.mark.parametrize("kind", ["zip", "older", "pickle"])
def test_code_in_a_file_is_not_run(state: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    path, sign = tmp_path / "weights.pth", tmp_path / "sign"
    armed = state | {"more": Bomb(sign)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(armed))
    else:
        torch.save(armed, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match="damaged, or not a file of weights alone"):
        inception.load(path, CPU)
    assert not sign.exists()
    # It was armed.
    if kind == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert sign.read_text() == "went off"


def without_torch_fidelity(patch: pytest.MonkeyPatch) -> None:
    """Forget it, if it was imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]:
        patch.delitem(sys.modules, name)


def test_missing_torch_fidelity_gives_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch_fidelity(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(RunError, match=r"pip install '\.\[inception\]'"):
        inception.check_installed()
    with pytest.raises(RunError, match="need torch-fidelity"):
        inception.load(tmp_path / "weights.pth", CPU)  # not even looked for


def test_torchvision_of_another_build_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch_fidelity(monkeypatch)
    (tmp_path / "torch_fidelity").mkdir()
    raising = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "torch_fidelity" / "__init__.py").write_text(raising)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match=r"nms does not exist\): torchvision must come from"):
        inception.check_installed()
