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
from tests.helpers.documents import DOCS, blocks, run_block
from tests.helpers.server import Server
from training.data import load

PAGE = DOCS / "sets.md"
GUIDE = PAGE.read_text()
BLOCKS = blocks(PAGE, "sh", "python", "python mix.py")


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


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    """Folder with ``real.zip``: real digits if available, else digits of another seed."""
    if REAL_DATA.is_dir():
        digits = load(str(REAL_DATA / "mnist")).split(0.3)[1]
        values = digits.attributes[0].values
        names = [values[label] for label in digits.labels[:, 0]]
        write(tmp_path / "real.zip", digits.images[..., 0], names)
        return tmp_path
    labels = [str(digit) for digit in range(10)]
    batch = Figment(server.url).generate(400, label=labels, model="digits", seed=99)
    drawn = [(each or {})["digit"] for each in batch.labels]
    write(tmp_path / "real.zip", batch.images[..., 0], drawn)
    return tmp_path


@pytest.mark.server
@pytest.mark.slow
def test_sets_guide(server: Server, folder: Path) -> None:
    outputs = {}
    for kind, code in BLOCKS:
        output = run_block(kind, code, folder, server.url)
        if kind != "python mix.py":
            outputs[code] = output
    assert len(outputs) >= 7
    (first, *_) = outputs.values()
    for line in first.splitlines():
        # Another kind of processor may round otherwise, and so tip a few images over the threshold.
        numbers = [int(number) for number in re.findall(r"\d+", line)]
        words = re.sub(r"\d+", r"(\\d+)", re.escape(line.strip()))
        shown = re.search(f"^    {words}$", GUIDE, re.MULTILINE)
        assert shown, line
        assert [int(number) for number in shown.groups()] == pytest.approx(numbers, rel=0.05)
    (measured,) = [text for code, text in outputs.items() if "mix.py" in code]
    gain = re.search(r"gain: ([+-]\d+\.\d) points, 95 % interval \+-(\d+\.\d)", measured)
    assert gain
    if REAL_DATA.is_dir():
        assert float(gain[1]) > float(gain[2])
    assert zipfile.ZipFile(folder / "faces.zip").testzip() is None
