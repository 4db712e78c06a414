"""The group of all commands: threads, and exit statuses for errors."""

from __future__ import annotations

import os
from typing import Any

import click
import torch

from service.core import cpus
from service.errors import InvalidLabel
from training.errors import Interrupted, TrainingError

USER_ERRORS = (TrainingError, InvalidLabel, OSError, MemoryError, torch.OutOfMemoryError)
"""Errors that the user can mend: printed as one sentence, without a traceback."""


class Cli(click.Group):
    """Command group that prints user errors as sentences.

    Exits with 1 after an error and with 128 + N after signal N.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Interrupted as interrupted:
            click.echo(interrupted, err=True)
            ctx.exit(128 + interrupted.signal)  # as shells do, so that `train && export` stops
        except USER_ERRORS as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Cli, context_settings={"max_content_width": 100})
def main() -> None:
    """Train DCGANs on labelled images and export them for the service."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpus.available())
