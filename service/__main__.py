"""The command line: ``python -m service`` serves, ``fetch`` is a client, and the rest are tools."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from tqdm import tqdm

from service.cli.options import build, options_of
from service.core import cpus
from service.core.latents import MAX_SEED
from service.core.redact import without_passwords
from service.errors import (
    ClientError,
    DatasetError,
    InvalidAlias,
    ModelChanged,
    RequestRejected,
    StartupError,
)
from service.formats.registry import SUFFIXES
from service.inference.runtime_check import check_installation
from service.models.sandbox import ModelSandbox
from service.observability.logging import ensure_stderr, log_to_stderr
from service.server import signals
from service.settings import PREFIX, Device, Settings, check_environment

if TYPE_CHECKING:
    from service.client.fetch import FetchedDataset
    from service.datasets.build import DatasetBuild, Run


@click.group(invoke_without_command=True, context_settings={"max_content_width": 100})
@options_of(Settings)
@click.pass_context
def main(context: click.Context, /, **given: Any) -> None:
    """Serve the models over HTTP.

    Every option is also an environment variable; the option wins.
    """
    if context.invoked_subcommand is None:
        serve(given)


def serve(given: dict[str, Any]) -> None:
    """Serve until told to stop; ``given`` are options."""
    ensure_stderr()
    settings: Settings = build(Settings, given)
    signals.ignore_sighup()
    signals.exit_on_signal()
    try:
        check_environment()
        check_installation()
        vetter = ModelSandbox(settings.max_model_bytes)
        vetter.prepare()  # beside the imports that follow
        # Not before the check: it imports ONNX Runtime.
        from service.app import create_app
        from service.server.server import serve as serve_here
        from service.server.workers import WorkerProcesses

        log_to_stderr(settings.log_format)
        gate = create_app(settings, vetter)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    if settings.workers > 1:
        # It could be made, so each worker can make one.
        del gate
        sys.exit(WorkerProcesses(settings, "service.app:create_app").run())
    serve_here(gate, settings)


@main.command()
@click.argument("name")
@click.option("--rate", type=click.IntRange(min=1), help="Images per second that it may have.")
def key(name: str, rate: int | None) -> None:
    """Make an API key for NAME.

    The key is shown this once; the service is given its hash.
    """
    from service.api.auth.api_keys import make

    try:
        secret, entry = make(name, rate)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"key, for whoever asks:\n  {secret}")
    click.echo(f"entry, for FIGMENT_API_KEYS or the file FIGMENT_API_KEYS_FILE:\n  {entry}")


@main.command()
@click.argument("labels", nargs=-1)
@click.option(
    "-n",
    "counts",
    type=click.IntRange(min=0),
    multiple=True,
    required=True,
    help="Images in all; or once for each label: how many of it.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(sorted(SUFFIXES)),
    default="webdataset",
    show_default=True,
    help="webdataset and zip hold PNG files, parquet loads as a Hugging Face image dataset, npy "
    "holds nothing but pixels, with a table of labels beside it.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder of its own.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Left out, the server draws one.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Index of the first image.")
@click.option("--model", help="Left out, the server's default.")
@click.option("--model-version", type=click.IntRange(min=1), help="Left out, the highest.")
@click.option("--truncation", type=float, default=1.0, help="Above 0, up to 1: less variety.")
@click.option(
    "--verify",
    type=float,
    help="Leave out images in which the verifier sees a value that was asked for with less than "
    "this probability.",
)
@click.option(
    "--per-file",
    type=click.IntRange(min=1),
    help="Images in each file. Left out, few enough to make 8 files, and 10,000 at most.",
)
@click.option("--server", "url", default="http://localhost:8000", show_default=True)
@click.option(
    "--api-key",
    envvar="FIGMENT_API_KEY",
    help="What the server lets in. Others can see options: rather set it as FIGMENT_API_KEY.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds without an image during which a server that is busy or away is asked again.",
)
def fetch(
    labels: tuple[str, ...],
    counts: tuple[int, ...],
    format_: str,
    out: Path,
    seed: int | None,
    offset: int,
    model: str | None,
    model_version: int | None,
    truncation: float,
    verify: float | None,
    per_file: int | None,
    url: str,
    api_key: str | None,
    patience: float,
) -> None:
    """Fetch a set of images from a running server into a folder.

    Several LABELS give a balanced set; none has every attribute drawn by frequency. The same
    command goes on where it was interrupted.
    """
    from service.client.fetch import open_dataset
    from service.client.http import HttpClient  # whoever serves does without the client
    from service.datasets.manifest import DatasetPlan
    from service.datasets.request import ImageRequest

    if len(counts) not in (1, len(labels)):
        raise click.UsageError(
            f"-n stands {len(counts)} times, for {len(labels)} labels: it is given once, or once "
            "for each label"
        )
    try:
        order = ImageRequest(
            n=list(counts) if len(counts) > 1 else counts[0],
            label=list(labels) if len(labels) > 1 else labels[0] if labels else None,
            seed=seed,
            offset=offset,
            model=model,
            version=model_version,
            truncation=truncation,
            verify=verify,
        )
        plan = DatasetPlan(order, format_, per_file)
        server = HttpClient(url, patience=patience, api_key=api_key, tell=_tell)
        with open_dataset(out, plan, server) as folder:
            _fill(folder, sum(counts))
            click.echo(f"{_summary(folder)} in {out}")
    except (ClientError, OSError) as error:
        raise click.ClickException(_explain(error)) from error


_models = click.option(
    "--models",
    metavar="PATH",
    default=Settings.model_fields["models"].default,
    show_default=True,
    envvar=f"{PREFIX}MODELS",
    help=Settings.model_fields["models"].description,
)
TAKEN_UP = "a running service takes it up at SIGHUP or POST /models/reload"


@main.command()
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=click.IntRange(min=1))
@_models
def alias(name: str, alias: str, version: int, models: str) -> None:
    """Have ALIAS mean VERSION of the model NAME.

    Requests may give it for a version. The alias `default` is what they get that give none.
    """
    from service.models import aliases

    try:
        aliases.set_alias(_writable(models), name, alias, version)
    except (InvalidAlias, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{alias} of {name} is version {version}; {TAKEN_UP}")


@main.command()
@click.argument("name")
@click.argument("alias")
@_models
def rollback(name: str, alias: str, models: str) -> None:
    """Have ALIAS of the model NAME mean the version that it meant before."""
    from service.models import aliases

    try:
        version = aliases.roll_back(_writable(models), name, alias)
    except (InvalidAlias, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{alias} of {name} is version {version} again; {TAKEN_UP}")


def _writable(models: str) -> Path:
    """The folder ``models``. Raises ``InvalidAlias`` for an address."""
    from service.core.redact import without_passwords
    from service.models.object_store import is_url

    if is_url(models):
        raise InvalidAlias(
            f"{without_passwords(models)} is an address, and aliases are changed in a folder: "
            "change aliases.json of the model in the store"
        )
    return Path(models)


@main.command("make-dataset")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--out", required=True, help="A folder of its own, or a URL such as s3://bucket/set.")
@_models
@click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default=Settings.model_fields["device"].default,
    show_default=True,
    envvar=f"{PREFIX}DEVICE",
    help="cuda makes images in one process, on the first GPU.",
)
@click.option(
    "--max-model-mb",
    type=click.IntRange(1, 65536),
    default=Settings.model_fields["max_model_mb"].default,
    show_default=True,
    envvar=f"{PREFIX}MAX_MODEL_MB",
    help=Settings.model_fields["max_model_mb"].description,
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Files that are made at a time. Left out, one for each core, and one on a GPU; with "
    "--ray, what it has cores for.",
)
@click.option("--ray", "address", help="Of a Ray cluster that makes the files: auto, or HOST:PORT.")
def make_dataset(
    plan: Path,
    out: str,
    models: str,
    device: Device,
    max_model_mb: int,
    workers: int | None,
    address: str | None,
) -> None:
    """Make the set of images that PLAN describes, without a server.

    PLAN is a YAML file with the fields of POST /generate. The files are those that `fetch` writes.
    The same command goes on where it was interrupted.
    """
    # Both ways to end it are one: files are whole or not there, so nothing has to be brought to an
    # end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_installation()
        from service.datasets import local_executor, ray_executor
        from service.datasets.build import open_build
        from service.datasets.plan_file import read_plan
        from service.datasets.storage import open_storage
        from service.models.object_store import local_copy

        if address is not None and device == "cuda":
            raise DatasetError("--ray makes images on CPUs: leave --device out")
        kind: Device = device if address is None else "cpu"
        _check_workers(kind, workers)
        folder, target = local_copy(models), open_storage(out)
        vetter = ModelSandbox(max_model_mb * 1024**2)
        with open_build(read_plan(plan), target, folder, kind, vetter, _tell) as dataset:
            if address is not None:
                run = partial(ray_executor.run, most=workers, address=address)
            else:
                _check_workers(dataset.recipe.device, workers)
                cores = 1 if dataset.recipe.device == "cuda" else cpus.available()
                run = partial(local_executor.run, most=workers or cores)
            _make(dataset, run)
            origin = dataset.recipe.origin
            click.echo(
                f"{dataset.kept:,} images of {origin.model} version {origin.version}, seed "
                f"{origin.seed}, in {without_passwords(out)}"
            )
    except (DatasetError, StartupError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.ClickException("interrupted") from error


def _check_workers(device: Device, workers: int | None) -> None:
    """Raises ``DatasetError``: each process would take memory of the GPU, and gain nothing."""
    if device == "cuda" and (workers or 1) > 1:
        raise DatasetError(
            f"--workers {workers} is for CPUs: a GPU makes images in one process; leave it out, or "
            "give --device cpu"
        )


def _make(dataset: DatasetBuild, run: Run) -> None:
    """Make what is missing; say of whatever ends it early what is kept."""
    total, often = dataset.total, 0.5 if sys.stderr.isatty() else 10
    try:
        # Files that are there already are none of the rate.
        with tqdm(total=total, unit=" images", mininterval=often, smoothing=0) as bar:

            def found(images: int) -> None:
                bar.initial += images
                bar.update(images)

            dataset.fill(run, found, bar.update)
    except (DatasetError, KeyboardInterrupt) as error:
        why = _explain(error)
        if dataset.kept:
            why += f"\n{dataset.kept:,} of {total:,} images are kept: the same command goes on"
        raise click.ClickException(why) from error


def _fill(folder: FetchedDataset, total: int) -> None:
    """Fetch what is missing; say of whatever ends it early what is kept."""
    try:
        often = 0.5 if sys.stderr.isatty() else 10
        with tqdm(total=total, initial=folder.kept, unit=" images", mininterval=often) as bar:
            for _ in folder.fill():
                bar.update()
    except (ClientError, OSError, KeyboardInterrupt) as error:
        why = _explain(error)
        if folder.kept:
            why += f"\n{folder.kept:,} of {total:,} images are kept"
            if not isinstance(error, (RequestRejected, ModelChanged)):
                why += ": the same command goes on"
        raise click.ClickException(why) from error


def _explain(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError):
        return f"cannot write {error.filename or 'to the folder'}: {error.strerror or error}"
    return str(error)


def _summary(folder: FetchedDataset) -> str:
    origin = folder.origin
    assert origin is not None
    lines = [
        f"  {tally.label or 'as drawn'}: {tally.images:,} images, {tally.tried:,} tried"
        for tally in folder.tallies()
        if tally.tried != tally.images
    ]
    what = f"{folder.kept:,} images of {origin.model} version {origin.version}, seed {origin.seed},"
    return "\n".join([*lines, what])


def _tell(message: str) -> None:
    """A line beside the progress bar."""
    tqdm.write(message, file=sys.stderr)


if __name__ == "__main__":
    main(prog_name="python -m service")
