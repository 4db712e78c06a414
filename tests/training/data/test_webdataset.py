"""WebDataset tars: class files, JSON, and what does not belong to an image."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.image_files import counts, picture, problems
from training.data import load


def as_tar(root: Path, *samples: Mapping[str, object]) -> Path:
    """Samples by the endings of their files; text is encoded, other values are JSON."""
    path = root / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number, sample in enumerate(samples):
            for ending, value in sample.items():
                text = value if isinstance(value, str) else json.dumps(value)
                content = picture(number) if ending.lower() in ("png", "seg.png") else text.encode()
                info = tarfile.TarInfo(f"{number:04}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def sample(**files: object) -> dict[str, object]:
    return {"png": None} | files


def test_class_files(tmp_path: Path) -> None:
    path = as_tar(tmp_path, *(sample(cls=str(n % 2)) for n in range(4)))
    assert counts(load(str(path))) == {"0": 2, "1": 2}


def test_endings_in_upper_case(tmp_path: Path) -> None:
    path = as_tar(tmp_path, *({"PNG": None, "CLS": str(n % 2)} for n in range(4)))
    assert counts(load(str(path))) == {"0": 2, "1": 2}


def test_json_names_the_classes(tmp_path: Path) -> None:
    path = as_tar(
        tmp_path, *(sample(cls=str(n % 2), json={"label": ["cat", "dog"][n % 2]}) for n in range(4))
    )
    assert counts(load(str(path))) == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 0, 1, 0], "'0000.json': label is '1', but the class file says 0"),
        (
            ["cat", "dog", "dog", "cat"],
            "'0002.json': label is 'dog', but the class file says 0, which was 'cat'",
        ),
    ],
)
def test_class_file_and_json_that_disagree_are_an_error(
    tmp_path: Path, values: list[object], said: str
) -> None:
    samples = (sample(cls=str(n % 2), json={"label": values[n]}) for n in range(4))
    assert said in problems(as_tar(tmp_path, *samples))


def test_labels_of_the_json_replace_the_class_files(tmp_path: Path) -> None:
    samples = (sample(cls=str(n % 2), json={"labels": {"hair": "ab"[n % 2]}}) for n in range(4))
    dataset = load(str(as_tar(tmp_path, *samples)))
    assert counts(dataset) == {"a": 2, "b": 2}
    assert dataset.reading is not None
    assert dataset.reading.unread == {"*.cls of 'label'": "the JSON has the labels"}


def test_files_without_their_image_are_counted(tmp_path: Path) -> None:
    samples = [sample(cls=str(n % 2)) for n in range(4)]
    dataset = load(str(as_tar(tmp_path, *samples, {"cls": "7"})))
    assert len(dataset) == 4
    assert dataset.reading is not None
    assert dataset.reading.left_out["file without an image of its key"].examples == ["0004.cls"]


def test_second_image_of_a_key_is_an_error(tmp_path: Path) -> None:
    samples = ({"png": None, "seg.png": None, "cls": str(n % 2)} for n in range(4))
    assert "'0000.seg.png': a second image with the key" in problems(as_tar(tmp_path, *samples))[0]


def test_samples_without_images_are_named(tmp_path: Path) -> None:
    path = as_tar(tmp_path, *({"npy": "x", "cls": str(n % 2)} for n in range(4)))
    assert problems(path) == ["holds no images, but files that end with .cls, .npy"]
