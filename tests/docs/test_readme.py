"""Commands of the README and of docs/http.md run, and their answers are what these show."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.helpers.documents import DOCS, blocks
from tests.helpers.server import ROOT, Server, environment
from tests.helpers.small_runs import training
from training.data import avatars

README = (ROOT / "README.md").read_text()
HTTP = DOCS / "http.md"
SHORT = "--minutes 0.1 --kimg 8 --width 8 --batch 16"
"""Options that make a build of the README short."""
BLOCKS = [*blocks(ROOT / "README.md", "sh", "json"), *blocks(HTTP, "sh")]
COMMANDS = [
    (code, following[1] if following[0] == "json" else None)
    for (kind, code), following in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    if kind == "sh" and code.startswith("curl")
]


def matches(shown: Any, found: Any) -> bool:
    """Compare JSON; text that the README shortens with three dots must match up to there."""
    if isinstance(shown, dict):
        return shown.keys() == found.keys() and all(matches(shown[k], found[k]) for k in shown)
    if isinstance(shown, list):
        return len(shown) == len(found) and all(map(matches, shown, found))
    if isinstance(shown, str) and shown.endswith("..."):
        return bool(found.startswith(shown.removesuffix("...")))
    return bool(shown == found)


def test_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 5
    assert sum(answer is not None for _, answer in COMMANDS) >= 3


@pytest.mark.server
def test_fetching_a_set(server: Server, tmp_path: Path) -> None:
    (command,) = re.findall(r"^\.venv-cpu/bin/python (-m service fetch .*)$", README, re.MULTILINE)
    subprocess.run(
        [sys.executable, *shlex.split(command), "--server", server.url],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    manifest = json.loads((tmp_path / "faces" / "manifest.json").read_text())
    assert manifest["complete"] and manifest["images"] == 1000


@pytest.mark.server
def test_images_in_python(server: Server) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("http://localhost:8000", server.url), names)
    assert f"uint8 {list(names['images'].shape)}" in code
    assert str(names["labels"][0]).replace("'", '"') in code


@pytest.mark.server
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
        assert f"](docs/images/{picture.name})" in README or (
            f"](images/{picture.name})" in HTTP.read_text()
        )
        with Image.open(picture) as found, Image.open(ROOT / "docs/images" / picture.name) as shown:
            # Another kind of processor may round the other way.
            difference = np.asarray(found).astype(int) - np.asarray(shown)
        assert np.abs(difference).max() <= 2
    else:
        assert matches(json.loads(answer), json.loads(done.stdout)), done.stdout


@pytest.mark.slow
def test_training_on_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = avatars.draw(480)  # a tenth is kept to measure against
    rows = ["file_name,hair,eyes"]
    with zipfile.ZipFile(tmp_path / "my-faces.zip", "w") as archive:
        for index, (pixels, labels) in enumerate(zip(faces.images, faces.labels, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(pixels[::4, ::4]).save(buffer, "PNG")
            archive.writestr(f"images/{index}.png", buffer.getvalue())
            # Two colours of each, so that none stands only once.
            hair, eyes = ("black", "blonde")[labels[0] % 2], ("red", "blue")[labels[1] % 2]
            rows.append(f"images/{index}.png,{hair},{eyes}")
        archive.writestr("metadata.csv", "\n".join(rows))

    (command,) = re.findall(r"^\.venv/bin/figment (.*)$", README, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.evaluation.command.SAMPLES", 500)
    done = training(*shlex.split(command.replace("--minutes 30", SHORT)))
    assert done.exit_code == 0, done.stderr
    model = load_model(tmp_path / "models" / "my-faces" / "1" / "model.onnx", SessionFactory("cpu"))
    assert model.vocabulary.parse("red eyes, black hair")
