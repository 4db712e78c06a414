"""``python -m training build``: from images to an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli.options import build as configured
from service.cli.options import options_of
from training.cli.options import Judge, ModelsFolder, Open, open_page
from training.config import TrainingConfig
from training.pipeline.build import Build
from training.presets import PRESETS


@click.command("build")
@click.argument("data")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Duration to aim at, all phases included.",
)
@click.option("--serve", "server", metavar="URL", help="Address of a service to reload at the end.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [runs/NAME].")
@ModelsFolder
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Named set of options [default: chosen from the data].",
)
@Judge
@Open
@options_of(TrainingConfig, but={"data"})
def build(
    data: str,
    minutes: float,
    server: str | None,
    out: Path | None,
    to: Path,
    preset: str | None,
    judge: bool,
    opens: bool,
    **options: Any,
) -> None:
    """Make a model of the images in DATA: audit, train, evaluate, export, reload.

    All options that are not given are chosen from the data and the speed of this machine, once, and
    written to config.json in the run's folder. Run the same command again to continue an
    interrupted build.

    Images of several sizes are resized to one that is chosen from them, after their central squares
    are cut out; --pad keeps all of each image.

    \b
    python -m training build my-folder/ --name my-faces --minutes 30
    """
    if Path(data).exists():
        data = str(Path(data).resolve())  # the same command may run elsewhere
    fixed = PRESETS.get(preset or "", {}) | {
        name: value for name, value in options.items() if value is not None
    }
    given: TrainingConfig = configured(TrainingConfig, fixed | {"data": data})
    Build(
        given=given,
        fixed={name: getattr(given, name) for name in fixed if name != "name"},
        preset=preset,
        folder=out or Path("runs") / given.name,
        models=to,
        minutes=minutes,
        server=server.rstrip("/") if server else None,
        judge=judge,
        when_planned=open_page if opens else None,
    ).run()
