"""Plans of ``make-dataset``: invalid files, fields that do not fit, what a plan leaves open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.datasets.plan_file import read_plan
from service.errors import DatasetError
from tests.conftest import manifest
from tests.helpers.make_dataset import COLOURS, SMALL, Command, load, nothing, read
from tests.helpers.onnx_files import model, put


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a plan is a list of fields"),
        ("- 1", "a plan is a list of fields"),
        ("model: [", "line 1: invalid YAML: "),
        ("model: tiny\nn: 5\nn: 6", "line 3: n is given twice"),
        ("model: tiny\nn: 5\nlabel:\n- a: b\n  a: c", "line 5: a is given twice"),
        ("model: tiny\nn: 5\nlabel: &a [*a]", "line 3: label: "),
        ("n: " + "[" * 5000, "lists are nested too deeply"),
        ("model: tiny", "plan.yaml: n is missing"),
        ("n: 5", "plan.yaml: model is missing"),
        ("model: tiny\nlabel_: [red]\nn: 5", "line 2: no field is called 'label_'; there are: n, "),
        ("model: tiny\nn: 0", "line 2: n: "),
        ("model: tiny\nn: 1.5", "line 2: n: "),
        (
            "model: tiny\nn: [0, 0]\nlabel: [red, blue]",
            "line 2: n: should request at least",
        ),
        ("model: tiny\nn: [1, 2]\nlabel: red", "n has 2 counts for 1 labels"),
        ("model: tiny\nn: 5\n\nlabel: [7]", "line 4: label: should be a phrase"),
        ("model: tiny\nn: 5\n\nlabel: [yes]", "yes or no in quotes: '7'"),
        ("model: tiny\nn: 5\nseed: -1", "line 3: seed: "),
        ("model: tiny\nn: 5\ntruncation: 2", "line 3: truncation: "),
        (
            "model: tiny\nn: 5\nformat: tfrecord",
            "line 3: format: should be one of folder, npy, parquet",
        ),
        (
            "model: tiny\nn: 5\nsplits: {train: 2}",
            "line 3: splits: should be 1 to 8 different names",
        ),
        ("model: tiny\nn: 5\nsplits: {train: 0.5}", "the fractions sum to 0.5"),
        ("model: tiny\nn: 5\nformat: folder", "use the layout 'folders'"),
        ("model: tiny\nn: 5\nlayout: folders\nformat: npy", "it is for zip"),
        ("model: tiny\nn: 5\nimages_per_file: 0", "line 3: images_per_file: "),
        ("model: tiny\nn: 5\nimages_per_file: 1000001", "less than or equal to 1000000"),
        ("model: tiny\nlike: mine", "like and to belong together"),
        ("model: tiny\nlike: mine\nto: most", "line 3: to: "),
        ("model: tiny\nlike: mine\nto: 5\nn: 3", "omit label and n"),
        ("model: tiny\nn: 5\nverify: 2", "line 3: verify: "),
        ("model: ../x\nn: 5", "line 1: model: "),
    ],
)
def test_plans_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError) as told:
        read_plan(path, nothing)
    assert said in str(told.value) and str(path) in str(told.value)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (SMALL | {"verify": 0.9}, "use `figment fetch --plan`"),
        (SMALL | {"label": "rad"}, "did you mean 'red colour'?"),
        (SMALL | {"model": "nope"}, "no model 'nope' in "),
        (SMALL | {"version": 7}, "model 'tiny' has no version 7; available: 1, 2, latest"),
        (SMALL | {"offset": 2**53 - 50}, f"the last index may be at most {2**53 - 1}"),
        ({"model": "free", "n": 5, "label": "red"}, "this model is unconditional"),
        ({"model": "free", "n": 5, "layout": "folders"}, "the model is unconditional"),
        (SMALL | {"by": "shape"}, "unknown attribute 'shape'; the model has: colour, size"),
        (SMALL | {"n": 2 * 10**6 + 1, "images_per_file": 2}, "has 1,000,001 files, and a set"),
        (SMALL | {"n": 2**53}, "raise images_per_file, or build several sets"),
    ],
)
def test_plans_that_do_not_fit(command: Command, plan: dict[str, Any], said: str) -> None:
    assert said in command.refuse(plan)


def test_options_that_do_not_fit(command: Command) -> None:
    assert "CUDA is not available" in command.refuse(SMALL, "--device", "cuda")
    told = command.refuse(SMALL, "--device", "cuda", "--workers", "2")
    assert "--workers 2 is for CPUs: a GPU computes images in one process" in told


def test_a_model_file_that_is_too_large(models: Path, command: Command) -> None:
    path = models / "large" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes((1 << 20) + 1))
    command.variables["FIGMENT_MAX_MODEL_MB"] = "1"
    assert "larger than the 1 MB" in command.refuse(SMALL | {"model": "large"})
    told = command.refuse(SMALL | {"model": "large"}, "--max-model-mb", "2")
    assert "larger" not in told


def test_what_a_plan_leaves_open(command: Command) -> None:
    """The highest version, a drawn seed, drawn labels: all stand in the manifest, and stay."""
    said = command.run({"model": "tiny", "n": 3000})
    found = json.loads(read(command.out)["manifest.json"])
    assert f"3,000 images of tiny version 2, seed {found['origin']['seed']}, in " in said
    assert found["labels"] == [{"label": None, "images": 3000, "tried": 3000}]
    before = read(command.out)
    # As if it had been killed after its first file; and there is another version meanwhile.
    put(command.models, "tiny", 3, model(manifest(COLOURS)))
    try:
        for path in command.made()[1:]:
            path.unlink()
        found |= {"files": found["files"][:1], "complete": False}
        (command.out / "manifest.json").write_text(json.dumps(found))
        command.build({"model": "tiny", "n": 3000})
    finally:
        (command.models / "tiny" / "3" / "model.onnx").unlink()
    assert read(command.out) == before
    sizes = [sample["json"]["labels"]["size"] for sample in load(map(str, command.made()))]
    assert 200 < sizes.count("large") < 400  # a tenth, as in the training data
