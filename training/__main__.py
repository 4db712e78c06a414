"""The command line: ``python -m training train|resume|sample|evaluate|export|audit|demo``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from service.cli.options import build, options_of
from service.core import cpus, latents
from service.core.atomic_write import write_atomically
from service.core.labels import Vocabulary
from service.core.latents import MAX_SEED
from service.errors import InvalidLabel
from training.audit import audit
from training.audit import report as audit_report
from training.config import DataConfig, TrainingConfig
from training.core import distributed
from training.core.device import choose_device, choose_precision
from training.core.durations import duration
from training.data import load, summary
from training.demo import drawing, gaussian
from training.errors import Interrupted, RunError, TrainingError
from training.evaluation import inception
from training.evaluation.command import evaluate_run
from training.evaluation.measure import Space
from training.export.export import export
from training.loop import estimate
from training.loop.loop import train
from training.loop.tensorboard import TensorBoardLog, check_installed
from training.plots import grids
from training.presets import PRESETS
from training.runs import checkpoint, sampling
from training.runs.run import DatasetDescription, Run, check_unused, read_verdict

EXPECTED = (TrainingError, InvalidLabel, OSError, MemoryError, torch.OutOfMemoryError)

RunFolder = click.argument("run", type=click.Path(path_type=Path, file_okay=False))


class Cli(click.Group):
    """Errors that a person can mend are told in a sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Interrupted as stopped:
            click.echo(stopped, err=True)
            ctx.exit(128 + stopped.signal)  # as a shell has it, so that && does not go on
        except EXPECTED as error:
            raise click.ClickException(str(error)) from error


SnapshotOption = click.option(
    "--snapshot",
    default="best",
    show_default=True,
    help="'best' by Frechet distance, 'last', or a file in snapshots/, such as 000050048.",
)
Judge = click.option(
    "--judge/--no-judge", default=True, show_default=True, help="Stop a run that goes wrong."
)
Unconditional = click.option(
    "--unconditional",
    metavar="NAME",
    help="Draw the labels, too, by frequency: an unconditional model of this name.",
)
TensorBoard = click.option("--tensorboard", is_flag=True, help="Log for TensorBoard, too.")


@click.group(cls=Cli, context_settings={"max_content_width": 100})
def main() -> None:
    """Train DCGANs on labelled images and export them for the service."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpus.available())


@main.command("train")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder [runs/NAME].")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Options that go together; those given beside it win.",
)
@click.option("--dry-run", is_flag=True, help="Print every option and how long it will take.")
@click.option(
    "--max-hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24,
    show_default=True,
    help="Refuse to start what would take longer.",
)
@Judge
@TensorBoard
@options_of(TrainingConfig)
def train_command(
    out: Path | None,
    preset: str | None,
    dry_run: bool,
    max_hours: float,
    judge: bool,
    tensorboard: bool,
    **given: Any,
) -> None:
    """Start a run.

    \b
    python -m training train --data avatars --name avatars --width 32 --kimg 200
    torchrun --nproc-per-node 8 -m training train ...    on several GPUs: docs/training.md
    """
    if given["data"] is not None and Path(given["data"]).exists():
        given["data"] = str(Path(given["data"]).resolve())  # to be found again by `resume`
    chosen = {name: value for name, value in given.items() if value is not None}
    config: TrainingConfig = build(TrainingConfig, PRESETS.get(preset or "", {}) | chosen)
    folder = out or Path("runs") / config.name
    if tensorboard:
        check_installed()  # before anything is on disk
    with distributed.process_group():
        if distributed.rank() == 0:
            _check_folder(folder)
        # A run keeps its precision, wherever it is resumed.
        precision = choose_precision(config.precision, choose_device(config.device))
        config = config.model_copy(update={"precision": precision})
        dataset = load(config.data, **config.reading)
        if distributed.rank() == 0:
            click.echo("\n".join(summary(dataset)), err=True)
            for warning in audit.warnings(audit.cheap(dataset), config.data):
                click.echo(f"warning: {warning}", err=True)
        description = DatasetDescription.of(dataset, config.licence or dataset.licence)
        run = Run.of_first(folder, Run.plan(folder, config, description))
        if distributed.any_rank(run.dataset.info.sha256 != dataset.sha256):
            raise RunError("the data is not the same for all processes: its digests differ")
        if distributed.rank() == 0:
            click.echo("timing a few steps ...", err=True)
        rate = estimate.images_per_second(config, dataset)
        if dry_run:
            if distributed.rank() == 0:
                _describe(run, rate)
            return
        _refuse_endless(config, rate, max_hours)
        if distributed.rank() == 0 and not (distributed.restarts() and run.is_laid_out()):
            run.lay_out()
        train(run, dataset, judge=judge, board=_board(run, tensorboard))


def _check_folder(folder: Path) -> None:
    """Raise ``RunError`` where a run has begun in ``folder``.

    One that may have to be gone on with may have, unless it came to an end that it would come to
    again.
    """
    if not distributed.restarts():
        check_unused(folder)
    elif ended := read_verdict(folder):
        raise RunError(ended)


@main.command()
@RunFolder
@click.option("--data", help="Where the data lies now, if it has moved.")
@Judge
@TensorBoard
def resume(run: Path, data: str | None, judge: bool, tensorboard: bool) -> None:
    """Go on with a run from its last checkpoint, as if it had never stopped."""
    if tensorboard:
        check_installed()
    with distributed.process_group():
        opened = Run.of_first(run, Run.open(run) if distributed.rank() == 0 else None)
        config = opened.config
        dataset = load(data or config.data, **config.reading)
        train(opened, dataset, judge=judge, board=_board(opened, tensorboard))


@main.command()
@RunFolder
@SnapshotOption
@click.option("-n", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--label", help="A phrase such as 'red eyes'; what it leaves open is drawn.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
def sample(run: Path, snapshot: str, n: int, seed: int, label: str | None, out: Path) -> None:
    """Draw a contact sheet from a run, the images that the service would give."""
    opened = Run.open(run)
    generator, _ = opened.load_snapshot(snapshot)
    attributes = opened.dataset.attributes
    labels = latents.draw_labels(seed, 0, n, attributes)
    if label is not None:
        vocabulary = Vocabulary(attributes, where=str(run / "dataset.json"))
        for attribute, value in vocabulary.parse(label).items():
            labels[:, attribute] = value
    latent = latents.latents(seed, 0, n, generator.latent_size)
    images = sampling.sample(generator, latent, labels, attributes)
    write_atomically(out, grids.grid(images))


@main.command("evaluate")
@RunFolder
@SnapshotOption
@click.option("--data", help="Where the data lies now, if it has moved.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option(
    "--inception",
    "weights",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Weights of FID's network (weights-inception-2015-12-05-6726825d.pth), to compare in its "
    "features, too.",
)
@click.option(
    "--utility/--no-utility",
    default=False,
    show_default=True,
    help="Train classifiers on real images, on samples and on both, which takes longer than the "
    "rest.",
)
@Unconditional
def evaluate_command(
    run: Path,
    snapshot: str,
    data: str | None,
    device: str,
    weights: Path | None,
    utility: bool,
    unconditional: str | None,
) -> None:
    """Measure a run's generator against the images that were kept from training.

    Writes evaluation/ in the run's folder: report.md, report.json, memorisation.png, and
    verifier.onnx where there are labels. `export` takes them along. What was interrupted goes on
    with the same command.
    """
    opened = Run.open(run)
    generator, shown = opened.load_snapshot(snapshot)
    chosen = choose_device(device)
    spaces = []
    if weights is not None:
        network = inception.load(weights, chosen)
        spaces.append(Space(inception.NAME, network.description, network.features))
    evaluate_run(
        opened,
        generator,
        shown,
        data=data,
        spaces=spaces,
        utility=utility,
        device=chosen,
        unconditional=unconditional,
    )
    click.echo(opened.evaluation(unconditional or opened.config.name) / "report.md")


@main.command("export")
@RunFolder
@SnapshotOption
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="The models folder.",
)
@click.option("--version", type=click.IntRange(1), help="Left out, the next free one.")
@Unconditional
@click.option(
    "--triton",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="A model repository of Triton, to write it there as well.",
)
def export_command(
    run: Path,
    snapshot: str,
    to: Path,
    version: int | None,
    unconditional: str | None,
    triton: Path | None,
) -> None:
    """Write a run's generator as a model file that the service loads."""
    opened = Run.open(run)
    generator, shown = opened.load_snapshot(snapshot)
    click.echo(export(opened, generator, shown, to, version, unconditional, triton))


@main.command("audit")
@click.argument("data")
@options_of(DataConfig, but={"data"})
@click.option("--against", metavar="OTHER", help="Data that should hold none of the same images.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="The JSON to write.")
@click.option("--out", type=click.Path(path_type=Path), help="The PNG of the worst pairs to write.")
def audit_command(
    against: str | None, json_file: Path | None, out: Path | None, **given: Any
) -> None:
    """Look for copies, contradictions and small classes in DATA.

    \b
    python -m training audit my-faces.zip --against held-out.zip --out pairs.png
    """
    config: DataConfig = build(DataConfig, given)
    dataset = load(config.data, **config.reading)
    # What the other data is labelled with does not matter here.
    other = None if against is None else load(against, **config.reading | {"attributes": ()})
    report = audit.audit(dataset, other)
    click.echo(audit_report.as_text(report, dataset, other))
    if json_file is not None:
        found = audit_report.as_json(report, dataset, other)
        write_atomically(json_file, json.dumps(found, indent=2) + "\n")
    if out is not None:
        picture = audit_report.as_picture(report, dataset, other)
        if picture is None:
            click.echo(f"no pairs to draw: {out} is not written", err=True)
        else:
            write_atomically(out, picture)


@main.group()
def demo() -> None:
    """Watch GANs learn on examples that take a minute."""


@demo.command("gaussian")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo-gaussian"),
    show_default=True,
    help="The folder for the pictures.",
)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=gaussian.SEED, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=gaussian.STEPS, show_default=True)
def gaussian_command(out: Path, seed: int, steps: int) -> None:
    """Learn N(4, 0.5), with and without minibatch discrimination.

    Writes gaussian.webp, an animation; gaussian.png, its end; and curves.png, mean and standard
    deviation over the steps.
    """
    torch.set_num_threads(1)  # sharing work this small costs more than doing it
    runs = []
    for minibatch in (False, True):
        name = f"{'with' if minibatch else 'without'} minibatch discrimination"
        states = gaussian.train(minibatch=minibatch, seed=seed, steps=steps)
        total = len(gaussian.shown_steps(steps))
        watched = tqdm(states, name, total, unit="state", disable=None)
        runs.append(drawing.Variant(name, list(watched)))
    variants = (runs[0], runs[1])
    write_atomically(out / "gaussian.webp", drawing.animation(variants))
    write_atomically(out / "gaussian.png", grids.png(drawing.densities(variants, -1)))
    write_atomically(out / "curves.png", grids.png(drawing.curves(variants)))
    for variant in variants:
        end = variant.states[-1]
        click.echo(f"{variant.name}: mean {end.mean:.2f}, standard deviation {end.stddev:.2f}")


def _describe(run: Run, rate: float) -> None:
    """What `--dry-run` says."""
    info, config = run.dataset.info, run.config
    height, width, channels = run.dataset.image_shape
    labels = ", ".join(f"{a.name} ({len(a.values)})" for a in run.dataset.attributes) or "none"
    click.echo(config.model_dump_json(indent=2))
    size = f"{width}x{height}x{channels}"
    click.echo(f"data       {info.images:,} images of {size}; labels: {labels}")
    click.echo(f"run        {run.folder}")
    click.echo(
        f"duration   {duration(config.kimg * 1000 / rate)}, at {rate:.0f} images/s, as measured "
        "here on a few steps, and snapshots beside"
    )


def _refuse_endless(config: TrainingConfig, rate: float, max_hours: float) -> None:
    seconds = config.kimg * 1000 / rate
    if seconds > max_hours * 3600:
        raise RunError(
            f"{config.kimg:g} kimg would take about {duration(seconds)} here, at {rate:.0f} "
            "images/s. Lower --kimg, --width or the images' --size, use a GPU, or allow it with "
            "--max-hours"
        )


def _board(run: Run, wanted: bool) -> TensorBoardLog | None:
    if not wanted or distributed.rank() != 0:
        return None
    return TensorBoardLog(
        run.folder, checkpoint.shown(run.checkpoint) if run.checkpoint.exists() else 0
    )


if __name__ == "__main__":
    sys.exit(main())
