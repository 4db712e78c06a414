"""``python -m training train``: start a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli.options import build, options_of
from training.audit import audit
from training.cli.options import Judge, Open, TensorBoard, open_page, tensorboard_log
from training.config import TrainingConfig
from training.core import distributed
from training.core.device import choose_device, choose_precision
from training.core.durations import duration
from training.data import load, summary
from training.errors import RunError
from training.evaluation.images import limits
from training.loop import estimate, loop
from training.loop.tensorboard import check_installed
from training.presets import PRESETS
from training.runs.run import DatasetDescription, Run, check_unused, read_verdict


@click.command("train")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [runs/NAME].")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Named set of options; options on the command line override it.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print all options and the estimated duration, then exit."
)
@click.option(
    "--max-hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24,
    show_default=True,
    help="Refuse to start a run that would take longer.",
)
@Judge
@Open
@TensorBoard
@options_of(TrainingConfig)
def train(
    out: Path | None,
    preset: str | None,
    dry_run: bool,
    max_hours: float,
    judge: bool,
    opens: bool,
    tensorboard: bool,
    **options: Any,
) -> None:
    """Start a run.

    \b
    python -m training train --data avatars --name avatars --width 32 --kimg 200
    torchrun --nproc-per-node 8 -m training train ...    on several GPUs: docs/training.md
    """
    if options["data"] is not None and Path(options["data"]).exists():
        options["data"] = str(Path(options["data"]).resolve())  # `resume` may run elsewhere
    chosen = {name: value for name, value in options.items() if value is not None}
    config: TrainingConfig = build(TrainingConfig, PRESETS.get(preset or "", {}) | chosen)
    folder = out or Path("runs") / config.name
    if tensorboard:
        check_installed()  # before anything is on disk
    with distributed.process_group():
        is_first = distributed.rank() == 0
        if is_first:
            _check_folder(folder)
        # A run keeps its precision, wherever it is resumed.
        precision = choose_precision(config.precision, choose_device(config.device))
        config = config.model_copy(update={"precision": precision})
        dataset = load(config.data, **config.reading)
        if is_first:
            click.echo("\n".join(summary(dataset)), err=True)
            if config.mirror:
                click.echo("mirrored: every other image shown, at random (--no-mirror)", err=True)
            for warning in audit.warnings(audit.quick_audit(dataset), config.data):
                click.echo(f"warning: {warning}", err=True)
            if lacking := limits(int(dataset.held_out(config.hold_out).sum())):
                click.echo(f"warning: {lacking}", err=True)
        if config.images is not None:
            dataset.split(config.hold_out, config.images)  # raises DataError if there are fewer
        description = DatasetDescription.of(dataset, config.licence or dataset.licence)
        run = Run.broadcast(folder, Run.plan(folder, config, description))
        if distributed.any_rank(run.dataset.info.sha256 != dataset.sha256):
            raise RunError("the data is not the same for all processes: its digests differ")
        if is_first:
            click.echo("timing a few steps ...", err=True)
        rate = estimate.images_per_second(config, dataset)
        if dry_run:
            if is_first:
                _print_plan(run, rate)
            return
        _check_duration(config, rate, max_hours)
        if is_first and not (distributed.restarts() and run.exists()):
            run.create()
        if is_first:
            click.echo(f"page to watch: {run.page}", err=True)
        if opens:
            open_page(run)
        loop.train(
            run, dataset, stop_on_failure=judge, tensorboard=tensorboard_log(run, tensorboard)
        )


def _check_folder(folder: Path) -> None:
    """Raise ``RunError`` if a run has been started in ``folder``.

    With ``--max-restarts`` a started run is allowed, so that torchrun can resume it, unless it was
    stopped with a verdict.
    """
    if not distributed.restarts():
        check_unused(folder)
    elif verdict := read_verdict(folder):
        raise RunError(verdict)


def _print_plan(run: Run, rate: float) -> None:
    """Print the output of ``--dry-run``; ``rate`` is in images per second."""
    config = run.config
    click.echo(config.model_dump_json(indent=2))
    click.echo(f"run        {run.folder}")
    click.echo(
        f"duration   {duration(config.kimg * 1000 / rate)}, at {rate:.0f} images/s, as measured "
        "here on a few steps, without snapshots"
    )


def _check_duration(config: TrainingConfig, rate: float, max_hours: float) -> None:
    """Raise ``RunError`` if the run would take more than ``max_hours`` at ``rate`` images/s."""
    seconds = config.kimg * 1000 / rate
    if seconds > max_hours * 3600:
        raise RunError(
            f"{config.kimg:g} kimg would take about {duration(seconds)} here, at {rate:.0f} "
            "images/s. Lower --kimg, --width or the images' --size, use a GPU, or allow it with "
            "--max-hours"
        )
