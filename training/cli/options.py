"""Arguments and options that several commands share."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from training.core import distributed
from training.loop import page
from training.loop.tensorboard import TensorBoardLog
from training.runs.run import Run

RunFolder = click.argument("run", type=click.Path(path_type=Path, file_okay=False))
Snapshot = click.option(
    "--snapshot",
    default="best",
    show_default=True,
    help="'best' (by Frechet and pyramid distance), 'last', or the name of a file in snapshots/, "
    "such as 000050048.",
)
Data = click.option("--data", help="Path of the data, if it has moved.")
Judge = click.option(
    "--judge/--no-judge",
    default=True,
    show_default=True,
    help="Stop a run whose generator collapses or whose discriminator wins.",
)
Unconditional = click.option(
    "--unconditional",
    metavar="NAME",
    help="Make an unconditional model of this name, which draws labels by their frequencies.",
)
ModelsFolder = click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="Models folder.",
)
Open = click.option("--open", "opens", is_flag=True, help="Open the run's page in the browser.")
TensorBoard = click.option("--tensorboard", is_flag=True, help="Also log for TensorBoard.")


def open_page(run: Run) -> None:
    """Open the page of ``run`` in the browser, on rank 0 only; it need not have been written."""
    if distributed.rank() == 0:
        page.write(run)
        webbrowser.open(run.page.resolve().as_uri())


def tensorboard_log(run: Run, enabled: bool) -> TensorBoardLog | None:
    """TensorBoard's log of ``run``, on rank 0 only; None if not ``enabled``."""
    if not enabled or distributed.rank() != 0:
        return None
    return TensorBoardLog(run.folder, run.shown)
