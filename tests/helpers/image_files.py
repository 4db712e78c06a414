"""Image files in folders and zips, made on the spot."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from training.data import Dataset, load
from training.errors import DataError

Pack = Callable[[Path, dict[str, bytes]], Path]


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def picture(
    value: int = 0, size: tuple[int, int] = (16, 16), mode: str = "RGB", form: str = "PNG"
) -> bytes:
    """A file of one colour: the grey ``value``, or the red."""
    return encoded(Image.new(mode, size, value if mode == "L" else (value, 0, 0)), form)


def as_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "faces"


def as_zip(root: Path, files: dict[str, bytes], name: str = "faces.zip") -> Path:
    path = root / name
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def as_zip_of_a_folder(root: Path, files: dict[str, bytes]) -> Path:
    return as_zip(root, {f"inner/{name}": content for name, content in files.items()})


def problems(
    path: Path | str,
    attributes: Sequence[str] | None = None,
    size: int | None = None,
    crop: int | None = None,
) -> list[str]:
    """Everything that is wrong with the data there."""
    with pytest.raises(DataError) as caught:
        load(str(path), attributes, size, crop)
    for problem in caught.value.problems:
        assert problem in str(caught.value)
    return caught.value.problems


def classes(*names: str, count: int = 2) -> dict[str, bytes]:
    """Class folders of ``count`` images each."""
    return {
        f"{name}/{n}.png": picture(10 * k + n) for k, name in enumerate(names) for n in range(count)
    }


def below(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The same files in the folder ``prefix``."""
    return {f"{prefix}/{name}": content for name, content in files.items()}


def counts(dataset: Dataset) -> dict[str, int]:
    """Number of images of each value of the one attribute."""
    (attribute,) = dataset.attributes
    return {
        value: int((dataset.labels[:, 0] == at).sum()) for at, value in enumerate(attribute.values)
    }


def table(*rows: str, name: str = "metadata.csv") -> dict[str, bytes]:
    """A file of these lines."""
    return {name: "\n".join(rows).encode()}
