from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from huggingface_hub import ModelCard
from PIL import Image
from tritonclient.grpc import model_config_pb2

from service.core import latents
from service.core.atomic_write import write_atomically
from service.core.manifest import Manifest
from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.conftest import manifest as tiny_manifest
from tests.helpers.once import made_once
from tests.helpers.server import ROOT, serve
from tests.helpers.small_runs import create_run, training
from training.data import avatars, load
from training.errors import ExportError
from training.export import export, triton
from training.loop.loop import train
from training.networks.networks import Generator
from training.runs import sampling
from training.runs.log import Log
from training.runs.run import Run


@pytest.fixture(scope="session")
def run(trained: Path) -> Path:
    return trained


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the run as a served model, ``models``, and for Triton, ``triton``."""

    def make(folder: Path) -> None:
        done = training("export", run, "--to", folder / "models", "--triton", folder / "triton")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.strip() == str(folder / "models" / "small" / "1")

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture(scope="module")
def models(exported: Path) -> Path:
    return exported / "models"


@pytest.fixture
def repository(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the models for Triton."""
    return shutil.copytree(exported / "triton", tmp_path_factory.mktemp("copy") / "triton")


def average(run: Path) -> tuple[Generator, Manifest]:
    opened = Run.open(run)
    generator, shown = opened.load_snapshot("last")
    return generator, opened.manifest(shown)


@pytest.mark.server
def test_from_data_to_a_labelled_picture(models: Path) -> None:
    with serve("--models", str(models)) as server:
        answer = server.client.post("/generate/conditional", json={"label": "red hair", "n": 4})
        assert answer.status_code == 200
        assert [image["labels"]["hair"] for image in answer.json()["images"]] == ["red"] * 4


def test_the_folder_is_complete(models: Path) -> None:
    folder = models / "small" / "1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.onnx",
        "samples.png",
    ]
    with Image.open(folder / "samples.png") as samples:
        assert samples.height == (12 + 2) * 16  # a row for each value
    card = (folder / "README.md").read_text()
    assert "Not evaluated" not in card and "report.html" not in card
    for said in (
        "faces, 400 images",
        "MIT",
        "| glasses |",
        '"label": "aqua hair"',
    ):
        assert said in card


def test_card_is_one_of_the_hugging_face_hub(evaluated: Path, tmp_path: Path) -> None:
    done = training("export", evaluated, "--snapshot", "last", "--to", tmp_path)
    assert done.exit_code == 0, done.stderr
    card = ModelCard.load(tmp_path / "small" / "1" / "README.md")
    assert card.data.license == "mit"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert {"synthetic", "conditional"} <= set(card.data.tags)
    results = {each.metric_type: each for each in card.data.eval_results}
    found = json.loads((evaluated / "evaluation" / "report.json").read_text())
    (coverage,) = (each for each in found["metrics"] if each["name"] == "coverage")
    assert results["coverage"].metric_value == coverage["value"]
    assert results["coverage"].dataset_name == "faces"
    assert len(card.text.splitlines()) < 60


def test_advice_is_exported_with_its_plan(run: Path, tmp_path: Path) -> None:
    advised = shutil.copytree(run, tmp_path / "run")
    log = Run.open(advised).recommendation / "recommend.jsonl"
    Log(log).append({"shown": 384, "advice": "For your 400 images: add 100."})
    plan = {"model": "small", "n": 100, "seed": 4, "verify": 0.9}
    log.with_name("recommendation.json").write_text(json.dumps(plan))
    done = training("export", advised, "--snapshot", "last", "--to", tmp_path)
    assert done.exit_code == 0, done.stderr
    folder = tmp_path / "small" / "1"
    assert json.loads((folder / "recommendation.json").read_text()) == plan | {"version": 1}
    assert "For your 400 images: add 100." in (folder / "README.md").read_text()
    manifest = load_model(folder / "model.onnx", SessionFactory("cpu")).manifest
    assert manifest.recommendation == "For your 400 images: add 100."
    opened = Run.open(advised)
    assert opened.marginal_manifest(384, "free").recommendation is None
    assert opened.manifest(64).recommendation is None
    Log(log).append({"shown": 64, "advice": "For your 400 images: do not add any."})
    assert opened.manifest(384).recommendation is None  # the plan is of another snapshot


def test_graph_follows_the_contract(models: Path) -> None:
    path = models / "small" / "1" / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    operators = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in operators
    assert [opset.version for opset in model.opset_import if not opset.domain] == [20]
    assert {node.domain for node in model.graph.node} == {""}
    content = path.read_bytes()
    assert b".py" not in content
    assert str(ROOT).encode() not in content
    assert not any(node.metadata_props for node in model.graph.node)


def test_model_file_and_pytorch_draw_the_same(models: Path, run: Path) -> None:
    model = load_model(models / "small" / "1" / "model.onnx", SessionFactory("cpu"))
    attributes = model.manifest.attributes
    latent = latents.latents(1, 0, 64, model.manifest.latent_size)
    labels = latents.draw_labels(1, 0, 64, attributes)
    expected = sampling.sample(average(run)[0], latent, labels, attributes)
    images = model.generate(latent, model.vocabulary.condition(labels))
    difference = np.abs(images.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4


def test_the_manifest_says_where_the_model_comes_from(models: Path, run: Path) -> None:
    model = load_model(models / "small" / "1" / "model.onnx", SessionFactory("cpu"))
    provenance = model.manifest.provenance
    assert provenance.dataset == Run.open(run).dataset.info
    assert provenance.training["images_shown"] == 384
    assert provenance.training["width"] == 4
    assert str(run) not in model.manifest.model_dump_json()


def test_model_file_that_differs_from_pytorch_is_rejected(run: Path) -> None:
    generator, manifest = average(run)
    content = export.to_onnx(generator, manifest)
    with torch.no_grad():
        generator.to_image.weight.mul_(1.01)
    with pytest.raises(ExportError, match="ONNX Runtime and PyTorch disagree"):
        export.check_parity(generator, content, manifest)


@pytest.mark.parametrize("last_block", ["soft", "blurred", "nearest", "detail"])
def test_every_last_block_is_exported_with_standard_operators(last_block: str, run: Path) -> None:
    opened = Run.open(run)
    config = opened.config.model_copy(update={"last_block": last_block})
    sizes = opened.dataset.attribute_sizes
    generator = Generator(config, condition_size=sum(sizes), image_shape=opened.dataset.image_shape)
    content = export.to_onnx(generator.eval(), opened.manifest(shown=0))
    export.check_parity(generator, content, opened.manifest(shown=0))
    graph = onnx.load_from_string(content).graph
    before = onnx.load_from_string(export.to_onnx(*average(run))).graph
    assert {node.op_type for node in graph.node} <= {
        "Conv" if last_block == "detail" else "",
        *(node.op_type for node in before.node),
    }


def test_run_on_groups_becomes_an_unconditional_model(source: str, tmp_path: Path) -> None:
    faces = load(source, (), clusters=6)
    options = {"unconditional": True, "clusters": 6, "data": source, "kimg": 0.064}
    train(create_run(tmp_path / "run", faces, **options), faces, stop_on_failure=False)
    assert training("evaluate", tmp_path / "run").exit_code == 0
    report = json.loads((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert [each["name"] for each in report["labels"]["attributes"]] == list(avatars.VALUES)
    assert report["labels"]["right"] is None
    assert training("export", tmp_path / "run", "--to", tmp_path / "models").exit_code == 0
    folder = tmp_path / "models" / "small" / "1"
    model = load_model(folder / "model.onnx", SessionFactory("cpu"))
    assert model.manifest.kind == "unconditional"
    assert model.manifest.latent_size == 8 + 1
    assert "without labels, on 6 groups" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_avatars_of_128_pixels_train_evaluate_and_export(tmp_path: Path) -> None:
    options = ("--width", 2, "--batch", 16, "--kimg", 0.032, "--hold-out", 0.5)
    source = ("--preset", "faces-128", "--data", "avatars:128", "--name", "large")
    assert training("train", *source, *options, "--out", tmp_path / "run").exit_code == 0
    assert training("evaluate", tmp_path / "run").exit_code == 0
    report = json.loads((tmp_path / "run" / "evaluation" / "report.json").read_text())
    levels = [name for name in report["texture"]["samples"] if name.startswith("pyramid")]
    assert levels == ["pyramid_128", "pyramid_64", "pyramid_32", "pyramid_16"]
    assert training("export", tmp_path / "run", "--to", tmp_path / "models").exit_code == 0
    model = load_model(tmp_path / "models" / "large" / "1" / "model.onnx", SessionFactory("cpu"))
    assert model.manifest.image_shape == (128, 128, 3)


def test_weights_with_nan_are_not_exported(run: Path, tmp_path: Path) -> None:
    generator, _ = average(run)
    with torch.no_grad():
        generator.to_image.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExportError, match="NaN or infinite"):
        export.export(Run.open(run), generator, 0, tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_never_overwritten(models: Path, run: Path) -> None:
    before = (models / "small" / "1" / "model.onnx").read_bytes()
    done = training("export", run, "--to", models, "--version", "1")
    assert done.exit_code == 1
    assert "exists already" in done.stderr
    assert (models / "small" / "1" / "model.onnx").read_bytes() == before


def test_model_for_triton_is_the_served_one(exported: Path) -> None:
    made = sorted(str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file())
    assert made == [
        *(f"models/small/1/{name}" for name in ("README.md", "model.onnx", "samples.png")),
        "triton/small/1/model.onnx",
        "triton/small/config.pbtxt",
    ]
    served = exported / "models" / "small" / "1" / "model.onnx"
    assert (exported / "triton" / "small" / "1" / "model.onnx").read_bytes() == served.read_bytes()


def test_triton_knows_the_tensors_of_the_model(repository: Path) -> None:
    """As it reads them: by the schema of its own client."""
    config = parsed((repository / "small" / "config.pbtxt").read_text())
    assert (config.name, config.backend) == ("small", "onnxruntime")
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == triton.MAX_BATCH
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    graph = onnx.load(repository / "small" / "1" / "model.onnx").graph
    kinds = {
        onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32,
        onnx.TensorProto.UINT8: model_config_pb2.TYPE_UINT8,
    }
    for told, there in ((config.input, graph.input), (config.output, graph.output)):
        assert [(each.name, each.data_type, list(each.dims)) for each in told] == [
            (
                value.name,
                kinds[value.type.tensor_type.elem_type],
                [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]],
            )
            for value in there
        ]
        for value in there:
            assert value.type.tensor_type.shape.dim[0].dim_param  # any number of rows


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_an_unconditional_model_for_triton() -> None:
    config = parsed(triton.config(tiny_manifest()))
    assert [(each.name, list(each.dims)) for each in config.input] == [("latent", [8])]
    assert [(each.name, list(each.dims)) for each in config.output] == [("image", [16, 16, 3])]


def test_versions_for_triton_lie_side_by_side(tmp_path: Path) -> None:
    triton.add(tmp_path, tiny_manifest(), 1, b"first")
    path = tmp_path / "tiny" / "config.pbtxt"
    changed = path.read_text() + "instance_group [{ count: 2 }]\n"
    path.write_text(changed)
    triton.add(tmp_path, tiny_manifest(), 2, b"second")
    assert path.read_text() == changed and parsed(changed).instance_group[0].count == 2
    other = tiny_manifest(latent_size=9)
    with pytest.raises(ExportError, match="has other tensors"):
        triton.add(tmp_path, other, 3, b"third")
    found = {each.parent.name: each.read_bytes() for each in tmp_path.rglob("model.onnx")}
    assert found == {"1": b"first", "2": b"second"}
    assert sorted(each.name for each in path.parent.iterdir()) == ["1", "2", "config.pbtxt"]


def test_triton_repository_is_never_overwritten(
    run: Path, repository: Path, tmp_path: Path
) -> None:
    for options, said in (
        (["--version", "1"], "exists already: use another --version"),
        (["--unconditional", "free"], "has other tensors"),
    ):
        config = repository / "free" / "config.pbtxt"
        write_atomically(config, "input []")
        done = training("export", run, "--to", tmp_path, "--triton", repository, *options)
        assert done.exit_code == 1 and said in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert config.read_text() == "input []" and len(list(config.parent.iterdir())) == 1


def test_next_version_is_free_in_both_folders(run: Path, repository: Path, tmp_path: Path) -> None:
    done = training("export", run, "--to", tmp_path, "--triton", repository)
    assert done.stdout.strip() == str(tmp_path / "small" / "2")
    assert (repository / "small" / "2" / "model.onnx").exists()


def test_samples_of_a_run(run: Path, tmp_path: Path) -> None:
    done = training("sample", run, "-n", "6", "--label", "red hair", "--out", tmp_path / "grid.png")
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (3 * 16, 2 * 16)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", "nowhere", "--name", "x"], "nowhere: 1 problem"),
        (["train", "--data", "avatars:128", "--name", "X"], "--name: should be: Name of the model"),
        (
            ["train", "--data", "avatars:128", "--name", "x", "--lr", "fast"],
            "--lr: Input should be",
        ),
        (["train", "--data", "avatars:128", "--name", "x", "--widht", "8"], "--width"),
        (["resume", "nowhere"], "is not the folder of a run"),
        (["export", "nowhere"], "is not the folder of a run"),
    ],
)
def test_mistakes_are_reported_in_a_sentence(arguments: list[str], said: str) -> None:
    done = training(*arguments)
    assert done.exit_code in (1, 2)
    assert said in done.stderr


def test_a_mistake_ends_the_process_with_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", "resume", "nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: nowhere is not the folder of a run")
    assert "Traceback" not in done.stderr
