"""Commands and programs of docs/sets.md run, in order, and print what the page shows."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from service.client import Figment
from tests.conftest import REAL_DATA
from tests.helpers.documents import DOCS, blocks_of, run_block
from tests.helpers.server import Server
from training.data import load

GUIDE = (DOCS / "sets.md").read_text()
FIRST, LIKE = "Fill a rare class", "Balance your own folder"
MIX = "Mix synthetic images into training"
OTHERS = ("Build a balanced set", "Layouts", "A set as a URL", "From Python", "Over HTTP")
REAL = 4000
"""Real images; the guide's program uses 2,100 of them."""
KINDS = ("sh", "python", "python mix.py")


def run_section(heading: str, folder: Path, server: Server) -> list[str]:
    """Run the blocks below a heading in order; returns what each printed."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    found = blocks_of(text, *KINDS)
    assert found
    return [run_block(kind, code, folder, server.url) for kind, code in found]


def write(path: Path, images: npt.NDArray[np.uint8], digits: list[str]) -> None:
    """Write ``images [N, 28, 28]`` as the zip of real images that the guide expects."""
    rows = ["file_name,digit"]
    with zipfile.ZipFile(path, "w") as archive:
        for i, (pixels, digit) in enumerate(zip(images, digits, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())
            rows.append(f"{i}.png,{digit}")
        archive.writestr("metadata.csv", "\n".join(rows))


def test_every_block_belongs_to_a_tested_section() -> None:
    headings = re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)
    parts = re.split(r"^## .+$", GUIDE, flags=re.MULTILINE)[1:]
    with_blocks = {h for h, part in zip(headings, parts, strict=True) if blocks_of(part, *KINDS)}
    assert with_blocks == {FIRST, LIKE, MIX, *OTHERS}


@pytest.fixture
def real_images(server: Server, tmp_path: Path) -> Path:
    """Folder with ``real.zip``: real digits if available, else digits of another seed."""
    if REAL_DATA.is_dir():
        digits = load(str(REAL_DATA / "mnist")).split(0.3)[1]
        values = digits.attributes[0].values
        names = [values[label] for label in digits.labels[:REAL, 0]]
        write(tmp_path / "real.zip", digits.images[:REAL, ..., 0], names)
        return tmp_path
    labels = [str(digit) for digit in range(10)]
    batch = Figment(server.url).generate(400, label=labels, model="digits", seed=99)
    drawn = [(each or {})["digit"] for each in batch.labels]
    write(tmp_path / "real.zip", batch.images[..., 0], drawn)
    return tmp_path


@pytest.mark.server
def test_filling_a_rare_class(server: Server, tmp_path: Path) -> None:
    (printed,) = run_section(FIRST, tmp_path, server)
    assert printed
    for line in printed.splitlines():
        # Another kind of processor may round differently, and move a few images across the
        # threshold.
        numbers = [int(number) for number in re.findall(r"\d+", line)]
        words = re.sub(r"\d+", r"(\\d+)", re.escape(line.strip()))
        shown = re.search(f"^    {words}$", GUIDE, re.MULTILINE)
        assert shown, line
        assert [int(number) for number in shown.groups()] == pytest.approx(numbers, rel=0.05)


@pytest.mark.server
def test_balancing_a_folder(server: Server, tmp_path: Path) -> None:
    (printed,) = run_section(LIKE, tmp_path, server)
    for line in printed.splitlines():
        assert f"\n    {line}\n" in GUIDE


@pytest.mark.server
@pytest.mark.slow
def test_measuring_the_gain(server: Server, real_images: Path) -> None:
    *_, printed = run_section(MIX, real_images, server)
    gain = re.search(r"gain: ([+-]\d+\.\d) points, 95 % interval \+-(\d+\.\d)", printed)
    assert gain
    if REAL_DATA.is_dir():
        assert float(gain[1]) > float(gain[2])


@pytest.mark.server
@pytest.mark.parametrize("heading", OTHERS)
def test_other_sections(server: Server, tmp_path: Path, heading: str) -> None:
    run_section(heading, tmp_path, server)
    for archive in tmp_path.glob("*.zip"):
        assert zipfile.ZipFile(archive).testzip() is None
