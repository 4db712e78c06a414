"""Progress bar of commands that write datasets, and the message when they are interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click
from tqdm import tqdm

from service.errors import ClientError, DatasetError, ModelChanged, RequestRejected


class Partial(Protocol):
    """Dataset that may be incomplete."""

    @property
    def total(self) -> int:
        """Images of the complete dataset."""
        ...

    @property
    def kept(self) -> int:
        """Images on disk."""
        ...


@contextmanager
def progress_bar(dataset: Partial, **options: Any) -> Iterator[tqdm[Any]]:
    """Progress bar in images; ``options`` are tqdm's.

    If the block fails or is interrupted, raises ``ClickException`` with the number of kept images.
    """
    interval = 0.5 if sys.stderr.isatty() else 10
    try:
        with tqdm(total=dataset.total, unit=" images", mininterval=interval, **options) as bar:
            yield bar
    except (ClientError, DatasetError, OSError, KeyboardInterrupt) as error:
        message = describe_failure(error)
        if dataset.kept:
            message += f"\n{dataset.kept:,} of {dataset.total:,} images are kept"
            if not isinstance(error, RequestRejected | ModelChanged):
                message += ": run the same command to resume"
        raise click.ClickException(message) from error


def describe_failure(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError):
        return f"cannot write {error.filename or 'to the folder'}: {error.strerror or error}"
    return str(error)


def print_message(message: str) -> None:
    """Print a line to stderr without breaking the progress bar."""
    tqdm.write(message, file=sys.stderr)
