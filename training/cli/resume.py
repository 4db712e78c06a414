"""``python -m training resume``: continue a run."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.options import (
    Data,
    Judge,
    Open,
    RunFolder,
    TensorBoard,
    open_page,
    tensorboard_log,
)
from training.core import distributed
from training.data import load
from training.loop import loop
from training.loop.tensorboard import check_installed
from training.runs.run import Run


@click.command()
@RunFolder
@Data
@click.option(
    "--kimg",
    type=click.FloatRange(min=0, min_open=True),
    help="Change the length of the run, in thousands of images shown. The learning rate follows "
    "the new length from here on.",
)
@Judge
@Open
@TensorBoard
def resume(
    run: Path, data: str | None, kimg: float | None, judge: bool, opens: bool, tensorboard: bool
) -> None:
    """Continue a run from its last checkpoint.

    The result equals that of a run that was never interrupted.
    """
    if tensorboard:
        check_installed()
    with distributed.process_group():
        own = Run.open(run) if distributed.rank() == 0 else None
        if own is not None and kimg is not None:
            own = own.with_length(kimg)
        opened = Run.broadcast(run, own)
        if distributed.any_rank(own is not None and own.is_finished):
            if own is not None:
                why = (
                    f": no snapshot was better for {own.config.patience_kimg:g} kimg"
                    if own.has_plateaued
                    else ""
                )
                click.echo(
                    f"{run} is finished, after {own.shown:,} images{why}; --kimg "
                    f"{2 * own.config.kimg:g} makes it longer"
                )
                if opens:
                    open_page(own)
            return
        config = opened.config
        dataset = load(data or config.data, **config.reading)
        if opens:
            open_page(opened)
        loop.train(
            opened,
            dataset,
            stop_on_failure=judge,
            tensorboard=tensorboard_log(opened, tensorboard),
        )
