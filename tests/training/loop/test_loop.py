from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from service.core.atomic_write import write_atomically
from tests.helpers.small_runs import Start, data, equal, run_of, trainer_of
from training.config import TrainingConfig
from training.data import Dataset
from training.errors import CheckpointError, Diverged, RunError
from training.loop.loop import train
from training.loop.trainer import Trainer
from training.runs.run import Run


@pytest.mark.parametrize("labelled", [True, False])
def test_run_folder_holds_logs_and_samples(start: Start, faces: Dataset, labelled: bool) -> None:
    run = start()
    if not labelled:
        faces = Dataset("avatars", faces.images, faces.labels[:, :0], ())
        run = run_of(run.folder / "free", run.config, faces)
    train(run, faces)

    lines = run.log.lines()
    assert [line["shown"] for line in lines] == [32, 64, 96, 128, 160, 192]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert ("d_mismatched" in lines[0]) == labelled
    with Image.open(run.folder / "reals.png") as reals:
        assert reals.size == (128, 128)
    grids = sorted(path.name for path in (run.folder / "samples").iterdir())
    assert grids == [f"{shown:09d}.png" for shown in (96, 192)]
    assert load_file(run.checkpoint)
    reopened = Run.open(run.folder)
    assert (reopened.config, reopened.dataset) == (run.config, run.dataset)


def test_runs_are_equal_exactly_if_their_seeds_are(start: Start, faces: Dataset) -> None:
    runs = [start("a"), start("b"), start("c", seed=1)]
    for run in runs:
        train(run, faces)
    one, same, other = (load_file(run.checkpoint) for run in runs)
    assert equal(one, same)
    assert not equal(one, other)


def test_resumed_run_equals_an_uninterrupted_one(start: Start, faces: Dataset) -> None:
    whole = start("whole")
    train(whole, faces)

    # 1. A run is stopped after five steps, with a checkpoint.
    run = start("stopped")
    trainer = trainer_of(run)
    for _ in range(5):
        trainer.step(*data(faces))
    trainer.save(run.checkpoint)
    # 2. It had gone on and logged, then died in the middle of a line.
    run.log.append({"shown": 64, "images_per_second": 9})
    run.log.append({"shown": 96, "images_per_second": 9})
    with run.log.path.open("a") as file:
        file.write('{"shown": 1')
    # 3. It is resumed.
    train(Run.open(run.folder), faces)

    # Result: the same weights, optimizer states and averages, and a log without gaps or doubles.
    assert equal(load_file(whole.checkpoint), load_file(run.checkpoint))
    shown = [line["shown"] for line in run.log.lines()]
    assert shown == [64, 96, 128, 160, 192]


def test_infinite_weights_are_neither_scored_nor_saved(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    step = Trainer.step

    def overflowing(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        statistics = step(trainer, *batch)
        if trainer.shown == 192:  # finite, but not what batch norm makes of it
            trainer.ema.blocks[0].convolution.weight.fill_(3e38)
        return statistics

    monkeypatch.setattr(Trainer, "step", overflowing)
    with pytest.raises(Diverged, match=r"after 192 images .* the last checkpoint is kept"):
        train(run, faces)
    assert [path.stem for path in (run.folder / "snapshots").iterdir()] == ["000000096"]


def test_diverged_run_stops_and_keeps_its_checkpoint(start: Start, faces: Dataset) -> None:
    run = start(lr=1e30, tick_kimg=1)
    with pytest.raises(Diverged, match="NaN or infinite; there is no checkpoint"):
        train(run, faces)
    assert not run.checkpoint.exists()
    trainer_of(run).save(run.checkpoint)
    with pytest.raises(Diverged, match="the last checkpoint is kept"):
        train(run, faces)
    assert all(value.isfinite().all() for value in load_file(run.checkpoint).values())


def test_used_folder_is_not_overwritten(start: Start, faces: Dataset) -> None:
    run = start()
    with pytest.raises(RunError, match=f"figment resume {run.folder}"):
        run_of(run.folder, run.config, faces)


def test_model_that_could_not_be_exported_is_not_trained(tmp_path: Path, faces: Dataset) -> None:
    odd = Dataset("odd", faces.images[:, :15, :15].copy(), faces.labels, faces.attributes)
    config = TrainingConfig(data="odd", name="odd")
    with pytest.raises(RunError, match="15x15 cannot be halved twice"):
        run_of(tmp_path / "run", config, odd)
    assert not (tmp_path / "run").exists()


def test_resume_rejects_other_data(start: Start, faces: Dataset) -> None:
    other = Dataset(faces.name, faces.images[::-1], faces.labels, faces.attributes)
    with pytest.raises(RunError, match="digest has changed"):
        train(start(), other)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"not safetensors at all"])
def test_damaged_checkpoint_is_rejected(start: Start, faces: Dataset, damage: bytes) -> None:
    run = start()
    run.checkpoint.write_bytes(damage)
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        train(run, faces)


def test_checkpoint_of_another_network_is_rejected(start: Start) -> None:
    narrow, wide = start("narrow"), start("wide", width=8)
    trainer_of(narrow).save(wide.checkpoint)
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        trainer_of(wide).load(wide.checkpoint)


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
