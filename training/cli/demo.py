"""``python -m training demo``: small examples of GANs that learn."""

from __future__ import annotations

from pathlib import Path

import click
import torch
from tqdm import tqdm

from service.core.atomic_write import write_atomically
from service.core.latents import MAX_SEED
from training.demo import drawing
from training.demo import gaussian as gaussian_demo
from training.plots import grids


@click.group()
def demo() -> None:
    """Train small example GANs, each in about a minute."""


@demo.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo-gaussian"),
    show_default=True,
    help="Folder for the pictures.",
)
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=gaussian_demo.SEED, show_default=True
)
@click.option("--steps", type=click.IntRange(1), default=gaussian_demo.STEPS, show_default=True)
def gaussian(out: Path, seed: int, steps: int) -> None:
    """Learn N(4, 0.5), with and without minibatch discrimination.

    Writes gaussian.webp, an animation; gaussian.png, its last frame; and curves.png, mean and
    standard deviation over the steps.
    """
    torch.set_num_threads(1)  # sharing work this small costs more than doing it
    runs = []
    for minibatch in (False, True):
        name = f"{'with' if minibatch else 'without'} minibatch discrimination"
        states = gaussian_demo.train(minibatch=minibatch, seed=seed, steps=steps)
        total = len(gaussian_demo.shown_steps(steps))
        progress = tqdm(states, name, total, unit="state", disable=None)
        runs.append(drawing.Variant(name, list(progress)))
    variants = (runs[0], runs[1])
    write_atomically(out / "gaussian.webp", drawing.animation(variants))
    write_atomically(out / "gaussian.png", grids.png(drawing.densities(variants, -1)))
    write_atomically(out / "curves.png", grids.png(drawing.curves(variants)))
    for variant in variants:
        end = variant.states[-1]
        click.echo(f"{variant.name}: mean {end.mean:.2f}, standard deviation {end.stddev:.2f}")
