"""The README's commands run, and their answers are what it shows."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.server import ROOT, Server

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    (code, following[1] if following[0] == "json" else None)
    for (kind, code), following in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    if kind == "sh" and code.startswith("curl")
]


def matches(shown: Any, found: Any) -> bool:
    """Equal, but for text that the README cuts short with three dots."""
    if isinstance(shown, dict):
        return shown.keys() == found.keys() and all(matches(shown[k], found[k]) for k in shown)
    if isinstance(shown, list):
        return len(shown) == len(found) and all(map(matches, shown, found))
    if isinstance(shown, str) and shown.endswith("..."):
        return bool(found.startswith(shown.removesuffix("...")))
    return bool(shown == found)


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 5
    assert sum(answer is not None for _, answer in COMMANDS) >= 3


@pytest.mark.parametrize(("command", "answer"), COMMANDS)
def test_commands(server: Server, tmp_path: Path, command: str, answer: str | None) -> None:
    command = command.replace("localhost:8000", server.url.removeprefix("http://"))
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if answer is None:
        (picture,) = tmp_path.iterdir()
        assert f"](docs/images/{picture.name})" in README
        with Image.open(picture) as found, Image.open(ROOT / "docs/images" / picture.name) as shown:
            # Another kind of processor may round the other way.
            difference = np.asarray(found).astype(int) - np.asarray(shown)
        assert np.abs(difference).max() <= 2
    else:
        assert matches(json.loads(answer), json.loads(done.stdout)), done.stdout


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/*/README.md")), ids=str)
def test_requests_in_model_cards(server: Server, tmp_path: Path, path: Path) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    command = command.replace("localhost:8000", server.url.removeprefix("http://"))
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=60)
    with Image.open(tmp_path / "samples.png") as image:
        image.load()
