"""``python -m training sample``: a contact sheet of a run's generator."""

from __future__ import annotations

from pathlib import Path

import click

from service.core import latents
from service.core.atomic_write import write_atomically
from service.core.labels import Vocabulary
from service.core.latents import MAX_SEED
from training.cli.options import RunFolder, Snapshot
from training.plots import grids
from training.runs import sampling
from training.runs.run import Run


@click.command()
@RunFolder
@Snapshot
@click.option(
    "-n", type=click.IntRange(1, 4096), default=64, show_default=True, help="Number of images."
)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--label", help="Labels such as 'red eyes'; the other attributes are drawn.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG file to write.")
def sample(run: Path, snapshot: str, n: int, seed: int, label: str | None, out: Path) -> None:
    """Write a contact sheet of a run's samples.

    They are the images that the service would return for the same seed.
    """
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
