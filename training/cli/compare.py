"""``python -m training compare``: runs side by side on one page."""

from __future__ import annotations

from pathlib import Path

import click

from service.core.atomic_write import write_atomically
from training.cli.options import Snapshot
from training.evaluation import comparison
from training.runs.run import Run


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path, file_okay=False))
@Snapshot
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="compare.html",
    show_default=True,
    help="HTML file to write.",
)
def compare(runs: tuple[Path, ...], snapshot: str, out: Path) -> None:
    """Compare runs on one page.

    Shows samples of the same latents and labels side by side, the options that differ, the scores
    of the snapshots and the evaluations. The file needs no network.
    """
    if len(runs) < 2:
        raise click.UsageError("name at least two runs")
    opened = [Run.open(run) for run in runs]
    chosen = [comparison.Snapshot.of(run, snapshot) for run in opened]
    write_atomically(out, comparison.as_html(chosen))
    click.echo(out)
