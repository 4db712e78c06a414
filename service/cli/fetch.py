"""``fetch``: a dataset from a running server into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from service.cli.like import LARGEST, lacking, served_vocabulary, target
from service.cli.progress import describe_failure, print_message, progress_bar
from service.core.set_request import LabelForm, LayoutName, SetRequest, read_splits
from service.errors import ClientError, DatasetError, InvalidRequest
from service.formats.registry import FILE_FORMATS, default_format, shows_class

if TYPE_CHECKING:
    from service.client.fetch import FetchedDataset


BESIDE_PLAN = ("plan_file", "out", "url", "api_key", "patience")
"""Options that may stand beside a plan."""
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def request_option(flag: str, name: str, type_: Any, **options: Any) -> Decorator:
    """Option for one field of ``SetRequest``, which checks its value."""
    field = SetRequest.model_fields[name]
    options = {"default": field.default} | options
    return click.option(flag, name, type=type_, help=field.description, **options)


@click.command()
@click.argument("phrases", metavar="[LABELS]...", nargs=-1)
@click.option(
    "-n",
    "counts",
    type=click.IntRange(min=0),
    multiple=True,
    help="Total number of images; or once for each label, the number of its images.",
)
@click.option(
    "--like",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Labelled folder of your own, with a folder for each class or a metadata.csv: fetch what "
    "each class lacks, in place of LABELS and -n.",
)
@click.option(
    "--to",
    metavar=f"N|{LARGEST}",
    callback=target,
    help="With --like: images that each class shall have in all, or as many as the largest has.",
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Plan of the dataset, as `make-dataset` takes, in place of LABELS and of all options that "
    "say what to fetch.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(sorted(FILE_FORMATS)),
    help="webdataset and zip contain PNG files, parquet loads as a Hugging Face image dataset, npy "
    "contains only pixels, with a table of labels beside it; folder is PNG files in class folders. "
    "By default webdataset, or folder with --layout folders.",
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
@request_option("--layout", "layout", click.Choice(get_args(LayoutName)))
@request_option("--by", "by", str, multiple=True, default=())
@request_option("--splits", "splits", str, metavar="NAME:FRACTION,...")
@request_option("--labels", "labels", click.Choice(get_args(LabelForm)))
@click.option(
    "--per-file",
    type=click.IntRange(min=1),
    help="Images in each file. By default at most 10,000, and few enough for 8 files.",
)
@click.option(
    "--server",
    "url",
    help="URL of the server [env FIGMENT_SERVER; default this machine, at FIGMENT_PORT or 8000].",
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
    "retried; at most 4 until it has answered once.",
)
def fetch(
    phrases: tuple[str, ...],
    counts: tuple[int, ...],
    like: Path | None,
    to: int | str | None,
    plan_file: Path | None,
    format_: str | None,
    out: Path,
    per_file: int | None,
    url: str | None,
    api_key: str | None,
    patience: float,
    by: tuple[str, ...],
    splits: str | None,
    **fields: Any,
) -> None:
    """Fetch a dataset from a running server into a folder.

    Several LABELS give a balanced dataset; without labels every attribute is drawn by frequency.
    With --plan, a file says what to fetch. Run the same command to resume an interrupted fetch.
    """
    from service.client.fetch import open_dataset
    from service.client.http import HttpClient
    from service.client.stream import request_of
    from service.datasets.manifest import DatasetPlan
    from service.datasets.plan_file import PlanFile, read_plan

    _check(phrases, counts, like, to, plan_file)
    try:
        server = HttpClient(url, patience=patience, api_key=api_key, on_message=print_message)
        if plan_file is not None:

            def missing_of(content: PlanFile) -> dict[str, int]:
                assert content.like is not None and content.to is not None
                vocabulary = served_vocabulary(server, content.model, content.version)
                return lacking(Path(content.like), content.to, content.by_names, vocabulary, out)

            plan = read_plan(plan_file, missing_of)
        else:
            if like is not None and to is not None:
                vocabulary = served_vocabulary(server, fields["model"], fields["version"])
                missing = lacking(like, to, by, vocabulary, out)
                phrases, counts = tuple(missing), tuple(missing.values())
                if not shows_class(format_ or default_format(fields["layout"]), fields["layout"]):
                    by = ()  # it was for counting alone
            request = request_of(
                SetRequest,
                n=counts if len(counts) > 1 else counts[0],
                label=phrases if len(phrases) > 1 else phrases[0] if phrases else None,
                by=by[0] if len(by) == 1 else by or None,
                splits=None if splits is None else read_splits(splits),
                **fields,
            )
            plan = DatasetPlan(request, format_ or default_format(request.layout), per_file)
        with open_dataset(out, plan, server) as dataset:
            with progress_bar(dataset, initial=dataset.kept) as bar:
                for _ in dataset.run():
                    bar.update()
            click.echo(f"{_summary(dataset)} in {out}")
    except (ClientError, DatasetError, InvalidRequest, OSError) as error:
        raise click.ClickException(describe_failure(error)) from error


def _check(
    phrases: tuple[str, ...],
    counts: tuple[int, ...],
    like: Path | None,
    to: int | str | None,
    plan: Path | None,
) -> None:
    """Raise ``UsageError`` for options that do not belong together."""
    if plan is not None:
        context = click.get_current_context()
        for each in context.command.params:
            given = context.get_parameter_source(each.name or "") == ParameterSource.COMMANDLINE
            if given and each.name not in BESIDE_PLAN:
                option = each.opts[0] if isinstance(each, click.Option) else "LABELS"
                raise click.UsageError(f"--plan {plan} says what to fetch: omit {option}")
        return
    if (like is None) != (to is None):
        raise click.UsageError("--like FOLDER and --to N|largest belong together: give both")
    if like is not None:
        if phrases or counts:
            raise click.UsageError("--like gives labels and counts: omit LABELS and -n")
    elif not counts:
        raise click.UsageError("give -n N, or --like FOLDER --to N|largest, or --plan FILE")
    elif len(counts) not in (1, len(phrases)):
        raise click.UsageError(
            f"-n is given {len(counts)} times for {len(phrases)} labels: give it once, or once for "
            "each label"
        )


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
