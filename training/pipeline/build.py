"""Phases of a build. Each looks at the run's folder for what it has done, so that the same command
continues a build that was interrupted anywhere.

Beside the files of the run, the folder has ``build.json``: the version that is exported, written
before the export.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from service.core.atomic_write import write_atomically
from training.audit import audit
from training.config import TrainingConfig
from training.core.device import choose_device, choose_precision
from training.core.durations import duration
from training.data import Dataset, load, summary
from training.errors import DataError, Failed, Interrupted, RunError
from training.evaluation import recommendation
from training.evaluation.command import evaluate_run
from training.evaluation.images import MIN_IMAGES
from training.export.export import export, next_version
from training.loop import estimate, loop, page
from training.pipeline import outlook, serving
from training.pipeline.choices import Choice, choose
from training.pipeline.reading import native_side, read
from training.runs import checkpoint
from training.runs.log import Log
from training.runs.run import (
    RECOMMEND_LOG,
    DatasetDescription,
    Run,
    check_unused,
    read_verdict,
)

PHASES = 7
MIN_COVERAGE = 0.1
"""Coverage of held-out images below which the best snapshot is not exported: it shows none of the
things in the images."""


@dataclass
class Build:
    """One build: what the user asked for, and the time it has."""

    given: TrainingConfig
    """Options with defaults for all that the user did not set."""
    fixed: dict[str, Any]
    """Options that the user set; they stay."""
    preset: str | None
    folder: Path
    """Folder of the run."""
    models: Path
    minutes: float
    server: str | None
    """Address of the service to reload."""
    judge: bool = True
    when_planned: Callable[[Run], None] | None = None
    """Called with the run before it trains."""
    deadline: float = field(init=False)
    """On the clock of ``time.monotonic``."""

    def run(self) -> None:
        """Run all phases that are not done. Raises ``TrainingError``."""
        self.deadline = time.monotonic() + self.minutes * 60
        if self.server is not None and (trouble := serving.trouble(self.server)):
            click.echo(f"warning: {trouble}: start it before the end of this build")
        begun = (self.folder / "config.json").exists()
        run, dataset = self._resumed() if begun else self._started()
        if self.when_planned is not None:
            self.when_planned(run)
        if (exported := self._exported()) is None:
            self._train(run, dataset)
            self._evaluate(run, dataset)
            self._recommend(run)
            exported = self._export(run)
        else:
            click.echo(f"{self.folder} is finished: {exported}")
        if self.server is None:
            self._say(7, "reload", f"skipped without --serve; `make serve` serves {exported}")
        else:
            self._say(7, "reload", self.server)
            click.echo(serving.reload(self.server, exported))

    @property
    def device(self) -> torch.device:
        return choose_device(self.given.device)

    def _say(self, number: int, phase: str, text: str) -> None:
        left = self.deadline - time.monotonic()
        clock = f"{duration(left)} left" if left > 0 else f"past the {self.minutes:g} minutes"
        click.echo(f"[{number}/{PHASES}] {phase}: {text} ({clock})")

    # Read, audit and choose.

    def _started(self) -> tuple[Run, Dataset]:
        """Read the data, choose the options, and create the run."""
        check_unused(self.folder)
        self._say(1, "read and audit", self.given.data)
        dataset, reading = read(self.given, self.fixed)
        report = audit.quick_audit(dataset)
        click.echo("\n".join(f"  {line}" for line in summary(dataset)))
        outlook.check(dataset, report)
        warnings = audit.warnings(report, self.given.data)
        self._say(2, "choose", "timing a few steps of some networks")
        choice = choose(
            self.given.model_copy(update=reading),
            self.fixed,
            self.preset,
            dataset,
            self.minutes,
            # Of two measurements, as other programs may disturb one: by a factor of ten, once.
            lambda config: max(estimate.images_per_second(config, dataset) for _ in range(2)),
        )
        warnings += outlook.outlook(dataset, choice, self.minutes, native_side(dataset))
        click.echo(f"  {_described(choice, dataset)}")
        for warning in warnings:
            click.echo(f"  warning: {warning}")
        # A run keeps its precision, wherever it is continued.
        precision = choose_precision(choice.config.precision, self.device)
        config = choice.config.model_copy(update={"precision": precision})
        licence = config.licence or dataset.licence
        run = Run.plan(self.folder, config, DatasetDescription.of(dataset, licence))
        run.create()
        return run, dataset

    def _resumed(self) -> tuple[Run, Dataset]:
        """Open the run and read its data. Raises ``RunError`` if the options or data are others."""
        run = Run.open(self.folder)
        for name, ours in self.fixed.items():
            its = getattr(run.config, name)
            if ours != its and ours != "auto":
                raise RunError(
                    f"{self.folder} was begun with {name.replace('_', '-')} {its}, not {ours}: "
                    "leave the option out to continue it, or choose another --name"
                )
        if run.config.data != self.given.data:
            raise RunError(
                f"{self.folder} was begun with {run.config.data}, not {self.given.data}: choose "
                "another --name"
            )
        self._say(1, "read", f"continuing {self.folder}")
        dataset = load(run.config.data, **run.config.reading)
        self._say(2, "choose", f"as in {self.folder / 'config.json'}")
        return run, dataset

    # Train.

    def _train(self, run: Run, dataset: Dataset) -> None:
        """Train to the end, or to a verdict. Raises ``Failed`` if no snapshot is of use."""
        total = run.config.kimg * 1000
        shown = checkpoint.shown(run.checkpoint) if run.checkpoint.exists() else 0
        self._say(3, "train", f"{shown:,} of {total:,.0f} images shown")
        verdict = read_verdict(run.folder)
        if not verdict:
            try:
                loop.train(run, dataset, stop_on_failure=self.judge)
            except Failed as failure:
                verdict = str(failure)
            except Interrupted as interrupted:
                raise Interrupted(
                    "stopped; the same command continues the build", interrupted.signal
                ) from interrupted
        covered = coverage(run)
        if verdict:
            if covered is None or covered < MIN_COVERAGE:
                raise Failed(f"{verdict}\nOr build with what it suggests, under another --name")
            click.echo(f"  {verdict} The build goes on with it")
            return
        if covered is not None and covered < MIN_COVERAGE:
            raise Failed(
                f"{self.folder}: no model is exported, because the best snapshot covers "
                f"{covered:.0%} of the held-out images ({MIN_COVERAGE:.0%} are needed). "
                f"{outlook.remedy(len(dataset), run.config.kimg)}. To export it anyway: "
                f"`figment export {self.folder}`"
            )
        ended = checkpoint.shown(run.checkpoint)
        if ended < total:
            click.echo(
                f"  ended after {ended:,} images: no snapshot was better for "
                f"{run.config.patience_kimg:g} kimg (--patience-kimg)"
            )

    # Evaluate and recommend.

    def _evaluate(self, run: Run, dataset: Dataset) -> None:
        generator, shown = run.load_snapshot("best")
        _, held_out = dataset.split(run.config.hold_out, run.config.images)
        if len(held_out) < MIN_IMAGES:
            self._say(4, "evaluate", f"skipped: {len(held_out)} held-out images are too few")
        elif run.report(shown, run.config.name) is not None:
            self._say(4, "evaluate", "done")
        else:
            self._say(4, "evaluate", f"the snapshot after {shown:,} images")
            evaluate_run(
                run,
                generator,
                shown,
                data=None,
                spaces=[],
                classifier=None,
                device=self.device,
            )
            page.write(run)
        if (report := run.report(shown, run.config.name)) is not None:
            folder = run.evaluation(run.config.name)
            click.echo(f"  {results(report)}: {folder / 'report.html'}")

    def _recommend(self, run: Run) -> None:
        """Recommend a mix, if there are labels and time. The weights do not depend on it."""
        folder = run.recommendation
        if not run.dataset.attributes or run.config.clusters is not None:
            self._say(5, "recommend", "skipped: there are no labels")
            return
        if (folder / "recommendation.md").exists():
            self._say(5, "recommend", "done")
            return
        begun = Log(folder / RECOMMEND_LOG).lines()
        minutes = begun[0]["minutes"] if begun else (self.deadline - time.monotonic()) / 60
        command = f"`figment recommend {run.folder} --real {run.config.data}`"
        if minutes <= 0:
            self._say(5, "recommend", f"skipped, no time is left: {command}")
            return
        self._say(5, "recommend", "how many samples help a classifier of these images")
        generator, shown = run.load_snapshot("best")
        try:
            advice = recommendation.recommend(
                run,
                generator,
                shown,
                source=run.config.data,
                data=None,
                folder=folder,
                minutes=minutes,
                device=self.device,
                may_exceed=bool(begun),
            )
            click.echo(f"  {advice}")
        except (RunError, DataError) as error:
            click.echo(f"  skipped: {error}. Later: {command}")

    # Export.

    def _exported(self) -> Path | None:
        """Folder of the exported model; None if there is none yet."""
        file = self.folder / "build.json"
        if not file.exists():
            return None
        target = Path(json.loads(file.read_bytes())["model"])
        return target if target.exists() else None

    def _export(self, run: Run) -> Path:
        version = next_version(self.models / run.config.name)
        target = (self.models / run.config.name / str(version)).resolve()
        self._say(6, "export", str(target))
        write_atomically(self.folder / "build.json", json.dumps({"model": str(target)}) + "\n")
        generator, shown = run.load_snapshot("best")
        return export(run, generator, shown, self.models, version).resolve()


def coverage(run: Run) -> float | None:
    """Share of the held-out images that the best snapshot covers; None without scores."""
    best = run.best_shown()
    return next((line["coverage"] for line in run.scores.lines() if line["shown"] in best), None)


def results(report: dict[str, Any]) -> str:
    """The main figures of a report, each with that of real images."""
    samples, real = (report["closeness"]["classifier"][role] for role in ("samples", "real"))
    found = [
        f"{name} {samples[name]:.2f} (real {real[name]:.2f})"
        for name in ("coverage", "recall")
        if name in samples
    ]
    labels = report["labels"]
    if labels["right"] is not None:
        found.append(f"all labels right {labels['right']:.0%} (real {labels['real_right']:.0%})")
    return ", ".join(found)


def _described(choice: Choice, dataset: Dataset) -> str:
    config = choice.config
    height, width, _ = dataset.images.shape[1:]
    seconds = config.kimg * 1000 / choice.rate
    words = [
        f"preset {choice.preset}",
        f"{width}x{height}",
        f"width {config.width}",
        f"batch {config.batch}",
        f"augment {','.join(config.augment) or 'none'}",
        "mirrored (--no-mirror if left and right differ)"
        if config.mirror
        else "not mirrored (--mirror)",
        f"{dataset.held_out(config.hold_out).sum()} images held out",
        f"{config.kimg:g} kimg at {choice.rate:.0f} images/s: {duration(seconds)}",
    ]
    return ", ".join(words)
