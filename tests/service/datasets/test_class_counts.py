"""Classes of a user's folder under the labels of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.labels import Vocabulary
from service.datasets.class_counts import count_classes
from service.errors import DatasetError
from tests.conftest import attribute

FACES = Vocabulary(
    [attribute("hair", "black", "red", "blonde"), attribute("eyes", "red", "blue", "green")],
    "/models/faces/labels",
)
DIGITS = Vocabulary([attribute("digit", "0", "1", "2")], "/models/digits/labels")


def fill(folder: Path, **classes: int) -> Path:
    """Class folders with so many images each."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index}.jpg").touch()
    return folder


def table(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metadata.csv").write_text(text)
    return folder


def test_class_folders(tmp_path: Path) -> None:
    folder = fill(tmp_path, **{"2": 3, "0": 1, "1": 0, ".git": 2, "__MACOSX": 1})
    (tmp_path / "0" / "notes.txt").touch()
    (tmp_path / "0" / "._0.jpg").touch()
    fill(tmp_path / "2" / "more", deeper=2)
    assert count_classes(folder, DIGITS) == {"0": 1, "1": 0, "2": 5}


def test_values_of_one_attribute_need_no_name(tmp_path: Path) -> None:
    assert count_classes(fill(tmp_path, Red=1, green=2), FACES) == {"red eyes": 1, "green eyes": 2}


def test_values_of_two_attributes_are_ambiguous(tmp_path: Path) -> None:
    folder = fill(tmp_path, red=1)
    with pytest.raises(DatasetError, match=r"red: label 'red' is ambiguous: say 'red hair' or"):
        count_classes(folder, FACES)
    assert count_classes(folder, FACES, ["hair"]) == {"red hair": 1}


def test_folders_may_be_label_phrases(tmp_path: Path) -> None:
    folder = fill(tmp_path, **{"red eyes": 2, "black hair, blue eyes": 1})
    assert count_classes(folder, FACES) == {"black hair, blue eyes": 1, "red eyes": 2}


def test_joint_classes(tmp_path: Path) -> None:
    folder = fill(tmp_path, black__blue=2, blonde__red=1)
    expected = {"black hair, blue eyes": 2, "blonde hair, red eyes": 1}
    assert count_classes(folder, FACES) == expected
    assert count_classes(folder, FACES, ["hair", "eyes"]) == expected


def test_only_the_training_split_is_counted(tmp_path: Path) -> None:
    fill(tmp_path / "train", **{"0": 2, "1": 1})
    fill(tmp_path / "val", **{"0": 7, "1": 7})
    assert count_classes(tmp_path, DIGITS) == {"0": 2, "1": 1}


def test_table(tmp_path: Path) -> None:
    header = "\ufefffile_name,Eyes,hair,address"
    rows = ["a.png,red,black,x", "b.png,red,black,y", "c.png,blue,red,z"]
    folder = table(tmp_path, "\n".join([header, *rows]))
    assert count_classes(folder, FACES) == {"black hair, red eyes": 2, "red hair, blue eyes": 1}
    assert count_classes(folder, FACES, ["eyes"]) == {"red eyes": 2, "blue eyes": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "file_name,eyes\na.png,rde\n",
            "line 2: unknown value 'rde' for 'eyes': did you",
        ),
        ("file_name,eyes\na.png,red\nb.png\n", "line 3: unknown value ''"),
        ("file_name,nose\na.png,big\n", "the columns file_name, nose, and not an attribute"),
        ("", "not an attribute of the model: hair, eyes"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        count_classes(table(tmp_path, text), FACES)
    assert words in str(caught.value)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"neither a folder for each class nor a metadata.csv"):
        count_classes(tmp_path, FACES)
    with pytest.raises(DatasetError, match=r"gren: unknown label 'gren': did you mean 'green"):
        count_classes(fill(tmp_path, gren=1, blue=1), FACES)
    with pytest.raises(DatasetError, match="cannot read"):
        count_classes(tmp_path / "nowhere", FACES)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,eyes\n\xff\xfe\n")
    with pytest.raises(DatasetError, match="is not a CSV file in UTF-8"):
        count_classes(tmp_path, FACES)
