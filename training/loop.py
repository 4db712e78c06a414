"""A run from its first image to its last: steps, ticks, snapshots."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Never, TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training import pictures, sampling
from training.data import Dataset
from training.errors import Diverged, RunError
from training.files import write_atomically
from training.interrupt import watch
from training.run import Run
from training.trainer import STATISTICS, Trainer

GRID = 64
Progress: TypeAlias = "tqdm[Never]"


@dataclass
class Tick:
    """What happened since the last line of the log."""

    steps: int = 0
    total: Tensor | None = None
    started: float = field(default_factory=time.perf_counter)

    def add(self, statistics: Tensor) -> None:
        self.total = statistics if self.total is None else self.total + statistics
        self.steps += 1

    def line(self, trainer: Trainer) -> dict[str, float]:
        assert self.total is not None
        means = (self.total / self.steps).tolist()  # the one wait for the device in a tick
        rate = self.steps * trainer.config.batch / (time.perf_counter() - self.started)
        named = dict(zip(STATISTICS, means, strict=True))
        if not trainer.sizes:
            del named["d_mismatched"]
        return {"shown": trainer.shown, "images_per_second": round(rate, 1)} | {
            name: round(value, 4) for name, value in named.items()
        }


def train(run: Run, dataset: Dataset) -> None:
    """Train ``run`` on its data to the end, from its checkpoint where it has one.

    A signal ends it after the step at hand, with a checkpoint. Raises ``Diverged``, and
    ``RunError`` where the data is not the run's.
    """
    if dataset.sha256 != run.dataset.info.sha256:
        raise RunError(f"the data is not what {run.folder} was trained on: its digest has changed")
    trainer = Trainer(run.config, run.dataset)
    if run.checkpoint.exists():
        trainer.load(run.checkpoint)
    else:
        # Spread over the data, which may be sorted by label.
        spread = np.linspace(0, len(dataset) - 1, min(GRID, len(dataset))).astype(int)
        write_atomically(run.folder / "reals.png", pictures.grid(dataset.images[spread]))
    run.rewind_log(trainer.shown)
    images = torch.from_numpy(dataset.images).to(trainer.device)
    labels = torch.from_numpy(dataset.labels).to(trainer.device)

    total = round(run.config.kimg * 1000)
    tick = Tick()
    with watch() as interrupt, _progress(run, trainer.shown, total) as progress:
        while trainer.shown < total and not interrupt.requested:
            before = trainer.shown
            tick.add(trainer.step(images, labels))
            progress.update(run.config.batch)
            ending = trainer.shown >= total or interrupt.requested
            snapshot = _crossed(before, trainer.shown, run.config.snapshot_kimg) or ending
            # Always before a snapshot: a run that has diverged must not replace its checkpoint.
            if _crossed(before, trainer.shown, run.config.tick_kimg) or snapshot:
                _log(run, trainer, tick, progress)
                if snapshot:
                    _snapshot(run, trainer, labels)
                tick = Tick()  # anew after the snapshot: the rate is that of training
    if interrupt.requested:
        print(
            f"stopped after {trainer.shown} images; go on with "
            f"`python -m training resume {run.folder}`",
            file=sys.stderr,
        )


def _crossed(before: int, after: int, kimg: float) -> bool:
    return int(before / (kimg * 1000)) < int(after / (kimg * 1000))


def _log(run: Run, trainer: Trainer, tick: Tick, progress: Progress) -> None:
    line = tick.line(trainer)
    run.append_to_log(line)
    losses = {name: line[name] for name in ("d_loss", "g_loss")}
    if any(value != value for value in losses.values()):
        raise Diverged(
            f"{run.folder}: a loss is not a number after {trainer.shown} images; the last "
            "checkpoint is kept. Try a lower --lr"
        )
    progress.set_postfix(losses)
    if progress.disable:
        total = run.config.kimg * 1000
        minutes = max(total - trainer.shown, 0) / line["images_per_second"] / 60
        statistics = " ".join(f"{name}={value}" for name, value in line.items())
        print(f"{trainer.shown / total:4.0%}, {minutes:.0f} min left: {statistics}", flush=True)


def _snapshot(run: Run, trainer: Trainer, labels: Tensor) -> None:
    trainer.settle(labels)
    samples = sampling.fixed_samples(trainer.ema, run.dataset.attributes, GRID)
    write_atomically(run.sample_grid(trainer.shown), pictures.grid(samples))
    trainer.save(run.checkpoint)


def _progress(run: Run, shown: int, total: int) -> Progress:
    """A bar with images/s and time left; where nobody watches, ``_log`` prints lines instead."""
    return tqdm(
        desc=run.config.name,
        initial=shown,
        total=total,
        unit="img",
        unit_scale=True,
        disable=None,
        smoothing=0.05,
    )
