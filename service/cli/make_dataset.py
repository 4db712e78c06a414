"""``make-dataset``: a dataset straight from the model files."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import get_args

import click

from service.cli.like import lacking
from service.cli.progress import print_message, progress_bar
from service.cli.setting_options import models_option, setting_option
from service.core import cpus
from service.core.redact import without_passwords
from service.errors import DatasetError, StartupError
from service.inference.runtime_check import check_installation
from service.models.sandbox import ModelSandbox
from service.settings import Device


@click.command("make-dataset")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, help="Folder of the dataset alone, or a URL such as s3://bucket/set."
)
@models_option
@setting_option(
    "device",
    type=click.Choice(get_args(Device)),
    help="cuda computes images in one process on the first GPU.",
)
@setting_option("max_model_mb", type=click.IntRange(1, 65536))
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of files built in parallel. By default one for each core, one on a GPU, and with "
    "--ray as many as the cluster has cores for.",
)
@click.option(
    "--ray", "address", help="Address of a Ray cluster that builds the files: auto, or HOST:PORT."
)
def make_dataset(
    plan: Path,
    out: str,
    models: str,
    device: Device,
    max_model_mb: int,
    workers: int | None,
    address: str | None,
) -> None:
    """Build the dataset that PLAN describes, without a server.

    PLAN is a YAML file with the fields of POST /generate. The files are the same as those of
    `fetch --plan`. Run the same command to resume an interrupted build.
    """
    # SIGTERM ends it like Ctrl-C: files appear whole or not at all, so nothing needs to finish.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_installation()
        from service.datasets import local_executor, ray_executor
        from service.datasets.build import open_build, vocabulary_of
        from service.datasets.object_storage import open_storage
        from service.datasets.plan_file import PlanFile, read_plan
        from service.models.object_store import local_copy

        if address is not None and device == "cuda":
            raise DatasetError("--ray computes images on CPUs: omit --device")
        kind: Device = device if address is None else "cpu"
        _check_workers(kind, workers)
        folder, storage = local_copy(models), open_storage(out)
        sandbox = ModelSandbox(max_model_mb * 1024**2)

        def missing(content: PlanFile) -> dict[str, int]:
            assert content.like is not None and content.to is not None
            vocabulary = vocabulary_of(folder, content.model, content.version, sandbox)
            return lacking(Path(content.like), content.to, content.by_names, vocabulary, out)

        made = read_plan(plan, missing)
        with open_build(made, storage, folder, kind, sandbox, print_message) as dataset:
            if address is not None:
                execute = partial(ray_executor.run, max_tasks=workers, address=address)
            else:
                _check_workers(dataset.spec.device, workers)
                cores = 1 if dataset.spec.device == "cuda" else cpus.available()
                execute = partial(local_executor.run, processes=workers or cores)
            with progress_bar(dataset, smoothing=0) as bar:

                def skip(images: int) -> None:
                    bar.initial += images  # files that exist do not count for the rate
                    bar.update(images)

                dataset.run(execute, skip, bar.update)
            origin = dataset.spec.origin
            click.echo(
                f"{dataset.kept:,} images of {origin.model} version {origin.version}, seed "
                f"{origin.seed}, in {without_passwords(out)}"
            )
    except (DatasetError, StartupError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.ClickException("interrupted") from error


def _check_workers(device: Device, workers: int | None) -> None:
    """Raise ``DatasetError`` for several processes on a GPU: they use memory and gain no speed."""
    if device == "cuda" and (workers or 1) > 1:
        raise DatasetError(
            f"--workers {workers} is for CPUs: a GPU computes images in one process; omit it, or "
            "use --device cpu"
        )
