"""The command line: ``python -m training train|resume|sample|export|demo``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from service import cpus, latents
from service.errors import InvalidLabel
from service.labels import Vocabulary
from service.latents import MAX_SEED
from service.options import build, options_of
from training import pictures, sampling
from training.config import TrainingConfig
from training.data import load
from training.demo import drawing, gaussian
from training.errors import Interrupted, RunError, TrainingError
from training.export import export
from training.files import write_atomically
from training.loop import train
from training.networks import Generator
from training.run import DatasetDescription, Run, check_unused
from training.trainer import Trainer

EXPECTED = (TrainingError, InvalidLabel, OSError)

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


@click.group(cls=Cli, context_settings={"max_content_width": 100})
def main() -> None:
    """Train DCGANs on labelled images and export them for the service."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpus.available())


@main.command("train")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder [runs/NAME].")
@options_of(TrainingConfig)
def train_command(out: Path | None, **given: Any) -> None:
    """Start a run.

    \b
    python -m training train --data avatars --name avatars --width 32 --kimg 200
    """
    if given["data"] is not None and Path(given["data"]).exists():
        given["data"] = str(Path(given["data"]).resolve())  # to be found again by `resume`
    config: TrainingConfig = build(TrainingConfig, given)
    folder = out or Path("runs") / config.name
    check_unused(folder)
    dataset = load(config.data, config.attributes)
    description = DatasetDescription.of(dataset, config.licence or dataset.licence)
    train(Run.create(folder, config, description), dataset)


@main.command()
@RunFolder
@click.option("--data", help="Where the data lies now, if it has moved.")
def resume(run: Path, data: str | None) -> None:
    """Go on with a run from its last checkpoint, as if it had never stopped."""
    opened = Run.open(run)
    train(opened, load(data or opened.config.data, opened.config.attributes))


@main.command()
@RunFolder
@click.option("-n", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--label", help="A phrase such as 'red eyes'; what it leaves open is drawn.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
def sample(run: Path, n: int, seed: int, label: str | None, out: Path) -> None:
    """Draw a contact sheet from a run, the images that the service would give."""
    generator, opened, _ = _average(run)
    attributes = opened.dataset.attributes
    labels = latents.draw_labels(seed, 0, n, attributes)
    if label is not None:
        vocabulary = Vocabulary(attributes, where=str(run / "dataset.json"))
        for attribute, value in vocabulary.parse(label).items():
            labels[:, attribute] = value
    latent = latents.latents(seed, 0, n, generator.latent_size)
    images = sampling.sample(generator, latent, labels, attributes)
    write_atomically(out, pictures.grid(images))


@main.command("export")
@RunFolder
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="The models folder.",
)
@click.option("--version", type=click.IntRange(1), help="Left out, the next free one.")
def export_command(run: Path, to: Path, version: int | None) -> None:
    """Write a run's generator as a model file that the service loads."""
    generator, opened, shown = _average(run)
    click.echo(export(opened, generator, shown, to, version))


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
    write_atomically(out / "gaussian.png", drawing.png(drawing.densities(variants, -1)))
    write_atomically(out / "curves.png", drawing.png(drawing.curves(variants)))
    for variant in variants:
        end = variant.states[-1]
        click.echo(f"{variant.name}: mean {end.mean:.2f}, standard deviation {end.stddev:.2f}")


def _average(folder: Path) -> tuple[Generator, Run, int]:
    """The average generator of a run's checkpoint, on the CPU, and how many images it was shown."""
    run = Run.open(folder)
    if not run.checkpoint.exists():
        raise RunError(f"{folder} has no checkpoint yet")
    trainer = Trainer(run.config.model_copy(update={"device": "cpu"}), run.dataset)
    trainer.load(run.checkpoint)
    trainer.settle()
    return trainer.ema, run, trainer.shown


if __name__ == "__main__":
    sys.exit(main())
