"""``python -m training evaluate``: measure a run's generator."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.options import Data, RunFolder, Snapshot, Unconditional
from training.core.device import choose_device
from training.evaluation import inception
from training.evaluation.command import CLASSIFIERS, evaluate_run
from training.evaluation.measure import Space
from training.loop import page
from training.runs.run import Run


@click.command()
@RunFolder
@Snapshot
@Data
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to compute on.",
)
@click.option(
    "--inception",
    "weights",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Weights of FID's network (weights-inception-2015-12-05-6726825d.pth), to also compare "
    "in its features.",
)
@click.option(
    "--utility/--no-utility",
    default=False,
    show_default=True,
    help="Train classifiers on real images, on samples and on both; takes hours.",
)
@click.option(
    "--classifier",
    type=click.Choice(list(CLASSIFIERS)),
    default="small",
    show_default=True,
    help="Classifier of --utility. The large one checks a gain, and takes five times as long.",
)
@Unconditional
def evaluate(
    run: Path,
    snapshot: str,
    data: str | None,
    device: str,
    weights: Path | None,
    utility: bool,
    classifier: str,
    unconditional: str | None,
) -> None:
    """Measure a run's generator against its held-out images.

    Writes evaluation/ in the run's folder: report.html, report.md, report.json, pictures,
    and verifier.onnx if there are labels. `export` adds them to the model. Run the same command
    again to continue an interrupted evaluation.
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
        classifier=classifier if utility else None,
        device=chosen,
        unconditional=unconditional,
    )
    page.write(opened)
    click.echo(opened.evaluation(unconditional or opened.config.name) / "report.md")
