"""Labels with counts that fill the classes of a folder: ``fetch --like``, and plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from service.core.labels import Vocabulary
from service.core.manifest import Attribute
from service.datasets.class_counts import count_classes
from service.errors import ClientError, DatasetError

if TYPE_CHECKING:
    from service.client.http import HttpClient

LARGEST = "largest"


def target(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | str | None:
    """Callback of ``--to``: a number of images, or as many as the largest class has."""
    if value is None or value == LARGEST:
        return value
    if not value.isdecimal() or not int(value):
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor {LARGEST!r}")
    return int(value)


def lacking(
    folder: Path,
    to: int | str,
    by: Sequence[str],
    vocabulary: Vocabulary,
    out: str | Path,
) -> dict[str, int]:
    """Label of each class that has fewer images than ``to``, and how many it lacks.

    ``by``: attributes that make the class. Prints a table of all classes, and ends the command if
    none lacks images. Raises ``DatasetError``, also if ``out``, a path or a URL, is in ``folder``.
    """
    if "://" not in str(out) and Path(out).resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{out} is in {folder}, and would count as its class")
    have = count_classes(folder, vocabulary, by)
    goal = max(have.values(), default=0) if isinstance(to, str) else to
    if not (have and goal):
        raise DatasetError(f"{folder} has no images that can be counted")
    make = {label: max(0, goal - images) for label, images in have.items()}
    width = max(map(len, [*have, "class"]))
    rows = [(label, have[label], make[label]) for label in have]
    rows.append(("", sum(have.values()), sum(make.values())))
    click.echo(f"{'class':{width}}  {'have':>9}  {'make':>9}  {'total':>9}")
    for label, old, new in rows:
        click.echo(f"{label:{width}}  {old:9,}  {new:9,}  {old + new:9,}")
    if not any(make.values()):
        click.echo("no class lacks images: nothing is made")
        raise click.exceptions.Exit(0)
    return {label: images for label, images in make.items() if images}


def served_vocabulary(
    server: HttpClient, model: str | None, version: int | str | None
) -> Vocabulary:
    """Labels of a served model; by default of the one that takes requests with labels.

    Raises ``ClientError``.
    """
    try:
        if model is None:
            models = server.json("/models")["models"]
            defaults = [m for m in models if m["default"] and m["kind"] == "conditional"]
            if not defaults:
                raise ClientError(f"{server.url} serves no conditional model")
            model = defaults[0]["name"]
        where = f"/models/{model}/labels"
        answer = server.json(where if version is None else f"{where}?version={version}")
        attributes = [Attribute.model_validate(each) for each in answer["attributes"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise ClientError(f"{server.url} does not describe its models") from error
    return Vocabulary(attributes, where)
