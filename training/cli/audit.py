"""``python -m training audit``: check data before training on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from service.cli.options import build, options_of
from service.core.atomic_write import write_atomically
from training.audit import audit as auditing
from training.audit import report as audit_report
from training.config import DataConfig
from training.data import load


@click.command()
@click.argument("data")
@options_of(DataConfig, but={"data"})
@click.option("--against", metavar="OTHER", help="Data that must not share images with DATA.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="JSON file to write.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="PNG file to write, with the closest pairs."
)
def audit(against: str | None, json_file: Path | None, out: Path | None, **options: Any) -> None:
    """Find duplicates, contradictory labels and small classes in DATA.

    \b
    python -m training audit my-faces.zip --against held-out.zip --out pairs.png
    """
    config: DataConfig = build(DataConfig, options)
    dataset = load(config.data, **config.reading)
    # The labels of the other data do not matter here.
    other = None if against is None else load(against, **config.reading | {"attributes": ()})
    report = auditing.audit(dataset, other)
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
