from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from training.pipeline import build

SMALL = {
    "--attributes": "hair,glasses",
    "--size": 16,
    "--hold-out": 0.2,
    "--kimg": 0.256,
    "--batch": 32,
    "--width": 4,
    "--latent-size": 8,
    "--tick-kimg": 0.064,
    "--snapshot-kimg": 0.064,
    "--precision": "float32",
    "--device": "cpu",
}
"""A run of 8 steps with four snapshots."""


def arguments(source: str, folder: Path, **options: object) -> list[object]:
    """``build`` of ``source`` into ``folder`` with the options of ``SMALL``, or others."""
    chosen = SMALL | {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    places = ["--out", folder / "run", "--to", folder / "models"]
    given = [part for pair in chosen.items() for part in pair]
    return ["build", source, "--name", "small", *places, *given]


@pytest.fixture(scope="module")
def lenient() -> Iterator[None]:
    """Export models that cover nothing: a run of 8 steps does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "MIN_COVERAGE", 0)
        yield
