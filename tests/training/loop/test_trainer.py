from __future__ import annotations

import copy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from service.core import latents
from service.core.atomic_write import write_atomically
from tests.helpers.server import ROOT
from tests.helpers.small_runs import training
from training.config import TrainingConfig
from training.core.pixels import to_networks
from training.core.randomness import batch_indices, stream
from training.data import Dataset, avatars
from training.errors import CheckpointError, Diverged, Interrupted, RunError
from training.loop.loop import train
from training.loop.trainer import Trainer
from training.networks import ema
from training.networks.conditioning import condition_rows, mismatch
from training.networks.networks import Discriminator, Generator
from training.networks.norms import BatchNorm
from training.runs.run import DatasetDescription, Run

Start = Callable[..., Run]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces() -> Dataset:
    """64 avatars of 16x16, which trains in no time."""
    drawn = avatars.draw(64)
    return Dataset("avatars", drawn.images[:, ::4, ::4].copy(), drawn.labels, drawn.attributes)


def laid_out(folder: Path, config: TrainingConfig, dataset: Dataset) -> Run:
    run = Run.plan(folder, config, DatasetDescription.of(dataset, "MIT"))
    run.create()
    return run


@pytest.fixture
def start(tmp_path: Path, faces: Dataset) -> Start:
    """Lay out a small run: 12 steps, a tick every other, a snapshot every third."""

    def create(folder: str = "run", **options: object) -> Run:
        settings: dict[str, object] = {
            "data": "avatars",
            "name": "tiny",
            "kimg": 0.192,
            "batch": 16,
            "width": 4,
            "latent_size": 8,
            "mirror": True,
            "tick_kimg": 0.032,
            "snapshot_kimg": 0.048,
            "device": "cpu",
            "precision": "float32",
            "hold_out": 0,
        }
        config = TrainingConfig.model_validate(settings | options)
        return laid_out(tmp_path / folder, config, faces)

    return create


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def data(faces: Dataset) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(faces.images), torch.from_numpy(faces.labels)


def trainer_of(run: Run) -> Trainer:
    return Trainer(run.config, run.dataset)


def written_out(
    trainer: Trainer, images: Tensor, labels: Tensor
) -> tuple[Generator, Discriminator]:
    """The networks after the next step, computed the long way from the formulas alone."""
    config, sizes, shown = trainer.config, trainer.sizes, trainer.shown
    generator = copy.deepcopy(trainer.generator)
    discriminator = copy.deepcopy(trainer.discriminator)

    def drawn(purpose: str) -> torch.Generator:
        return stream(config.seed, purpose, shown, CPU)

    def label_losses(logits: Tensor) -> Tensor:
        heads = zip(logits.split(list(sizes), dim=1), right.T, strict=True)
        return config.label_weight * sum((cross_entropy(h, y) for h, y in heads), torch.zeros(()))

    def adam_step(network: nn.Module, loss: Tensor) -> None:
        network.zero_grad()
        loss.backward()
        betas = (config.beta1, config.beta2)
        torch.optim.Adam(network.parameters(), config.lr, betas, foreach=False).step()

    chosen = batch_indices(config.seed, len(images), shown, config.batch, CPU)
    right = labels[chosen]
    condition = condition_rows(right, sizes)
    known = torch.ones_like(right, dtype=torch.bool)
    wrong = condition_rows(mismatch(right, known, sizes, drawn("mismatch"))[0], sizes)
    real = to_networks(images[chosen])
    coins = torch.rand(config.batch, generator=drawn("mirror"))
    real[coins < 0.5] = real[coins < 0.5].flip(-1)
    fake = generator(
        torch.randn(config.batch, config.latent_size, generator=drawn("latent")), condition
    )

    (on_right, on_wrong), read = discriminator(real, condition, wrong)
    (on_fake,), _ = discriminator(fake.detach(), condition)
    d_loss = -logsigmoid(on_right).mean()
    d_loss = d_loss - (logsigmoid(-on_fake).mean() + logsigmoid(-on_wrong).mean()) / 2
    adam_step(discriminator, d_loss + label_losses(read))

    (on_fake,), read = discriminator(fake, condition)
    adam_step(generator, -logsigmoid(on_fake).mean() + label_losses(read))
    return generator, discriminator


def test_a_step_is_what_the_formulas_say(start: Start, faces: Dataset) -> None:
    trainer = trainer_of(start())
    generator, discriminator = written_out(trainer, *data(faces))
    trainer.step(*data(faces))
    for found, expected in ((trainer.discriminator, discriminator), (trainer.generator, generator)):
        pairs = zip(found.parameters(), expected.parameters(), strict=True)
        difference = torch.cat([(one - other).flatten().abs() for one, other in pairs])
        # Adam's first step moves every weight by the learning rate, one way or the other; where the
        # gradient is zero but for rounding, it may be the other.
        assert (difference > 0.05 * trainer.config.lr).float().mean() < 0.01


def test_each_step_leaves_the_other_network_untouched(start: Start, faces: Dataset) -> None:
    trainer = trainer_of(start())
    states: dict[str, dict[str, Tensor]] = {"start": tensors(trainer.generator)}
    step = trainer.d_adam.step

    def remember() -> None:
        step()
        states["generator"] = dict(trainer.generator.named_parameters())
        states["discriminator"] = tensors(trainer.discriminator)
        assert all(torch.equal(p, states["start"][name]) for name, p in states["generator"].items())

    # Put on the instance: mypy would have it on the class, where the other optimizer is, too.
    trainer.d_adam.step = remember  # type: ignore[method-assign, assignment]
    trainer.step(*data(faces))
    # The whole state, buffers too: batch norm must not have learnt from the generator's step.
    assert equal(tensors(trainer.discriminator), states["discriminator"])
    assert not equal(tensors(trainer.generator), states["start"])
    assert all(parameter.requires_grad for parameter in trainer.discriminator.parameters())


def test_mirroring_swaps_left_and_right_of_every_other_image(start: Start) -> None:
    image = torch.arange(3 * 16 * 16.0).reshape(1, 3, 16, 16)
    mirrored = trainer_of(start(batch=100))._mirrored(image.expand(100, -1, -1, -1))
    swapped = torch.tensor([torch.equal(one, image[0].flip(-1)) for one in mirrored])
    assert 30 < swapped.sum() < 70
    assert all(
        torch.equal(one, image[0]) for one, was in zip(mirrored, swapped, strict=True) if not was
    )
    plain = trainer_of(start("plain", mirror=False))._mirrored(image)
    assert torch.equal(plain, image)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_run_leaves_what_it_promises(start: Start, faces: Dataset, labelled: bool) -> None:
    run = start()
    if not labelled:
        faces = Dataset("avatars", faces.images, faces.labels[:, :0], ())
        run = laid_out(run.folder / "free", run.config, faces)
    train(run, faces)

    lines = run.log.lines()
    assert [line["shown"] for line in lines] == [32, 64, 96, 128, 160, 192]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert ("d_mismatched" in lines[0]) == labelled
    with Image.open(run.folder / "reals.png") as reals:
        assert reals.size == (128, 128)
    with Image.open(run.folder / "curves.png") as curves:
        assert len(curves.getcolors(1 << 20) or []) > 100  # lines, text and what lies between
    grids = sorted(path.name for path in (run.folder / "samples").iterdir())
    assert grids == [f"{shown:09d}.png" for shown in (48, 96, 144, 192)]
    assert load_file(run.checkpoint)
    reopened = Run.open(run.folder)
    assert (reopened.config, reopened.dataset) == (run.config, run.dataset)


def test_training_learns_to_tell_real_from_fake_and_right_from_wrong(
    start: Start, faces: Dataset
) -> None:
    trainer = trainer_of(start(lr=1e-3, kimg=10))
    steps = [trainer.step(*data(faces)) for _ in range(150)]

    def late(name: str) -> float:
        return sum(step[name].item() for step in steps[-10:]) / 10

    assert late("d_real") > late("d_fake") + 0.2
    assert late("d_real") > late("d_mismatched") + 0.1
    assert late("d_label_loss") < 0.9 * steps[0]["d_label_loss"].item()


def test_same_seed_same_run_and_another_seed_another(start: Start, faces: Dataset) -> None:
    runs = [start("a"), start("b"), start("c", seed=1)]
    for run in runs:
        train(run, faces)
    one, same, other = (load_file(run.checkpoint) for run in runs)
    assert equal(one, same)
    assert not equal(one, other)


def test_resuming_equals_never_having_stopped(start: Start, faces: Dataset) -> None:
    whole = start("whole")
    train(whole, faces)

    # 1. A run is stopped after five steps, with a checkpoint.
    run = start("stopped")
    trainer = trainer_of(run)
    for _ in range(5):
        trainer.step(*data(faces))
    trainer.save(run.checkpoint)
    # 2. It had gone on and logged, then died in the middle of a line.
    run.log.append({"shown": 64})
    run.log.append({"shown": 96})
    with run.log.path.open("a") as file:
        file.write('{"shown": 1')
    # 3. It is resumed.
    train(Run.open(run.folder), faces)

    # Result: the same weights, optimizer states and averages, and a log without gaps or doubles.
    assert equal(load_file(whole.checkpoint), load_file(run.checkpoint))
    shown = [line["shown"] for line in run.log.lines()]
    assert shown == [64, 96, 128, 160, 192]


STOPPED = "train", "--data", "avatars:128", "--name", "tiny", "--width", "4", "--batch", "16"


def stopped(folder: Path, said: str) -> None:
    """What a signal leaves in the folder of a run, and says."""
    assert "stopping after this step" in said
    assert f"python -m training resume {folder}" in said
    trainer = trainer_of(Run.open(folder))
    trainer.load(folder / "checkpoint.safetensors")
    assert trainer.shown > 0
    assert trainer.shown % 16 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    folder, step = tmp_path / "run", Trainer.step

    def interrupted(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        if trainer.shown == 48 and folder.exists():  # and not before, as steps are timed
            signal.raise_signal(number)
        return step(trainer, *batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    done = training(*STOPPED, "--out", folder)
    assert done.exit_code == 128 + number  # so that `train && export` exports nothing
    stopped(folder, done.stderr)


def test_a_signal_from_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "training", *STOPPED, "--out", str(folder)]
    with subprocess.Popen(
        [*command, "--tick-kimg", "0.016"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (folder / "log.jsonl").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    stopped(folder, said)


def test_a_signal_in_the_last_step_costs_nothing(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(kimg=0.032)
    step = Trainer.step

    def last(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        if trainer.shown == 16:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *batch)

    monkeypatch.setattr(Trainer, "step", last)
    train(run, faces)
    assert [line["shown"] for line in run.log.lines()] == [32]
    assert run.sample_grid(32).exists()


def test_a_signal_in_a_snapshots_step_does_not_cost_the_snapshot(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step = start(), Trainer.step

    def interrupted(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        if trainer.shown == 80:  # the step to 96, where a snapshot is due
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *batch)

    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="after 96 images"):
        patched.setattr(Trainer, "step", interrupted)
        train(run, faces)
    train(run, faces)
    grids = sorted(path.stem for path in (run.folder / "samples").iterdir())
    assert grids == [f"{shown:09d}" for shown in (48, 96, 144, 192)]


def test_weights_that_are_no_numbers_are_neither_measured_nor_kept(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(snapshot_kimg=0.096)
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


def test_a_run_that_diverges_ends_and_keeps_its_checkpoint(start: Start, faces: Dataset) -> None:
    run = start(lr=1e30, tick_kimg=1)
    with pytest.raises(Diverged, match="NaN or infinite; there is no checkpoint"):
        train(run, faces)
    assert not run.checkpoint.exists()
    trainer_of(run).save(run.checkpoint)
    with pytest.raises(Diverged, match="the last checkpoint is kept"):
        train(run, faces)
    assert all(value.isfinite().all() for value in load_file(run.checkpoint).values())


def test_the_learning_rate_holds_and_then_falls_along_a_cosine(
    start: Start, faces: Dataset
) -> None:
    trainer = trainer_of(start(lr=1.0, lr_hold=0.5, kimg=1))
    rates = []
    for shown in (0, 500, 625, 750, 1000):
        trainer.shown = shown
        trainer._schedule()
        rates.append(trainer.g_adam.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 0.8536, 0.5, 0], abs=1e-4)


def test_average_has_its_half_life(start: Start) -> None:
    trainer = trainer_of(start())
    average, live = trainer.ema, trainer.generator
    for parameter in average.parameters():
        parameter.fill_(1.0)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.zero_()
    for step in range(1, 11):
        ema.update(average, live, shown=10**9 + step, batch=100, halflife=1000)
    assert next(average.parameters()).flatten()[0].item() == pytest.approx(0.5, rel=1e-5)


def test_settled_average_has_the_statistics_of_what_it_will_draw(
    start: Start, faces: Dataset
) -> None:
    trainer = trainer_of(start())
    trainer.step(*data(faces))
    trainer.recalibrate_batch_norm()
    convolution, norm = trainer.ema.blocks[0].convolution, trainer.ema.blocks[0].norm
    assert isinstance(norm, BatchNorm) and norm.running_mean is not None
    assert norm.running_var is not None
    latent = torch.from_numpy(latents.latents(0, 0, 4096, 8))
    labels = latents.draw_labels(0, 0, 4096, faces.attributes)
    condition = condition_rows(torch.from_numpy(labels), trainer.sizes)
    maps = convolution(torch.cat([latent, condition], dim=1)[:, :, None, None])
    deviation = maps.std(dim=(0, 2, 3))
    error = norm.running_mean - maps.mean(dim=(0, 2, 3))
    assert (error.abs() < 0.1 * deviation).all()
    assert norm.running_var.sqrt().numpy() == pytest.approx(deviation.detach().numpy(), rel=0.1)

    # In inference mode, so an image does not depend on its batch.
    alone = trainer.ema(latent[1:2], condition[1:2])
    assert torch.allclose(alone, trainer.ema(latent[:4], condition[:4])[1:2], atol=1e-6)


def test_a_used_folder_is_not_overwritten(start: Start, faces: Dataset) -> None:
    run = start()
    with pytest.raises(RunError, match=f"training resume {run.folder}"):
        laid_out(run.folder, run.config, faces)


def test_what_could_not_be_exported_is_not_trained(tmp_path: Path, faces: Dataset) -> None:
    odd = Dataset("odd", faces.images[:, :15, :15].copy(), faces.labels, faces.attributes)
    config = TrainingConfig(data="odd", name="odd")
    with pytest.raises(RunError, match="15x15 cannot be halved twice"):
        laid_out(tmp_path / "run", config, odd)
    assert not (tmp_path / "run").exists()


def test_other_data_is_refused_on_resume(start: Start, faces: Dataset) -> None:
    other = Dataset(faces.name, faces.images[::-1], faces.labels, faces.attributes)
    with pytest.raises(RunError, match="digest has changed"):
        train(start(), other)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"not safetensors at all"])
def test_a_damaged_checkpoint_is_refused(start: Start, faces: Dataset, damage: bytes) -> None:
    run = start()
    run.checkpoint.write_bytes(damage)
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        train(run, faces)


def test_a_checkpoint_of_another_network_is_refused(start: Start) -> None:
    narrow, wide = start("narrow"), start("wide", width=8)
    trainer_of(narrow).save(wide.checkpoint)
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        trainer_of(wide).load(wide.checkpoint)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
