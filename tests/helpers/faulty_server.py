"""Service with injected faults: ``python -m tests.helpers.faulty_server FOLDER [options]``.

Requests with certain seeds trigger a fault; all others are served as usual. Files in ``FOLDER``
switch other faults on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.formats import images
from service.inference import model, source
from service.inference.seeds import SeedImages
from service.inference.session import SessionFactory
from service.observability import tracing

# Seeds.
RAISES, RAISES_LATE, NOT_A_NUMBER, WRONG_SHAPE, WRONG_COUNT, HANGS = range(1001, 1007)
NOT_ENCODED, HANGS_IN_ENCODER = range(1007, 1009)
LATE = 3000
"""First index at which ``RAISES_LATE`` fails."""
CLOCK = "clock"
"""Contains the seconds by which the wall clock is wrong."""
ENCODERS = "encoders"
"""If it exists at start, separate threads encode, as with a GPU."""

CLOSING = "closing"
"""If it exists at start, shutdown hangs on one of asyncio's threads."""


def break_parts(folder: Path) -> None:
    def hang() -> None:
        threading.Event().wait()

    _break_networks(hang)
    _break_encoding(hang)
    _break_clock(folder / CLOCK)
    if (folder / CLOSING).exists():
        tracing.stop = hang
    if (folder / ENCODERS).exists():
        # mypy forbids to replace properties.
        SessionFactory.threads = 1  # type: ignore[assignment, method-assign]
        SessionFactory.encoders = 2  # type: ignore[assignment, method-assign]


def _break_networks(hang: Any) -> None:
    render, generate = source.run_batch, model.Model.generate
    batch_of = threading.local()

    def broken_render(batch: Sequence[Any], *, exclusive: bool) -> Any:
        seeds = {_seed(*piece) for piece in batch}
        batch_of.seeds = seeds
        return render(batch, exclusive=exclusive)

    def broken_generate(*arguments: Any, **options: Any) -> Any:
        rendered = generate(*arguments, **options)
        seeds = getattr(batch_of, "seeds", set[int | None]())
        if RAISES in seeds:
            raise RuntimeError("on purpose")
        if NOT_A_NUMBER in seeds:
            return np.full(rendered.shape, np.nan, np.float32)
        if WRONG_SHAPE in seeds:
            return rendered[:, 1:]
        if WRONG_COUNT in seeds:
            return rendered[1:]
        if HANGS in seeds:
            hang()
        return rendered

    source.run_batch = broken_render
    model.Model.generate = broken_generate  # type: ignore[method-assign]


def _seed(images: Any, chunk: range) -> int | None:
    if not isinstance(images, SeedImages):
        return None
    late = images.indices[chunk.stop - 1] >= LATE
    return RAISES if images.seed == RAISES_LATE and late else images.seed


def _break_encoding(hang: Any) -> None:
    encode = images.encode

    def broken_encode(pixels: Any, extension: str, address: str | None) -> bytes:
        if f"/{NOT_ENCODED}/" in (address or ""):
            raise OSError("on purpose")
        if f"/{HANGS_IN_ENCODER}/" in (address or ""):
            hang()
        return encode(pixels, extension, address)

    images.encode = broken_encode


def _break_clock(offset_file: Path) -> None:
    true_time = time.time

    def broken_time() -> float:
        try:
            return true_time() + float(offset_file.read_text())
        except (OSError, ValueError):
            return true_time()

    time.time = broken_time


if __name__ == "__main__":
    break_parts(Path(sys.argv.pop(1)))
    from service.cli.main import main

    main(prog_name="python -m tests.helpers.faulty_server")
