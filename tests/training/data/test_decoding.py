"""Pixels between a file and the dataset."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.helpers.image_files import as_folder, encoded, picture, problems
from training.data import Dataset, load, summary
from training.data.decoding import Picture, decode
from training.data.options import Options
from training.data.reading import Reading
from training.data.sniffing import EXTENSIONS
from training.errors import DataError

BANDS = np.repeat(np.array([[0] * 8 + [200] * 16 + [0] * 8]), 24, axis=0).astype(np.uint8)
"""32x24: dark, then bright in the 16 columns of the middle, then dark."""


def one(root: Path, file: bytes, size: int | None = None, crop: int | None = None) -> Dataset:
    return load(str(as_folder(root, {"a.png": file})), [], size, crop)


def test_crop_keeps_the_middle_untouched(tmp_path: Path) -> None:
    dataset = one(tmp_path, encoded(Image.fromarray(BANDS)), crop=16)
    assert dataset.images.shape == (1, 16, 16, 1)
    assert (dataset.images == 200).all()


def test_size_draws_the_largest_square_in_the_middle(tmp_path: Path) -> None:
    dataset = one(tmp_path, encoded(Image.fromarray(BANDS)), size=12)
    assert dataset.images.shape == (1, 12, 12, 1)
    row = dataset.images[0, 5, :, 0]
    assert (row[[0, -1]] < 30).all()
    assert (row[4:-4] > 180).all()
    assert (row == row[::-1]).all()


def test_size_and_crop_together(tmp_path: Path) -> None:
    dataset = one(tmp_path, encoded(Image.fromarray(BANDS)), size=32, crop=16)
    assert dataset.images.shape == (1, 32, 32, 1)
    assert (dataset.images == 200).all()


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (256, 128))
    dataset = one(tmp_path, encoded(Image.fromarray(stripes)), size=16)
    assert np.abs(dataset.images.astype(int) - 127).max() <= 20


def test_images_of_all_sizes_are_read_with_a_size(tmp_path: Path) -> None:
    sizes = [(16, 16), (40, 20), (9, 33)]
    files = {f"{n}.png": picture(n, size) for n, size in enumerate(sizes)}
    path = as_folder(tmp_path, files)
    assert load(str(path), [], size=16).images.shape == (3, 16, 16, 3)
    found = problems(path, [])
    assert found == [
        "'1.png' is 40x20, the others are 16x16: --size draws all at one size",
        "'2.png' is 9x33, the others are 16x16: --size draws all at one size",
    ]
    assert problems(path, [], size=16, crop=16) == ["'2.png' is 9x33, too small for --crop 16"]


def test_many_sizes_are_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n, (16 + n, 16)) for n in range(8)}
    (found,) = problems(as_folder(tmp_path, files), [])
    assert found.startswith("the images have 8 sizes, from 16x16 to 23x16, most often")
    assert "--size 64" in found and "--pad white" in found


def test_pad_keeps_the_whole_image_on_borders_of_one_colour(tmp_path: Path) -> None:
    path = as_folder(tmp_path, {"a.png": picture(0, (32, 16)), "b.png": picture(0, (16, 32))})
    wide, high = load(str(path), [], pad="#ff0000").images
    assert wide[:, 16, 0].tolist() == [255] * 8 + [0] * 16 + [255] * 8
    assert (high == wide.transpose(1, 0, 2)).all()
    assert load(str(path), [], size=16, pad="white").images.shape == (2, 16, 16, 3)


def test_damaged_images_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    files = {f"{label}/{n}.png": picture(n) for label in ("cat", "dog") for n in range(3)}
    path = as_folder(tmp_path, files | {"cat/1.png": b"", "dog/2.png": b"no picture"})
    with pytest.raises(DataError, match="--on-bad skip leaves out") as stopped:
        load(str(path))
    assert len(stopped.value.problems) == 2
    dataset = load(str(path), skip_bad=True)
    assert dataset.names == ("cat/0.png", "cat/2.png", "dog/0.png", "dog/1.png")
    assert dataset.labels[:, 0].tolist() == [0, 0, 1, 1]
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 2, 0, 1]
    assert any("left out 2: damaged image: 'cat/1.png' is" in line for line in summary(dataset))


def test_a_colour_image_makes_all_the_grey_ones_before_it_colour(tmp_path: Path) -> None:
    files = {"a.png": picture(7, mode="L"), "b.png": picture(9), "c.png": picture(5, mode="L")}
    dataset = load(str(as_folder(tmp_path, files)), [])
    assert dataset.images[:, 0, 0].tolist() == [[7, 7, 7], [9, 0, 0], [5, 5, 5]]


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("LA", (16, 16), (40, 0)), [255]),
        (Image.new("RGBA", (16, 16), (40, 50, 60, 255)), [40, 50, 60]),
        (
            Image.new(
                "P",
                (16, 16),
                0,
            ),
            [0, 0, 0],
        ),
        (Image.new("1", (16, 16), 1), [255]),
        (Image.fromarray(np.full((16, 16), 0x80FF, dtype=np.uint16)), [0x80]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_modes(tmp_path: Path, image: Image.Image, pixel: list[int]) -> None:
    assert one(tmp_path, encoded(image)).images[0, 3, 3].tolist() == pixel


def test_floats_have_no_range(tmp_path: Path) -> None:
    path = as_folder(tmp_path, {"a.tif": encoded(Image.new("F", (16, 16)), "TIFF")})
    assert problems(path, []) == [
        "'a.tif' is not a readable image: pixels of mode F have no 8-bit range"
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((24, 16), dtype=np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(pixels)
    seen = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(image, exif=exif))))
    dataset = one(tmp_path, encoded(image, "JPEG", quality=95, exif=exif))
    assert np.abs(dataset.images[0, ..., 0].astype(int) - np.asarray(seen)).max() <= 5


@pytest.mark.parametrize("extension", [".jpg", ".webp", ".bmp", ".gif", ".tiff", ".avif"])
def test_formats(tmp_path: Path, extension: str) -> None:
    assert extension in EXTENSIONS
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    path = as_folder(tmp_path, {})
    path.mkdir()
    image.save(path / f"a{extension}")
    found = load(str(path), []).images[0, 8, 8].astype(int)
    assert np.abs(found - [200, 100, 50]).max() <= 8


def test_colour_after_a_damaged_file_and_grey() -> None:
    found: list[str] = []
    files = [b"", picture(3, mode="L"), picture(4)]
    pictures = [Picture(f"row {n}", partial(bytes, file)) for n, file in enumerate(files)]
    images, damaged = decode(pictures, 3, Options(), found, Reading())
    assert found == list(damaged.values())
    assert damaged == {0: "row 0 is not a readable image: the file is empty"}
    assert images[:, 0, 0].tolist() == [[3, 3, 3], [4, 0, 0]]


def test_images_that_exceed_memory_are_an_error() -> None:
    pictures = [Picture("row 0", lambda: picture())]
    with pytest.raises(DataError, match="--size makes them smaller"):
        decode(pictures, 10**15, Options(), [], Reading())


@pytest.mark.parametrize(("size", "crop"), [(32, None), (None, 16)])
def test_size_and_crop_are_for_image_files(
    tmp_path: Path, size: int | None, crop: int | None
) -> None:
    (tmp_path / "train-images-idx3-ubyte").touch()
    (found,) = problems(tmp_path, None, size, crop)
    assert found.endswith("--size, --crop and --pad are for image files")


@pytest.mark.parametrize(("size", "crop"), [(48, None), (None, 16)])
def test_avatars_are_drawn_in_some_sizes(size: int | None, crop: int | None) -> None:
    (found,) = problems(Path("avatars:128"), None, size, crop)
    assert found.endswith("avatars have a --size of 16, 32, 64, 128, and no --crop or --pad")
