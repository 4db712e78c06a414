"""Snapshots that a run keeps, how they are chosen, and the log for TensorBoard."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.helpers.small_runs import create_run, equal, some, tensors, trainer_of, training
from training.data import Dataset, load
from training.errors import RunError
from training.loop.loop import train
from training.loop.recorder import KEPT
from training.loop.tensorboard import TensorBoardLog
from training.runs.ranking import ranked
from training.runs.run import Run


@pytest.fixture(scope="module")
def faces(portraits: Dataset) -> Dataset:
    return some(portraits, 320, "eyes", "glasses")


@pytest.fixture(scope="module")
def finished(trained: Path) -> Run:
    """A run with six snapshots of different scores."""
    return Run.open(trained)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of ``trained`` in which the second oldest kept snapshot has the best score."""
    shutil.copytree(trained, tmp_path / "run")
    copied = Run.open(tmp_path / "run")
    lines = copied.scores.lines()
    chosen = kept(copied)[1]
    for line in lines:
        line["frechet"] = 0.0 if copied.snapshot(line["shown"]).stem == chosen else line["frechet"]
    copied.scores.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return copied


def kept(run: Run) -> list[str]:
    return sorted(path.stem for path in (run.folder / "snapshots").iterdir())


def shown_at_best(run: Run) -> int:
    (shown,) = (line["shown"] for line in run.scores.lines() if line["frechet"] == 0)
    return int(shown)


def test_every_snapshot_is_scored(finished: Run, source: str) -> None:
    lines = finished.scores.lines()
    assert [line["shown"] for line in lines] == [64, 128, 192, 256, 320, 384]
    _, held_out = load(source).split(0.3)
    assert {line["images"] for line in lines} == {len(held_out)}
    expected = {"fine", "hatch", "pyramid_16"}
    expected |= {"frechet", "precision", "recall", "density", "coverage", "duplicates", "grey"}
    assert all(line.keys() >= expected | {"labels_right", "hair_right"} for line in lines)
    assert len({line["frechet"] for line in lines}) == len(lines)
    grids = sorted(path.stem for path in (finished.folder / "samples").iterdir())
    assert grids == [f"{line['shown']:09d}" for line in lines]


def test_best_three_snapshots_and_the_last_are_kept(finished: Run) -> None:
    assert finished.best_shown(6) == ranked(finished.scores.lines())
    assert {*finished.best_shown(2), 384} <= {int(name) for name in kept(finished)}
    assert KEPT <= len(kept(finished)) <= KEPT + 1


def test_snapshot_holds_the_scored_average(finished: Run) -> None:
    last, shown = finished.load_snapshot("last")
    assert shown == 384
    weights = load_file(finished.checkpoint)
    assert all(
        torch.equal(value, weights[f"ema.{name}"]) for name, value in last.state_dict().items()
    )
    assert not last.training
    assert not any(parameter.requires_grad for parameter in last.parameters())


def test_snapshots_are_loaded_by_name(run: Run) -> None:
    best = shown_at_best(run)
    assert run.load_snapshot("best")[1] == best != 384
    assert run.load_snapshot("last")[1] == 384
    for name in kept(run):
        assert run.load_snapshot(name)[1] == int(name)


@pytest.mark.parametrize("name", ["000099000", "", "000000384.safetensors", "../best", "/", "."])
def test_unknown_snapshot_is_rejected_with_a_list(run: Run, name: str) -> None:
    with pytest.raises(RunError) as refused:
        run.load_snapshot(name)
    assert f"has no snapshot {name!r}; there are: {', '.join(kept(run))}" in str(refused.value)


def test_last_snapshot_is_the_best_without_scores(run: Run) -> None:
    run.scores.path.unlink()
    assert run.load_snapshot("best")[1] == 384


def test_only_the_last_snapshot_is_kept_without_held_out_images(
    faces: Dataset, tmp_path: Path
) -> None:
    run = create_run(
        tmp_path / "run", faces, kimg=0.128, hold_out=0.05
    )  # fewer than measuring needs
    train(run, faces)
    assert not run.scores.path.exists()
    assert kept(run) == ["000000128"]
    assert not run.features.exists()


def test_run_without_snapshots_cannot_be_loaded(faces: Dataset, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", faces)
    with pytest.raises(RunError, match="has no snapshot yet"):
        run.load_snapshot("best")


def test_best_snapshot_is_exported_by_default(run: Run, tmp_path: Path) -> None:
    models = tmp_path / "models"
    done = training("export", run.folder, "--to", models)
    assert done.exit_code == 0, done.output
    model = load_model(models / "small" / "1" / "model.onnx", SessionFactory("cpu"))
    assert model.manifest.provenance.training["images_shown"] == shown_at_best(run)

    refused = training("export", run.folder, "--to", models, "--snapshot", "a/b")
    assert refused.exit_code == 1
    assert f"there are: {', '.join(kept(run))}" in refused.output
    assert [path.name for path in (models / "small").iterdir()] == ["1"]


def test_samples_come_from_the_best_or_the_named_snapshot(run: Run, tmp_path: Path) -> None:
    pictures = {}
    for name in ("best", "last", kept(run)[1]):
        done = training(
            "sample", run.folder, "-n", 4, "--snapshot", name, "--out", tmp_path / "grid.png"
        )
        assert done.exit_code == 0, done.output
        pictures[name] = (tmp_path / "grid.png").read_bytes()
    assert pictures["best"] == pictures[kept(run)[1]] != pictures["last"]


def test_a_finished_run_says_so_and_can_be_made_longer(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    done = training("resume", folder, "--data", "nowhere")  # data is not loaded
    assert (done.exit_code, done.stdout) == (
        0,
        f"{folder} is finished, after 384 images; --kimg 0.768 makes it longer\n",
    )
    assert training("resume", folder, "--kimg", "0.416", "--no-judge").exit_code == 0
    run = Run.open(folder)
    assert (run.shown, run.config.kimg) == (416, 0.416)
    refused = training("resume", folder, "--kimg", "0.1")
    assert refused.exit_code == 1
    assert f"{folder} has shown 416 images: --kimg must be higher" in refused.stderr


def test_missing_tensorboard_is_reported_before_anything_is_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(RunError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path, 0)
    start = ("train", "--data", "nowhere", "--name", "x", "--out", tmp_path / "run")
    again = ("resume", trained, "--data", "nowhere")  # data is not loaded
    for command in (start, (*start, "--dry-run"), again):
        done = training(*command, "--tensorboard")
        assert done.exit_code == 1
        assert "--tensorboard needs TensorBoard: pip install tensorboard" in done.output
        assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_logs_and_samples(faces: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = create_run(tmp_path / "run", faces, kimg=0.128)
    train(run, faces, stop_on_failure=False, tensorboard=TensorBoardLog(run.folder, 0))
    events = EventAccumulator(str(run.folder))
    events.Reload()
    for log in (run.log, run.scores):
        for name in log.lines()[0].keys() - {"shown"}:
            found = [(event.step, event.value) for event in events.Scalars(name)]
            expected = [(line["shown"], pytest.approx(line[name])) for line in log.lines()]
            assert found == expected, name
    pictures = events.Images("samples")
    assert [event.step for event in pictures] == [64, 128]
    with (
        Image.open(io.BytesIO(pictures[-1].encoded_image_string)) as logged,
        Image.open(run.sample_grid(128)) as expected_picture,
    ):
        assert np.array_equal(np.asarray(logged), np.asarray(expected_picture))


def test_tensorboard_drops_events_that_a_resumed_run_repeats(
    faces: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # 1. A run wrote two ticks after its last checkpoint, then died.
    TensorBoardLog(tmp_path, 0).add_scalars({"shown": 100, "d_loss": 1})
    board = TensorBoardLog(tmp_path, 100)
    for shown in (200, 300):
        board.add_scalars({"shown": shown, "d_loss": 2})
    # 2. Resumed, it writes them again.
    TensorBoardLog(tmp_path, 100).add_scalars({"shown": 200, "d_loss": 3})
    # Result: each once.
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("d_loss")] == [(100, 1), (200, 3)]


def test_snapshot_is_of_the_average_with_the_least_faults(faces: Dataset, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", faces, ema_sigmas=(0.05, 0.2), kimg=0.128, lr=0.01)
    train(run, faces, stop_on_failure=False)
    trainer = trainer_of(run)
    trainer.load(run.checkpoint)
    line = run.scores.lines()[-1]
    average = trainer.averages.get(line.get("ema_sigma", 0.0), trainer.ema)
    generator, shown = run.load_snapshot("last")
    assert shown == line["shown"] == 128
    assert equal(tensors(generator), tensors(average))
    others = [each for each in (trainer.ema, *trainer.averages.values()) if each is not average]
    assert not any(equal(tensors(other), tensors(average)) for other in others)
