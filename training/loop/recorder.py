"""The run's folder during training: logs, samples, scores, snapshots, checkpoint, verdict."""

from __future__ import annotations

import json
import math
from typing import Any, Never, TypeAlias, TypeVar

from tqdm import tqdm

from service.core.atomic_write import write_atomically
from training.core.durations import duration
from training.data import Dataset
from training.errors import Diverged, Failed
from training.evaluation import features
from training.evaluation.images import MIN_IMAGES, limits
from training.evaluation.snapshot_scores import Scorer
from training.loop import page
from training.loop.diagnosis import diagnose
from training.loop.estimate import recent_rate
from training.loop.tensorboard import TensorBoardLog
from training.loop.trainer import Trainer
from training.networks.networks import Generator
from training.plots import grids
from training.runs import checkpoint, sampling
from training.runs.ranking import faults
from training.runs.run import VERDICT, Run

GRID = 64
"""Images in ``reals.png`` and in each sample grid."""
KEPT = 3
"""Number of best snapshots kept, in addition to the last one."""

Progress: TypeAlias = "tqdm[Never]"
AnyFailure = TypeVar("AnyFailure", bound=Failed)


class RunRecorder:
    """Writes everything that a run leaves in its folder. Exists on rank 0 only."""

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        *,
        stop_on_failure: bool,
        tensorboard: TensorBoardLog | None,
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.stop_on_failure = stop_on_failure
        self.tensorboard = tensorboard
        self.scorer: Scorer | None = None
        self.ticks: list[dict[str, Any]] = []

    def begin(self, trained: Dataset, held_out: Dataset) -> None:
        """Bring the folder to the state of the checkpoint and prepare the scores of snapshots."""
        for unfinished in self.run.folder.rglob(".*.tmp"):  # left by a kill during a write
            unfinished.unlink()
        (self.run.folder / VERDICT).unlink(missing_ok=True)  # it was read before the run resumed
        if not self.run.checkpoint.exists():
            reals = trained.images[trained.spread(GRID)]
            write_atomically(self.run.folder / "reals.png", grids.grid(reals))
        for log in (self.run.log, self.run.scores):
            log.rewind(self.trainer.shown)
        self.ticks = self.run.log.lines()
        page.write(self.run)  # there is something to open while the features are trained
        if len(held_out) >= MIN_IMAGES:
            network = features.load_or_train(
                self.run.features,
                trained,
                mirror=self.run.config.mirror,
                device=self.trainer.device,
            )
            self.scorer = Scorer(held_out, network, self.run.config.augment, trained)
            if not self.run.real.exists():
                real = self.scorer.reference(trained).line()
                write_atomically(self.run.real, json.dumps(real) + "\n")
        else:
            print(limits(len(held_out)), flush=True)

    def log(self, line: dict[str, float], progress: Progress) -> None:
        """Append one tick to the logs. Raises ``Diverged`` if a value is NaN or infinite."""
        if not all(map(math.isfinite, line.values())):
            raise self._diverged()
        self.run.log.append(line)
        self.ticks.append(line)
        if self.tensorboard is not None:
            self.tensorboard.add_scalars(line)
        progress.set_postfix({name: line[name] for name in ("d_loss", "g_loss") if name in line})
        if progress.disable:
            print(_summary(self.ticks, self.run.config.kimg * 1000), flush=True)
        page.write(self.run)

    def save(self) -> None:
        """Write the checkpoint. Raises ``Diverged`` if a weight is NaN or infinite."""
        if not self.trainer.is_finite():  # keep the last checkpoint, which is finite
            raise self._diverged()
        self.trainer.save(self.run.checkpoint)

    def snapshot(self) -> None:
        """Sample, score, save and diagnose.

        The checkpoint is written last, after a verdict: a kill before it undoes all of this. Raises
        ``Diverged``, and ``Failed`` if the diagnosis finds a fault and ``stop_on_failure`` is set.
        """
        run, trainer = self.run, self.trainer
        trainer.recalibrate_batch_norm()
        if not trainer.is_finite():  # a score computed from NaN could pass for the best one
            raise self._diverged()
        average, line = self._best_average()
        grid = sampling.fixed_samples(average, run.dataset.attributes, GRID)
        write_atomically(run.sample_grid(trainer.shown), grids.grid(grid))
        weights = checkpoint.collect({"ema": average}, {})
        checkpoint.write(run.snapshot(trainer.shown), trainer.shown, weights)
        if line is not None:
            run.scores.append(line)
            if self.tensorboard is not None:
                self.tensorboard.add_scalars(line)
        if self.tensorboard is not None:
            self.tensorboard.add_grid(grid, trainer.shown)
        write_atomically(run.film, page.film(run))
        self._prune()
        failure = self._failure()
        trainer.save(run.checkpoint)
        page.write(run)
        if failure is not None:
            raise failure

    def _best_average(self) -> tuple[Generator, dict[str, float] | None]:
        """Moving average with the least faults, and its line of scores; one if not scored."""
        trainer = self.trainer
        if self.scorer is None:
            return trainer.ema, None
        shown = {"shown": trainer.shown}
        scored = [(trainer.ema, shown | self.scorer.line(trainer.ema))]
        for sigma, average in trainer.averages.items():
            line = shown | self.scorer.line(average) | {"ema_sigma": sigma}
            scored.append((average, line))
        return min(scored, key=lambda pair: faults(pair[1]))

    def _prune(self) -> None:
        """Delete all snapshots but the best ``KEPT`` and the last one."""
        kept = {self.run.snapshot(shown) for shown in self.run.best_shown(KEPT)}
        for path in self.run.snapshot(0).parent.glob("*.safetensors"):
            if path not in kept | {self.run.snapshot(self.trainer.shown)}:
                path.unlink()

    def _failure(self) -> Failed | None:
        """Error for what the diagnosis finds, with the verdict on disk."""
        if not self.stop_on_failure:
            return None
        real_grey = self.scorer.real_grey if self.scorer is not None else 0.0
        fault = diagnose(self.ticks, self.run.scores.lines(), self.run.config, real_grey)
        if fault is None:
            return None
        best = self.run.best_shown()
        kept = f" The best snapshot, after {best[0]} images, is kept." if best else ""
        shown, more = self.trainer.shown, ""
        if shown < self.run.config.kimg * 1000:
            command = f"figment resume --no-judge {self.run.folder.resolve()}"
            more = f" To continue anyway: `{command}`"
        return self._with_verdict(
            Failed(f"{self.run.folder}: stopped after {shown} images: {fault}.{kept}{more}")
        )

    def _diverged(self) -> Diverged:
        kept = (
            "the last checkpoint is kept"
            if self.run.checkpoint.exists()
            else "there is no checkpoint"
        )
        return self._with_verdict(
            Diverged(
                f"{self.run.folder}: after {self.trainer.shown} images a loss or weight is NaN or "
                f"infinite; {kept}. Try a lower --lr"
            )
        )

    def _with_verdict(self, failure: AnyFailure) -> AnyFailure:
        """Write ``verdict.txt``, so that torchrun's restarts do not repeat the failed run."""
        write_atomically(self.run.folder / VERDICT, str(failure))
        page.write(self.run)
        return failure


def _summary(ticks: list[dict[str, Any]], total: float) -> str:
    """The last tick as one line of text; ``total`` is the length of the run in images."""
    line = ticks[-1]
    seconds = max(total - line["shown"], 0) / recent_rate(ticks)
    statistics = " ".join(f"{name}={value}" for name, value in line.items())
    return f"{min(line['shown'] / total, 1):4.0%}, {duration(seconds)} left: {statistics}"
