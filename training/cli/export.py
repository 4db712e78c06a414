"""``python -m training export``: a run's generator as a model file."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.options import ModelsFolder, RunFolder, Snapshot, Unconditional
from training.export.export import export as export_run
from training.runs.run import Run


@click.command()
@RunFolder
@Snapshot
@ModelsFolder
@click.option(
    "--version", type=click.IntRange(1), help="Version number [default: the next free one]."
)
@Unconditional
@click.option(
    "--triton",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write the model to this Triton model repository.",
)
def export(
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
    click.echo(export_run(opened, generator, shown, to, version, unconditional, triton))
