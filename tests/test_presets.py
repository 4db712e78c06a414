from __future__ import annotations

import re

import pytest

from tests.server import ROOT
from training.config import TrainingConfig
from training.presets import PRESETS


def option(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_configurations_that_the_documentation_shows(name: str) -> None:
    assert TrainingConfig.model_validate({"data": "-", "name": "x"} | PRESETS[name])
    rows = re.findall(r"^\| `([a-z-]+)` \| [^|]* \| `([^`]*)` \|$", documentation(), re.M)
    assert dict(rows)[name] == " ".join(option(*item) for item in PRESETS[name].items())


def documentation() -> str:
    return (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_documentation_names_every_command_option_that_it_uses() -> None:
    flags = {option(field, True) for field in TrainingConfig.model_fields}
    flags |= {"--dry-run", "--max-hours", "--tensorboard", "--judge", "--preset"}
    used = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", documentation()))
    unknown = {flag for flag in used if flag not in flags and f"--{flag[5:]}" not in flags}
    assert unknown == {"--nproc-per-node"}
