"""A run from its first image to its last: steps, ticks, snapshots."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from training.core import distributed
from training.core.interrupt import watch_signals
from training.data import Dataset
from training.errors import Interrupted, RunError
from training.loop import page
from training.loop.recorder import Progress, RunRecorder
from training.loop.tensorboard import TensorBoardLog
from training.loop.trainer import Trainer
from training.runs.run import Run


@dataclass
class Tick:
    """Sums of the statistics since the last log line."""

    steps: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Add the statistics of one step, scalars on the device."""
        self.steps += 1
        for name, value in statistics.items():
            self.totals[name] = self.totals.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def line(self, trainer: Trainer) -> dict[str, float]:
        """Means over the tick, averaged over all processes, as a log line. Collective."""
        # The only synchronisation with the device in a tick.
        counts = torch.tensor(list(self.counts.values()), device=trainer.device)
        means = distributed.mean(torch.stack(list(self.totals.values())) / counts).tolist()
        rate = self.steps * trainer.config.batch / (time.perf_counter() - self.started)
        # Four significant digits, so that a very slow run does not round to a rate of zero.
        line = {"shown": trainer.shown, "images_per_second": float(f"{rate:.4g}")}
        return line | {name: round(mean, 4) for name, mean in zip(self.totals, means, strict=True)}


def train(
    run: Run,
    dataset: Dataset,
    *,
    stop_on_failure: bool = True,
    tensorboard: TensorBoardLog | None = None,
) -> None:
    """Train ``run`` on its data to the end, from its checkpoint if it has one.

    The end is ``kimg``, or earlier the snapshot at which the scores have not improved for
    ``patience_kimg``.

    Raises ``Interrupted`` after SIGINT or SIGTERM, at the end of the current step and with a
    checkpoint; ``Diverged`` if a loss or weight is NaN or infinite; ``Failed`` if the diagnosis
    finds another fault and ``stop_on_failure`` is set; ``RunError`` if ``dataset`` is not the
    run's.
    """
    if dataset.sha256 != run.dataset.info.sha256:
        raise RunError(f"the data is not what {run.folder} was trained on: its digest has changed")
    trained, held_out = dataset.split(run.config.hold_out, run.config.images)
    trainer = Trainer(run.config, run.dataset)
    _resume(run, trainer)
    recorder = None
    if distributed.rank() == 0:
        recorder = RunRecorder(
            run, trainer, stop_on_failure=stop_on_failure, tensorboard=tensorboard
        )
        recorder.begin(trained, held_out)
    images = torch.from_numpy(trained.images).to(trainer.device)
    labels = torch.from_numpy(trained.labels).to(trainer.device)

    def has_plateaued() -> bool:
        return distributed.any_rank(recorder is not None and run.has_plateaued)

    total = round(run.config.kimg * 1000)
    ended = has_plateaued()
    tick = Tick()
    with watch_signals() as interrupt, _progress(run, trainer.shown, total) as progress:
        while trainer.shown < total and not ended:
            # Update both networks.
            before = trainer.shown
            tick.add(trainer.step(images, labels))
            progress.update(run.config.batch)
            is_last = trainer.shown >= total
            is_tick = _crossed(before, trainer.shown, run.config.tick_kimg) or is_last
            # Several processes stop together, and synchronise on it only when they log.
            stops = (is_tick or distributed.world_size() == 1) and distributed.any_rank(
                interrupt.is_set
            )

            # Log once per tick.
            if is_tick:
                line = tick.line(trainer)
                if recorder is not None:
                    recorder.log(line, progress)
                tick = Tick()

            # Sample, score and save once per snapshot.
            is_snapshot = _crossed(before, trainer.shown, run.config.snapshot_kimg) or is_last
            if is_snapshot:
                began = time.perf_counter()
                if recorder is not None:
                    recorder.snapshot()
                tick.started += time.perf_counter() - began  # the rate is that of training alone
                ended = has_plateaued()

            # Stop after a signal.
            if stops and not (is_last or ended):
                reason = (
                    f"stopped after {trainer.shown} images; continue with "
                    f"`figment resume {run.folder.resolve()}`"
                )
                if recorder is not None:
                    if not is_snapshot:
                        recorder.save()
                    page.write(run, reason)
                raise Interrupted(reason, interrupt.number)


def _resume(run: Run, trainer: Trainer) -> None:
    """Load the checkpoint of rank 0 into all processes, if there is one. Collective.

    Raises ``RunError`` if the checkpoint of another rank is further.
    """
    own = run.shown
    if distributed.rank() == 0:
        if own:
            trainer.load(run.checkpoint)
        distributed.broadcast_bytes(run.checkpoint.read_bytes() if own else b"")
    elif sent := distributed.broadcast_bytes(b""):
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(sent)
            copy.flush()
            trainer.load(Path(copy.name))
    if distributed.any_rank(own > trainer.shown):
        raise RunError(
            f"the process of rank 0 would continue after {trainer.shown} images, and a checkpoint "
            f"on another host is further: copy {run.folder} from there to the host of rank 0, the "
            "first by name"
        )


def _crossed(before: int, after: int, kimg: float) -> bool:
    """True if a multiple of ``kimg`` thousand lies in (before, after], both in images."""
    return int(before / (kimg * 1000)) < int(after / (kimg * 1000))


def _progress(run: Run, shown: int, total: int) -> Progress:
    """Progress bar in images on rank 0; disabled if stderr is no terminal (lines are printed)."""
    return tqdm(
        desc=run.config.name,
        initial=shown,
        total=total,
        unit="img",
        unit_scale=True,
        disable=None if distributed.rank() == 0 else True,
        smoothing=0.05,
    )
