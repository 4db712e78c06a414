from __future__ import annotations

import re

import pytest

from tests.helpers.server import ROOT
from training.config import TrainingConfig
from training.presets import PRESETS


def documentation() -> str:
    return (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def table() -> str:
    """Presets as a Markdown table; a cell is empty if the preset does not set the option."""
    names = dict.fromkeys(name for preset in PRESETS.values() for name in preset)
    lines = [f"| option | {' | '.join(f'`{preset}`' for preset in PRESETS)} |"]
    lines.append("| --- |" + " --- |" * len(PRESETS))
    for name in names:
        cells = [cell(preset[name]) if name in preset else "" for preset in PRESETS.values()]
        lines.append(f"| `--{name.replace('_', '-')}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_configurations(name: str) -> None:
    assert TrainingConfig.model_validate({"data": "-", "name": "x"} | PRESETS[name])


def test_documentation_shows_the_presets() -> None:
    assert table() in documentation()


def test_documentation_names_existing_options() -> None:
    flags = {f"--{field.replace('_', '-')}" for field in TrainingConfig.model_fields}
    flags |= {"--dry-run", "--max-hours", "--tensorboard", "--judge", "--preset", "--out"}
    flags |= {"--minutes", "--serve", "--open", "--snapshot"}
    used = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", documentation()))
    unknown = {flag for flag in used if flag.replace("--no-", "--") not in flags}
    torchrun = {"--nproc-per-node", "--nnodes", "--max-restarts", "--standalone"}
    torchrun |= {"--rdzv-backend", "--rdzv-endpoint"}
    assert unknown == torchrun
