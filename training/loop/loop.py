"""A run from its first image to its last: steps, ticks, snapshots."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from service.core.atomic_write import write_atomically
from training.core import distributed
from training.core.durations import duration
from training.core.interrupt import watch_signals
from training.data import Dataset
from training.errors import Diverged, Failed, Interrupted, RunError
from training.evaluation import features
from training.evaluation.images import MIN_IMAGES
from training.evaluation.snapshot_scores import Scorer
from training.loop.diagnosis import diagnose
from training.loop.tensorboard import TensorBoardLog
from training.loop.trainer import Trainer
from training.plots import grids
from training.plots.curves import draw as draw_curves
from training.runs import checkpoint, sampling
from training.runs.run import VERDICT, Run

GRID = 64
KEPT = 3
"""How many of the best snapshots are kept, beside the last one."""
Progress: TypeAlias = "tqdm[Never]"
Verdict = TypeVar("Verdict", bound=Failed)


@dataclass
class Tick:
    """What happened since the last line of the log."""

    steps: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, statistics: dict[str, Tensor]) -> None:
        self.steps += 1
        for name, value in statistics.items():
            self.totals[name] = self.totals.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def line(self, trainer: Trainer) -> dict[str, float]:
        # The one wait for the device in a tick.
        counts = torch.tensor(list(self.counts.values()), device=trainer.device)
        means = distributed.mean(torch.stack(list(self.totals.values())) / counts).tolist()
        rate = self.steps * trainer.config.batch / (time.perf_counter() - self.started)
        # Four digits, so that the slowest of runs does not round to a rate of zero.
        line = {"shown": trainer.shown, "images_per_second": float(f"{rate:.4g}")}
        return line | {name: round(mean, 4) for name, mean in zip(self.totals, means, strict=True)}


def train(
    run: Run, dataset: Dataset, *, judge: bool = True, board: TensorBoardLog | None = None
) -> None:
    """Train ``run`` on its data to the end, from its checkpoint where it has one.

    A signal ends it after the step at hand, with a checkpoint and ``Interrupted``. Raises
    ``Diverged``; ``Failed`` where training goes wrong otherwise, unless ``judge`` is false; and
    ``RunError`` where the data is not the run's.
    """
    if dataset.sha256 != run.dataset.info.sha256:
        raise RunError(f"the data is not what {run.folder} was trained on: its digest has changed")
    trained, held_out = dataset.split(run.config.hold_out)
    trainer = Trainer(run.config, run.dataset)
    _take_up(run, trainer)
    keeper = (
        RunRecorder(run, trainer, judge=judge, board=board) if distributed.rank() == 0 else None
    )
    if keeper is not None:
        keeper.begin(trained, held_out)
    images = torch.from_numpy(trained.images).to(trainer.device)
    labels = torch.from_numpy(trained.labels).to(trainer.device)

    total = round(run.config.kimg * 1000)
    tick = Tick()
    with watch_signals() as interrupt, _progress(run, trainer.shown, total) as progress:
        while trainer.shown < total:
            before = trainer.shown
            tick.add(trainer.step(images, labels))
            progress.update(run.config.batch)
            done = trainer.shown >= total
            ticks = _crossed(before, trainer.shown, run.config.tick_kimg) or done
            # Several processes stop together, and ask each other only as often as they log.
            stops = (ticks or distributed.world_size() == 1) and distributed.any_rank(
                interrupt.is_set
            )
            if ticks:
                line = tick.line(trainer)
                if keeper is not None:
                    keeper.log(line, progress)
                tick = Tick()
            snapshots = _crossed(before, trainer.shown, run.config.snapshot_kimg) or done
            if snapshots:
                began = time.perf_counter()
                if keeper is not None:
                    keeper.snapshot()
                tick.started += time.perf_counter() - began  # the rate is that of training
            if stops and not done:
                if keeper is not None and not snapshots:
                    keeper.save()
                raise Interrupted(
                    f"stopped after {trainer.shown} images; go on with "
                    f"`python -m training resume {run.folder}`",
                    interrupt.number,
                )


def _take_up(run: Run, trainer: Trainer) -> None:
    """Have all processes go on from the checkpoint of the first, where there is one."""
    own = checkpoint.shown(run.checkpoint) if run.checkpoint.exists() else 0
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
            f"the process of rank 0 goes on after {trainer.shown} images, and a checkpoint on "
            f"another host is further: copy {run.folder} from there to the host that is the first "
            "by name"
        )


class RunRecorder:
    """Everything that a run leaves in its folder, and what is made of it."""

    def __init__(
        self, run: Run, trainer: Trainer, *, judge: bool, board: TensorBoardLog | None
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.judge = judge
        self.board = board
        self.scorer: Scorer | None = None
        self.ticks: list[dict[str, Any]] = []

    def begin(self, trained: Dataset, held_out: Dataset) -> None:
        """Take up the folder where the checkpoint left it."""
        for unfinished in self.run.folder.rglob(".*.tmp"):  # a kill in the middle of a write
            unfinished.unlink()
        (self.run.folder / VERDICT).unlink(missing_ok=True)  # whoever goes on has read it
        if not self.run.checkpoint.exists():
            # Spread over the data, which may be sorted by label.
            spread = np.linspace(0, len(trained) - 1, min(GRID, len(trained))).astype(int)
            write_atomically(self.run.folder / "reals.png", grids.grid(trained.images[spread]))
        for log in (self.run.log, self.run.scores):
            log.rewind(self.trainer.shown)
        self.ticks = self.run.log.lines()
        if len(held_out) >= MIN_IMAGES:
            network = features.load_or_train(
                self.run.features,
                trained,
                mirror=self.run.config.mirror,
                device=self.trainer.device,
            )
            self.scorer = Scorer(held_out, network, self.run.config.augment)
        else:
            print(
                f"{len(held_out)} images are kept from training: too few (below {MIN_IMAGES}) to "
                "measure snapshots, so only divergence will be noticed",
                flush=True,
            )

    def log(self, line: dict[str, float], progress: Progress) -> None:
        if not all(map(math.isfinite, line.values())):
            raise self._diverged()
        self.run.log.append(line)
        self.ticks.append(line)
        if self.board is not None:
            self.board.add_scalars(line)
        progress.set_postfix({name: line[name] for name in ("d_loss", "g_loss") if name in line})
        if progress.disable:
            print(_summary(line, self.run.config.kimg * 1000), flush=True)

    def save(self) -> None:
        if not self.trainer.is_finite():  # it must not replace the last checkpoint
            raise self._diverged()
        self.trainer.save(self.run.checkpoint)

    def snapshot(self) -> None:
        """Draw, measure and save. The checkpoint comes last: a kill before it undoes the rest."""
        run, trainer = self.run, self.trainer
        trainer.settle()
        if not trainer.is_finite():  # nor may it be measured, or it could pass for the best
            raise self._diverged()
        grid = sampling.fixed_samples(trainer.ema, run.dataset.attributes, GRID)
        write_atomically(run.sample_grid(trainer.shown), grids.grid(grid))
        weights = checkpoint.collect({"ema": trainer.ema}, {})
        checkpoint.write(run.snapshot(trainer.shown), trainer.shown, weights)
        if self.scorer is not None:
            line = {"shown": trainer.shown} | self.scorer.measure(trainer.ema).line()
            run.scores.append(line)
            if self.board is not None:
                self.board.add_scalars(line)
        if self.board is not None:
            self.board.add_grid(grid, trainer.shown)
        curves = draw_curves(self.ticks, run.scores.lines())
        write_atomically(run.folder / "curves.png", curves)
        self._prune()
        trainer.save(run.checkpoint)
        self._diagnose()

    def _prune(self) -> None:
        kept = {self.run.snapshot(shown) for shown in self.run.best_shown(KEPT)}
        for path in self.run.snapshot(0).parent.glob("*.safetensors"):
            if path not in kept | {self.run.snapshot(self.trainer.shown)}:
                path.unlink()

    def _diagnose(self) -> None:
        if not self.judge:
            return
        real_grey = self.scorer.real_grey if self.scorer is not None else 0.0
        fault = diagnose(self.ticks, self.run.scores.lines(), self.run.config, real_grey)
        if fault is not None:
            best = self.run.best_shown()
            kept = f" The best snapshot, after {best[0]} images, is kept." if best else ""
            shown, more = self.trainer.shown, ""
            if shown < self.run.config.kimg * 1000:
                command = f"python -m training resume --no-judge {self.run.folder}"
                more = f" To go on all the same: `{command}`"
            raise self._ended(
                Failed(f"{self.run.folder}: stopped after {shown} images: {fault}.{kept}{more}")
            )

    def _ended(self, verdict: Verdict) -> Verdict:
        """Leave it in the folder: whoever starts failed processes again need not start this."""
        write_atomically(self.run.folder / VERDICT, str(verdict))
        return verdict

    def _diverged(self) -> Diverged:
        kept = (
            "the last checkpoint is kept"
            if self.run.checkpoint.exists()
            else "there is no checkpoint"
        )
        return self._ended(
            Diverged(
                f"{self.run.folder}: after {self.trainer.shown} images a loss or weight is not a "
                f"number; {kept}. Try a lower --lr"
            )
        )


def _crossed(before: int, after: int, kimg: float) -> bool:
    return int(before / (kimg * 1000)) < int(after / (kimg * 1000))


def _summary(line: dict[str, float], total: float) -> str:
    seconds = max(total - line["shown"], 0) / line["images_per_second"]
    statistics = " ".join(f"{name}={value}" for name, value in line.items())
    return f"{min(line['shown'] / total, 1):4.0%}, {duration(seconds)} left: {statistics}"


def _progress(run: Run, shown: int, total: int) -> Progress:
    """A bar with images/s and time left; where nobody watches, lines are printed instead."""
    return tqdm(
        desc=run.config.name,
        initial=shown,
        total=total,
        unit="img",
        unit_scale=True,
        disable=None if distributed.rank() == 0 else True,
        smoothing=0.05,
    )
