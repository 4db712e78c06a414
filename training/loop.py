"""A run from its first image to its last: steps, ticks, snapshots."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Never, TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training import pictures, sampling
from training.data import Dataset
from training.errors import Diverged, Interrupted, RunError
from training.files import write_atomically
from training.interrupt import watch
from training.run import Run
from training.trainer import Trainer

GRID = 64
Progress: TypeAlias = "tqdm[Never]"


@dataclass
class Tick:
    """What happened since the last line of the log."""

    steps: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, statistics: dict[str, Tensor]) -> None:
        self.steps += 1
        for name, value in statistics.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def line(self, trainer: Trainer) -> dict[str, float]:
        # The one wait for the device in a tick.
        means = (torch.stack(list(self.totals.values())) / self.steps).tolist()
        rate = self.steps * trainer.config.batch / (time.perf_counter() - self.started)
        # Four digits, so that the slowest of runs does not round to a rate of zero.
        line = {"shown": trainer.shown, "images_per_second": float(f"{rate:.4g}")}
        return line | {name: round(mean, 4) for name, mean in zip(self.totals, means, strict=True)}


def train(run: Run, dataset: Dataset) -> None:
    """Train ``run`` on its data to the end, from its checkpoint where it has one.

    A signal ends it after the step at hand, with a checkpoint and ``Interrupted``. Raises
    ``Diverged``, and ``RunError`` where the data is not the run's.
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
        while trainer.shown < total:
            before = trainer.shown
            tick.add(trainer.step(images, labels))
            progress.update(run.config.batch)
            done = trainer.shown >= total
            if _crossed(before, trainer.shown, run.config.tick_kimg) or done:
                _log(run, trainer, tick, progress)
                tick = Tick()
            if interrupt.signal is not None and not done:
                _save(run, trainer)
                raise Interrupted(
                    f"stopped after {trainer.shown} images; go on with "
                    f"`python -m training resume {run.folder}`",
                    interrupt.signal,
                )
            if _crossed(before, trainer.shown, run.config.snapshot_kimg) or done:
                began = time.perf_counter()
                _save(run, trainer)
                _draw(run, trainer)
                tick.started += time.perf_counter() - began  # the rate is that of training


def _crossed(before: int, after: int, kimg: float) -> bool:
    return int(before / (kimg * 1000)) < int(after / (kimg * 1000))


def _log(run: Run, trainer: Trainer, tick: Tick, progress: Progress) -> None:
    line = tick.line(trainer)
    if not all(map(math.isfinite, line.values())):
        raise _diverged(run, trainer)
    run.append_to_log(line)
    progress.set_postfix({name: line[name] for name in ("d_loss", "g_loss")})
    if progress.disable:
        total = run.config.kimg * 1000
        minutes = max(total - trainer.shown, 0) / line["images_per_second"] / 60
        statistics = " ".join(f"{name}={value}" for name, value in line.items())
        print(
            f"{min(trainer.shown / total, 1):4.0%}, {minutes:.0f} min left: {statistics}",
            flush=True,
        )


def _save(run: Run, trainer: Trainer) -> None:
    if not trainer.is_finite():  # it must not replace the last checkpoint
        raise _diverged(run, trainer)
    trainer.save(run.checkpoint)


def _draw(run: Run, trainer: Trainer) -> None:
    trainer.settle()
    samples = sampling.fixed_samples(trainer.ema, run.dataset.attributes, GRID)
    write_atomically(run.sample_grid(trainer.shown), pictures.grid(samples))


def _diverged(run: Run, trainer: Trainer) -> Diverged:
    kept = "the last checkpoint is kept" if run.checkpoint.exists() else "there is no checkpoint"
    return Diverged(
        f"{run.folder}: after {trainer.shown} images a loss or weight is not a number; {kept}. "
        "Try a lower --lr"
    )


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
