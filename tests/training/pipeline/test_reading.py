"""A build finds the size and the labels of data by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.config import TrainingConfig
from training.data import Dataset
from training.errors import DataError
from training.pipeline.reading import read


def chosen(source: Path, **fixed: Any) -> tuple[Dataset, dict[str, Any]]:
    given = TrainingConfig.model_validate(
        {"data": str(source), "name": "x", "device": "cpu"} | fixed
    )
    return read(given, fixed)


def photographs(folder: Path, *sizes: tuple[int, int], count: int = 40) -> Path:
    """``count`` images of different colours, of the ``sizes`` in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.new("RGB", sizes[number % len(sizes)], (6 * number, 0, 255 - 6 * number))
        image.save(folder / f"{number}.png")
    return folder


def test_images_of_odd_sizes_are_drawn_at_64(tmp_path: Path) -> None:
    dataset, options = chosen(photographs(tmp_path / "a", (300, 200), (150, 170)))
    assert dataset.images.shape == (40, 64, 64, 3)
    assert options == {"size": 64, "unconditional": True}


def test_small_images_keep_about_their_size(tmp_path: Path) -> None:
    dataset, options = chosen(photographs(tmp_path / "a", (24, 30), (25, 24), (24, 24)))
    assert dataset.images.shape[1:] == (28, 28, 3)
    assert options["size"] == 28


def test_arrays_keep_their_size(tmp_path: Path) -> None:
    for name, shape in (("images-idx3", (200, 28, 28)), ("labels-idx1", (200,))):
        array = np.arange(np.prod(shape)).reshape(shape) % 10
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (tmp_path / f"train-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    dataset, options = chosen(tmp_path)
    assert dataset.images.shape == (200, 28, 28, 1)
    assert options == {}


def test_labels_that_name_single_images_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photographs(tmp_path / "a", (64, 64))
    rows = [f"{n}.png,{'light' if n % 2 else 'dark'},{n // 2}" for n in range(40)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,tone,id", *rows]))
    dataset, options = chosen(folder)
    assert [each.name for each in dataset.attributes] == ["tone"]
    assert options["attributes"] == ("tone",)
    assert "left out, with fewer than 10 images for each value: id" in capsys.readouterr().out


def test_options_of_the_user_stay(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "a", (64, 64))
    dataset, options = chosen(folder, size=32, unconditional=True)
    assert dataset.images.shape[1] == 32
    assert options == {}


def test_damaged_data_is_rejected_with_all_problems(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "a", (64, 64))
    (folder / "3.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"3\.png"):
        chosen(folder)
