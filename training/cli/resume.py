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
@Judge
@Open
@TensorBoard
def resume(run: Path, data: str | None, judge: bool, opens: bool, tensorboard: bool) -> None:
    """Continue a run from its last checkpoint.

    The result equals that of a run that was never interrupted.
    """
    if tensorboard:
        check_installed()
    with distributed.process_group():
        opened = Run.broadcast(run, Run.open(run) if distributed.rank() == 0 else None)
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
