"""The real service with faults in it: ``python -m tests.helpers.faulty_server FOLDER [options]``.

Requests of a few seeds run into one, all others are served as ever. What is to end or to happen
later is told by files in ``FOLDER``.
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
from service.inference import model, seeds
from service.inference.session import SessionFactory
from service.observability import tracing

# Seeds.
RAISES, RAISES_LATE, NOT_A_NUMBER, WRONG_SHAPE, WRONG_COUNT, HANGS = range(1001, 1007)
NOT_ENCODED, HANGS_IN_ENCODER = range(1007, 1009)
LATE = 3000
"""Index of the first image that fails late."""
GO_ON = "go-on"
"""While there is no such file, what hangs does."""
CLOCK = "clock"
"""Holds the seconds by which the clock on the wall is wrong."""
ENCODERS = "encoders"
"""Where it is there at the start, others encode than those who compute, as with a GPU."""

CLOSING = "closing"
"""Where it is there at the start, the end hangs, on one of asyncio's threads."""


def break_parts(folder: Path) -> None:
    def hang() -> None:
        while not (folder / GO_ON).exists():
            time.sleep(0.01)

    _break_networks(hang)
    _break_encoding(hang)
    _break_clock(folder / CLOCK)
    if (folder / CLOSING).exists():
        tracing.stop = hang
    if (folder / ENCODERS).exists():
        # Properties, which mypy lets nobody replace.
        SessionFactory.threads = 1  # type: ignore[assignment, method-assign]
        SessionFactory.encoders = 2  # type: ignore[assignment, method-assign]


def _break_networks(hang: Any) -> None:
    render, generate = seeds.run_batch, model.Model.generate
    batch_of = threading.local()

    def broken_render(batch: Sequence[Any], *, alone: bool) -> Any:
        seeds = {_seed(*piece) for piece in batch}
        batch_of.seeds = seeds
        return render(batch, alone=alone)

    def broken_generate(*arguments: Any, **options: Any) -> Any:
        made = generate(*arguments, **options)
        seeds = getattr(batch_of, "seeds", set[int | None]())
        if RAISES in seeds:
            raise RuntimeError("as told")
        if NOT_A_NUMBER in seeds:
            return np.full(made.shape, np.nan, np.float32)
        if WRONG_SHAPE in seeds:
            return made[:, 1:]
        if WRONG_COUNT in seeds:
            return made[1:]
        if HANGS in seeds:
            hang()
        return made

    seeds.run_batch = broken_render
    model.Model.generate = broken_generate  # type: ignore[method-assign]


def _seed(source: Any, chunk: range) -> int | None:
    if not isinstance(source, seeds.SeedImages):
        return None
    late = source.indices[chunk.stop - 1] >= LATE
    return RAISES if source.seed == RAISES_LATE and late else source.seed


def _break_encoding(hang: Any) -> None:
    encode = images.encode

    def broken_encode(pixels: Any, extension: str, address: str | None) -> bytes:
        if f"/{NOT_ENCODED}/" in (address or ""):
            raise OSError("as told")
        if f"/{HANGS_IN_ENCODER}/" in (address or ""):
            hang()
        return encode(pixels, extension, address)

    images.encode = broken_encode


def _break_clock(wrong: Path) -> None:
    right = time.time

    def broken_time() -> float:
        try:
            return right() + float(wrong.read_text())
        except (OSError, ValueError):
            return right()

    time.time = broken_time


if __name__ == "__main__":
    break_parts(Path(sys.argv.pop(1)))
    from service.cli.main import main

    main(prog_name="python -m tests.helpers.faulty_server")
