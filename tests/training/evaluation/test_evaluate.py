from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.helpers.image_files import as_folder, encoded
from tests.helpers.server import serve
from tests.helpers.small_runs import CPU, create_run, training
from tests.training.conftest import LABELS, pack
from training.data import Dataset, load
from training.errors import RunError
from training.evaluation import command
from training.evaluation.classifiers import ClassifierTraining
from training.evaluation.downstream import planned
from training.evaluation.report_html import scores
from training.loop.loop import train
from training.networks.networks import Generator
from training.runs.log import Log
from training.runs.run import Run


@pytest.fixture(scope="session")
def run(evaluated: Path) -> Path:
    return evaluated


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "evaluation" / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def held_out(run: Path) -> Dataset:
    config = Run.open(run).config
    return load(config.data, config.attributes).split(config.hold_out)[1]


def no_verifier(*_: object) -> None:
    """Replaces the export of the verifier, half of an evaluation, where no test reads it."""


def test_every_metric_has_its_sample_count_and_a_real_reference(
    held_out: Dataset, report: dict[str, Any]
) -> None:
    count = len(held_out)
    assert report["images_shown"] == 384
    assert report["samples"] == {"images": count, "seed": 2}
    names = [metric["name"] for metric in report["metrics"]]
    for wanted in ("Frechet distance", "recall", "coverage", "hair read as asked"):
        assert wanted in names
    for metric in report["metrics"]:
        assert metric["samples"] == count
        assert metric["real"] is not None
        assert metric["against"]


def test_untrained_generator_scores_worse_than_real_images(
    report: dict[str, Any],
) -> None:
    found = report["closeness"]["classifier"]
    assert found["samples"]["frechet"] > 5 * found["real"]["frechet"]
    assert found["samples"]["kernel"] > found["real"]["kernel"]
    assert abs(found["real"]["kernel"]) < 0.1 * found["samples"]["kernel"]
    assert found["samples"]["coverage"] < 0.5 < found["real"]["coverage"]
    assert report["labels"]["right"] < 0.5 < report["labels"]["real_right"]


def test_labels_are_scored_for_every_value(held_out: Dataset, report: dict[str, Any]) -> None:
    for a, (told, attribute) in enumerate(
        zip(report["labels"]["attributes"], held_out.attributes, strict=True)
    ):
        assert [value["value"] for value in told["values"]] == list(attribute.values)
        assert sum(value["samples"] for value in told["values"]) == len(held_out)
        for v, value in enumerate(told["values"]):
            assert value["real"] == int((held_out.labels[:, a] == v).sum())
        asked = [v["right"] * v["samples"] for v in told["values"] if v["samples"]]
        assert sum(asked) / len(held_out) == pytest.approx(told["right"])


def test_markdown_report_contains_the_numbers(run: Path, report: dict[str, Any]) -> None:
    text = (run / "evaluation" / "report.md").read_text()
    assert text.startswith("# small after 384 images\n")
    frechet = report["closeness"]["classifier"]
    wanted = "| Frechet distance | classifier | {:.3g} | {:.3g} |".format(
        frechet["samples"]["frechet"], frechet["real"]["frechet"]
    )
    assert wanted in text
    for heading in ("Fidelity and variety", "Error bars", "Labels", "Memorisation", "Privacy"):
        assert f"### {heading}\n" in text
    with Image.open(run / "evaluation" / "memorisation.png") as picture:
        # Two spaces; in each the samples, their neighbours, held-out images and theirs.
        assert picture.height == 2 * 4 * 64


def test_evaluation_is_deterministic(
    trained: Path, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_write_verifier", no_verifier)
    shutil.copytree(trained, tmp_path / "run")
    assert training("evaluate", tmp_path / "run", "--snapshot", "last").exit_code == 0
    again = tmp_path / "run" / "evaluation" / "report.json"
    assert json.loads(again.read_text()) == report


def test_run_on_a_part_of_the_images_is_measured_as_one_on_all(
    trained: Path, source: str, tmp_path: Path
) -> None:
    faces = load(source, ("hair", "glasses"))
    small = create_run(tmp_path / "run", faces, data=source, attributes=LABELS, images=100)
    few, held_out = command.split_data(small, None)
    everything, same = command.split_data(Run.open(trained), None)
    assert len(few) == 100 < len(everything) and few.among(everything).all()
    assert held_out.sha256 == same.sha256


def test_export_includes_the_evaluation(
    run: Path, held_out: Dataset, report: dict[str, Any], tmp_path: Path
) -> None:
    done = training("export", run, "--snapshot", "last", "--to", tmp_path)
    assert done.exit_code == 0, done.stderr
    folder = tmp_path / "small" / "1"
    model = load_model(folder / "model.onnx", SessionFactory("cpu"))
    assert [metric.model_dump() for metric in model.manifest.metrics] == report["metrics"]
    card = (folder / "README.md").read_text()
    coverage = scores(report)[0]
    assert f"| Faithful | {coverage.level} | {coverage.value} | {coverage.reference} |" in card
    assert "[report.html](report.html)" in card
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.onnx",
        "report.html",
        "report.json",
        "samples.png",
        "verifier.onnx",
    ]
    page = (run / "evaluation" / "report.html").read_bytes()
    assert (folder / "report.html").read_bytes() == page

    session = ort.InferenceSession(folder / "verifier.onnx", providers=["CPUExecutionProvider"])
    read = session.run(["hair", "glasses"], {"image": held_out.images})
    for a, probabilities in enumerate(read):
        right = float(np.mean(probabilities.argmax(axis=1) == held_out.labels[:, a]))
        told = report["verifier"][held_out.attributes[a].name]
        assert right == pytest.approx(told["right"], abs=0.01)


@pytest.mark.server
def test_server_returns_the_metrics_of_the_evaluation(
    run: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    assert training("export", run, "--snapshot", "last", "--to", tmp_path).exit_code == 0
    with serve("--models", str(tmp_path)) as running:
        answer: httpx.Response = running.client.get("/models/small/1")
        assert answer.json()["manifest"]["metrics"] == report["metrics"]


def test_export_ignores_the_evaluation_of_another_snapshot(run: Path, tmp_path: Path) -> None:
    first = min(path.stem for path in (run / "snapshots").glob("*.safetensors"))
    done = training("export", run, "--snapshot", first, "--to", tmp_path)
    assert done.exit_code == 0, done.stderr
    folder = tmp_path / "small" / "1"
    assert not (folder / "verifier.onnx").exists()
    assert "### Memorisation" not in (folder / "README.md").read_text()


def test_unconditional_model_is_measured_by_the_labels_of_its_data(
    source: str, tmp_path: Path
) -> None:
    faces = load(source, ())
    run = tmp_path / "free"
    train(create_run(run, faces, data=source, attributes=(), kimg=0.032), faces)
    assert training("evaluate", run).exit_code == 0
    found = json.loads((run / "evaluation" / "report.json").read_text())
    assert "labels" in found["spaces"]["classifier"]
    assert found["labels"]["right"] is None
    hair = next(each for each in found["labels"]["attributes"] if each["name"] == "hair")
    assert sum(value["samples"] for value in hair["values"]) == found["samples"]["images"]
    assert "| all together |  | " in (run / "evaluation" / "report.md").read_text()


def test_other_data_is_rejected(run: Path, portraits: Dataset, tmp_path: Path) -> None:
    pack(tmp_path / "fewer.zip", portraits, 399)
    done = training("evaluate", run, "--data", tmp_path / "fewer.zip")
    assert done.exit_code == 1
    assert "its digest has changed" in done.stderr


def test_run_without_held_out_images_is_rejected(source: str, tmp_path: Path) -> None:
    faces = load(source, ("hair", "glasses"))
    options = {"attributes": ("hair", "glasses"), "hold_out": 0, "kimg": 0.032}
    train(create_run(tmp_path / "run", faces, data=source, **options), faces)
    done = training("evaluate", tmp_path / "run")
    assert done.exit_code == 1
    assert "--hold-out" in done.stderr


@pytest.mark.slow
def test_trials_resume_after_an_interruption(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_write_verifier", no_verifier)
    monkeypatch.setattr(command, "BUDGETS", (3,))
    monkeypatch.setattr(command, "SEEDS", range(2))
    monkeypatch.setattr(command, "SYNTHETIC", 200)
    few = functools.partial(ClassifierTraining, min_passes=0.01, min_steps=2)
    monkeypatch.setattr(command, "ClassifierTraining", few)
    append, trials = Log.append, planned((3, None), range(2))

    def measure(folder: Path, stop_after: int) -> None:
        written = 0

        def append_and_count(log: Log, line: dict[str, Any]) -> None:
            nonlocal written
            append(log, line)
            written += 1
            if written == stop_after:
                raise KeyboardInterrupt

        monkeypatch.setattr(Log, "append", append_and_count)
        opened = Run.open(folder)
        generator, shown = opened.load_snapshot("last")
        command.evaluate_run(
            opened,
            generator,
            shown,
            data=None,
            spaces=(),
            classifier="small",
            device=CPU,
        )

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        shutil.copytree(run, folder)
    measure(whole, stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        measure(stopped, stop_after=3)
    with (stopped / "evaluation" / "utility.jsonl").open("a") as log:
        log.write(
            '{"shown": 384, "classifier": "small", "trial": {"arm": "re'
        )  # a kill in the middle of a line
    text = (stopped / "evaluation" / "report.md").read_text()
    assert "### Memorisation" in text  # what was measured before is told
    assert "help a classifier" not in text
    measure(stopped, stop_after=0)
    lines = (stopped / "evaluation" / "utility.jsonl").read_text().splitlines()
    assert len(lines) == len(trials)
    for name in ("report.json", "report.md", "report.html", "utility.png"):
        found, expected = (each / "evaluation" / name for each in (stopped, whole))
        assert found.read_bytes() == expected.read_bytes()
    text = (whole / "evaluation" / "report.md").read_text()
    assert "help a classifier" in text


def test_attribute_named_like_the_input_disables_only_the_verifier(
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faces = load(source, ("glasses",))
    (glasses,) = faces.attributes
    faces = replace(faces, attributes=(glasses.model_copy(update={"name": "image"}),))
    run = create_run(tmp_path / "run", faces, data=source, kimg=0.032)
    train(run, faces)
    monkeypatch.setattr(command, "load", lambda *_, **__: faces)
    generator, shown = run.load_snapshot("last")
    settings: dict[str, Any] = {"data": None, "spaces": (), "device": CPU}
    command.evaluate_run(run, generator, shown, classifier=None, **settings)
    assert "an attribute is called 'image'" in capsys.readouterr().err
    assert not (run.evaluation("small") / "verifier.onnx").exists()
    assert "| image | " in (run.evaluation("small") / "report.md").read_text()


def test_unconditional_model_with_unreadable_labels_is_measured(
    source: str,
    tmp_path: Path,
) -> None:
    """As where a column of the table is a caption."""
    faces = load(source, ())
    files = {f"{i}.png": encoded(Image.fromarray(x)) for i, x in enumerate(faces.images)}
    rows = "".join(f"{name},caption {name}\n" for name in files)
    table = {"metadata.csv": b"file_name,text\n" + rows.encode()}
    captioned = str(as_folder(tmp_path, files | table))
    data = load(captioned, ())
    run = create_run(tmp_path / "run", data, data=captioned, attributes=(), kimg=0.032)
    train(run, data)
    done = training("evaluate", run.folder)
    assert done.exit_code == 0, done.stderr
    assert "warning: labels cannot be read and are ignored" in done.stderr
    assert "classifier of rotations" in (run.evaluation("small") / "report.md").read_text()


def test_downstream_trials_of_an_unconditional_model_are_rejected(
    source: str, tmp_path: Path
) -> None:
    faces = load(source, ())
    create_run(tmp_path / "run", faces, data=source, attributes=())
    run = Run.open(tmp_path / "run")
    with pytest.raises(RunError, match="unconditional"):
        command.evaluate_run(
            run,
            Generator(run.config, condition_size=0, image_shape=run.dataset.image_shape),
            shown=0,
            data=None,
            spaces=(),
            classifier="small",
            device=CPU,
        )


def test_invalid_inception_weights_are_rejected_before_sampling(run: Path) -> None:
    done = training("evaluate", run, "--inception", run / "config.json")
    assert done.exit_code == 1
    assert "Inception" in done.stderr
    assert "drawing" not in done.stderr
