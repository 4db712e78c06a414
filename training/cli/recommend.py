"""``python -m training recommend``: how many samples to add to own images."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.options import Data, RunFolder, Snapshot
from training.core.device import choose_device
from training.evaluation import recommendation
from training.runs.run import Run


@click.command()
@RunFolder
@click.option("--real", required=True, help="Your labelled images: a folder, zip or file.")
@Snapshot
@Data
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write [default: recommendation/ in the run's folder].",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=20,
    show_default=True,
    help="Most that it takes: classifiers are trained less, and mixes for which no time is left "
    "are not tried, but for the first.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to compute on.",
)
def recommend(
    run: Path,
    real: str,
    snapshot: str,
    data: str | None,
    out: Path | None,
    minutes: float,
    device: str,
) -> None:
    """Say how many samples of a run to add to your own images, if any.

    Compares mixes by cross-validation on your images. Writes recommendation.json, a plan for
    `fetch --plan` and `make-dataset`, unless no mix helps, and recommendation.md. Run the same
    command again to continue an interrupted search. `export` adds the advice to the model.
    """
    opened = Run.open(run)
    generator, shown = opened.load_snapshot(snapshot)
    advice = recommendation.recommend(
        opened,
        generator,
        shown,
        source=real,
        data=data,
        folder=out or opened.recommendation,
        minutes=minutes,
        device=choose_device(device),
    )
    click.echo(advice)
