from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.core.manifest import Attribute, Manifest
from service.errors import InvalidModel, StartupError, UnknownModel
from service.inference.model import load_model
from service.inference.session import SessionFactory
from service.models.repository import load_models
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.rejected_models import InProcessSandbox, load

EYES = attribute("eyes", "red", "blue")
PLAIN = manifest()
LABELLED = manifest(EYES)


def refusal(
    folder: Path, content: bytes | onnx.ModelProto, name: str = "tiny", version: str = "1"
) -> str:
    """Reason why a model file is rejected. Asserts that a valid one beside it is served."""
    path = onnx_files.put(folder, name, version, content)
    onnx_files.put(folder, "good", 1, onnx_files.model(PLAIN.model_copy(update={"name": "good"})))
    loaded = load(folder)
    assert list(loaded.models) == ["good"]
    (refused,) = loaded.refused
    assert refused.path == path.relative_to(folder).as_posix()
    assert "\n" not in refused.reason
    return refused.reason


@pytest.mark.parametrize("described", [PLAIN, LABELLED], ids=["unconditional", "conditional"])
def test_model_is_loaded_as_its_manifest_describes_it(tmp_path: Path, described: Manifest) -> None:
    path = onnx_files.put(tmp_path, "tiny", 3, onnx_files.model(described))
    model = load_model(path, SessionFactory("cpu"))
    assert (model.name, model.version, model.manifest) == ("tiny", 3, described)
    latent = np.zeros((5, 8), dtype=np.float32)
    images = model.generate(latent, np.zeros((5, described.condition_size), dtype=np.float32))
    assert images.shape == (5, 16, 16, 3)
    assert images.dtype == np.uint8


def test_highest_version_is_the_default(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        onnx_files.put(tmp_path, "tiny", version, onnx_files.model(PLAIN))
    loaded = load(tmp_path)
    assert loaded.get("tiny").version == 10
    assert loaded.get("tiny", 2).version == 2
    with pytest.raises(UnknownModel, match="no version 3; there are: 1, 2, 10"):
        loaded.get("tiny", 3)
    with pytest.raises(UnknownModel, match="no model 'big'; there are: tiny"):
        loaded.get("big")


def test_default_models_are_configured_or_first_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        onnx_files.put(tmp_path, name, 1, onnx_files.model(manifest(name=name)))
        onnx_files.put(tmp_path, f"{name}x", 1, onnx_files.model(manifest(EYES, name=f"{name}x")))
    assert load(tmp_path).default("unconditional").name == "a"
    assert load(tmp_path).default("conditional").name == "ax"
    loaded = load_models(
        tmp_path,
        SessionFactory("cpu"),
        {"conditional": "bx", "unconditional": None},
        sandbox=InProcessSandbox(),
    )
    assert loaded.default("conditional").name == "bx"
    with pytest.raises(StartupError, match="'b' cannot be the default conditional model"):
        load_models(
            tmp_path, SessionFactory("cpu"), {"conditional": "b"}, sandbox=InProcessSandbox()
        )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_rejected(tmp_path: Path, share: float) -> None:
    whole = onnx_files.model(PLAIN).SerializeToString()
    assert refusal(tmp_path, whole[: int(len(whole) * share)])


def test_other_formats_are_rejected(tmp_path: Path) -> None:
    assert "cannot load" in refusal(tmp_path, b"\x80\x04\x95 pickled, say")


def test_external_data_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = onnx_files.model(PLAIN)
    path = onnx_files.put(tmp_path, "tiny", 1, b"")
    onnx.save(built, path, save_as_external_data=True, location="weights", size_threshold=0)
    # Where ONNX Runtime would look, if it were let.
    monkeypatch.chdir(path.parent)
    assert Path("weights").exists()
    assert "cannot load" in refusal(tmp_path, path.read_bytes())


def test_unknown_operators_are_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    built.graph.node[1].op_type, built.graph.node[1].domain = "Exfiltrate", "evil"
    built.opset_import.append(helper.make_opsetid("evil", 1))
    assert "cannot load" in refusal(tmp_path, built)


def test_file_without_a_manifest_is_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    del built.metadata_props[:]
    assert refusal(tmp_path, built) == "has no manifest (metadata key 'figment')"


@pytest.mark.parametrize("text", ["figment", '"name"'])
def test_metadata_that_is_not_text_is_rejected(tmp_path: Path, text: str) -> None:
    content = onnx_files.model(PLAIN).SerializeToString()
    broken = content.replace(text.encode(), b"\xff" * len(text))
    assert broken != content
    assert "metadata is not UTF-8" in refusal(tmp_path, broken)


def test_unreadable_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "tiny" / "1" / "model.onnx").mkdir(parents=True)
    onnx_files.put(tmp_path, "good", 1, onnx_files.model(manifest(name="good")))
    loaded = load(tmp_path)
    assert list(loaded.models) == ["good"]
    assert "cannot be read" in loaded.refused[0].reason


def changed(**fields: object) -> Callable[[dict[str, object]], str]:
    return lambda described: json.dumps(described | fields)


def many(name: str, count: int) -> dict[str, object]:
    """An attribute of so many values."""
    values = [f"{name} {number}" for number in range(count)]
    return {"name": name, "values": values, "frequencies": [1 / count] * count}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda described: "no json", "manifest: Invalid JSON"),
        (lambda described: "{}", "name: Field required"),
        (changed(format_version=2), "format_version"),
        (changed(latent_recipe=2), "latent_recipe"),
        (changed(latent_size=9), "its inputs are"),
        (changed(height=8), "its outputs are"),
        (changed(name="other"), "its manifest calls it 'other', its folder 'tiny'"),
        (changed(kind="unconditional"), "a conditional model has attributes"),
        (changed(attributes=[]), "a conditional model has attributes"),
        (
            changed(attributes=[{"name": "x", "values": ["a", "a"], "frequencies": [0.5, 0.5]}]),
            "which are equal as labels",
        ),
        (
            changed(
                attributes=[{"name": "x", "values": ["Red", "red "], "frequencies": [0.5, 0.5]}]
            ),
            "which are equal as labels",
        ),
        (
            changed(attributes=[{"name": "x", "values": ["a", "and"], "frequencies": [0.5, 0.5]}]),
            "cannot be used as a label",
        ),
        (
            changed(attributes=[{"name": "x", "values": ["a", "b"], "frequencies": [0.5]}]),
            "2 values but 1 frequencies",
        ),
        (
            changed(attributes=[{"name": "x", "values": ["a", "b"], "frequencies": [0.5, 0.6]}]),
            "do not sum to 1",
        ),
        (changed(attributes=[many("x", 1025), many("y", 1024)]), "have 2049 values, and may have"),
        (changed(remarks="x" * 2**20), "its manifest has more than 1048576 characters"),
    ],
)
def test_inconsistent_manifest_is_rejected(
    tmp_path: Path, change: Callable[[dict[str, object]], str], said: str
) -> None:
    built = onnx_files.model(LABELLED)
    onnx_files.describe(built, change(LABELLED.model_dump(mode="json")))
    assert said in refusal(tmp_path, built)


def test_thousand_classes_are_accepted(tmp_path: Path) -> None:
    described = manifest(Attribute.model_validate(many("class", 1000)))
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(described))
    assert load(tmp_path).get("tiny").vocabulary.parse("class 999") == {0: 999}


def test_value_without_an_unambiguous_label_is_rejected(tmp_path: Path) -> None:
    crossed = manifest(attribute("hat", "hair", "none"), attribute("hair", "hat", "bald"))
    reason = refusal(tmp_path, onnx_files.model(crossed))
    assert "no label selects the value 'hair' of 'hat' alone" in reason


def test_graph_that_contradicts_its_declared_output_is_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    shape = next(constant for constant in built.graph.initializer if constant.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([-1, 8, 8, 3], dtype=np.int64), "shape"))
    assert refusal(tmp_path, built)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("Tiny", "1", "not a model name"),
        ("tiny", "0", "not a version"),
        ("tiny", "latest", "not a version"),
    ],
)
def test_invalid_folder_names_are_rejected(
    tmp_path: Path, name: str, version: str, said: str
) -> None:
    assert said in refusal(tmp_path, onnx_files.model(PLAIN), name, version)


def test_folder_without_a_valid_model_is_a_startup_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no model to serve"):
        load(tmp_path)
    onnx_files.put(tmp_path, "tiny", 1, b"")
    with pytest.raises(
        StartupError, match=r"tiny/1/model\.onnx: cannot load it: its graph is empty"
    ):
        load(tmp_path)
    with pytest.raises(StartupError, match="does not exist; set FIGMENT_MODELS"):
        load(tmp_path / "nowhere")


def test_unfinished_export_is_ignored(tmp_path: Path) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    onnx_files.put(tmp_path, "tiny", ".2.tmp", b"half")
    assert load(tmp_path).refused == []


def test_version_without_a_model_is_rejected(tmp_path: Path) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    (tmp_path / "tiny" / "2").mkdir()
    (tmp_path / "tiny" / "3").mkdir()
    (tmp_path / "tiny" / "3" / "Model.onnx").write_bytes(b"")
    (tmp_path / "tiny" / "4").symlink_to("nowhere")
    (tmp_path / "tiny" / "notes").mkdir()
    (tmp_path / "tiny" / ".5.tmp").mkdir()
    loaded = load(tmp_path)
    assert list(loaded.models["tiny"]) == [1]
    assert sorted((refused.path, refused.reason) for refused in loaded.refused) == [
        ("tiny/2", "has no model.onnx"),
        ("tiny/3", "has no model.onnx"),
    ]


def test_model_without_a_version_folder_is_rejected(tmp_path: Path) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    onnx_files.put(tmp_path, "tiny", ".", onnx_files.model(PLAIN))
    (refused,) = load(tmp_path).refused
    assert (refused.path, refused.reason) == (
        "tiny/model.onnx",
        "is in the wrong folder: move it to NAME/VERSION/",
    )


def test_missing_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="cannot be read"):
        load_model(tmp_path / "tiny" / "1" / "model.onnx", SessionFactory("cpu"))
