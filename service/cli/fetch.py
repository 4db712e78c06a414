"""``fetch``: a dataset from a running server into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from service.cli.progress import describe_failure, print_message, progress_bar
from service.core.image_request import ImageRequest
from service.errors import ClientError
from service.formats.registry import SUFFIXES

if TYPE_CHECKING:
    from service.client.fetch import FetchedDataset

Command = TypeVar("Command", bound=Callable[..., Any])


def request_option(flag: str, name: str, type_: type) -> Callable[[Command], Command]:
    """Option for one field of ``ImageRequest``, which checks its value."""
    field = ImageRequest.model_fields[name]
    return click.option(flag, name, type=type_, default=field.default, help=field.description)


@click.command()
@click.argument("labels", nargs=-1)
@click.option(
    "-n",
    "counts",
    type=click.IntRange(min=0),
    multiple=True,
    required=True,
    help="Total number of images; or once for each label, the number of its images.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(sorted(SUFFIXES)),
    default="webdataset",
    show_default=True,
    help="webdataset and zip contain PNG files, parquet loads as a Hugging Face image dataset, "
    "npy contains only pixels, with a table of labels beside it.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the dataset alone."
)
@request_option("--seed", "seed", int)
@request_option("--offset", "offset", int)
@request_option("--model", "model", str)
@request_option("--model-version", "version", int)
@request_option("--truncation", "truncation", float)
@request_option("--verify", "verify", float)
@click.option(
    "--per-file",
    type=click.IntRange(min=1),
    help="Images in each file. By default at most 10,000, and few enough for 8 files.",
)
@click.option(
    "--server", "url", default="http://localhost:8000", show_default=True, help="URL of the server."
)
@click.option(
    "--api-key",
    envvar="FIGMENT_API_KEY",
    help="API key. Other users can see options: prefer the variable FIGMENT_API_KEY.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds without an image during which requests to a busy or unreachable server are "
    "retried.",
)
def fetch(
    labels: tuple[str, ...],
    counts: tuple[int, ...],
    format_: str,
    out: Path,
    per_file: int | None,
    url: str,
    api_key: str | None,
    patience: float,
    **fields: Any,
) -> None:
    """Fetch a dataset from a running server into a folder.

    Several LABELS give a balanced dataset; without labels every attribute is drawn by frequency.
    Run the same command to resume an interrupted fetch.
    """
    from service.client.fetch import open_dataset
    from service.client.http import HttpClient
    from service.client.stream import image_request
    from service.datasets.manifest import DatasetPlan

    if len(counts) not in (1, len(labels)):
        raise click.UsageError(
            f"-n is given {len(counts)} times for {len(labels)} labels: give it once, or once for "
            "each label"
        )
    try:
        request = image_request(
            n=counts if len(counts) > 1 else counts[0],
            label=labels if len(labels) > 1 else labels[0] if labels else None,
            **fields,
        )
        plan = DatasetPlan(request, format_, per_file)
        server = HttpClient(url, patience=patience, api_key=api_key, on_message=print_message)
        with open_dataset(out, plan, server) as dataset:
            with progress_bar(dataset, initial=dataset.kept) as bar:
                for _ in dataset.run():
                    bar.update()
            click.echo(f"{_summary(dataset)} in {out}")
    except (ClientError, OSError) as error:
        raise click.ClickException(describe_failure(error)) from error


def _summary(dataset: FetchedDataset) -> str:
    origin = dataset.origin
    assert origin is not None
    lines = [
        f"  {count.label or 'drawn labels'}: {count.images:,} images, {count.tried:,} tried"
        for count in dataset.label_counts()
        if count.tried != count.images
    ]
    total = f"{dataset.kept:,} images of {origin.model} version {origin.version}"
    return "\n".join([*lines, f"{total}, seed {origin.seed},"])
