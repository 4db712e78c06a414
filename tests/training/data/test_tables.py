"""Tables as spreadsheets, pandas and scripts write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.image_files import as_folder, below, classes, counts, picture, problems, table
from training.data import load
from training.errors import DataError

FOUR = {f"{n}.png": picture(n) for n in range(4)}


def rows(*values: str, header: str = "file_name,x", name: str = "metadata.csv") -> dict[str, bytes]:
    lines = [f"{n}.png,{value}" for n, value in enumerate(values)]
    return FOUR | table(header, *lines, name=name)


def test_column_that_numbers_the_rows_is_no_label(tmp_path: Path) -> None:
    lines = [f"{n},{n}.png,{'ab'[n % 2]}" for n in range(4)]
    for name in ("", "Unnamed: 0"):
        path = as_folder(tmp_path, FOUR | table(f"{name},file_name,x", *lines))
        dataset = load(str(path))
        assert counts(dataset) == {"a": 2, "b": 2}
        assert dataset.reading is not None
        assert dataset.reading.unread == {name or "column without a name": "numbers the rows"}


def test_column_that_holds_nothing_is_no_label(tmp_path: Path) -> None:
    files = rows("a,", "b,", "a,", "b,", header="file_name,x,")
    assert counts(load(str(as_folder(tmp_path, files)))) == {"a": 2, "b": 2}


def test_first_line_has_to_name_the_columns(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'ab'[n % 2]}" for n in range(4)]
    path = as_folder(tmp_path, FOUR | table(*lines))
    said = "line 1: '0.png' is an image: the first line has to name the columns"
    assert problems(path) == [said]
    (path / "metadata.csv").rename(path / "labels.csv")
    assert problems(path)[1].endswith(f"labels.csv (a table that cannot be used: {said})")


@pytest.mark.parametrize("missing", ["NaN", "nan", "null", "<NA>", "#N/A"])
def test_missing_values_are_no_labels(tmp_path: Path, missing: str) -> None:
    files = rows("a", "b", missing, missing)
    assert f"line 4: no value for 'x' (it says '{missing}')" in problems(as_folder(tmp_path, files))


def test_missing_values_of_json_are_no_labels(tmp_path: Path) -> None:
    values = [1, 1, 2, 2, float("nan"), None]
    lines = [json.dumps({"file_name": f"{n}.png", "x": value}) for n, value in enumerate(values)]
    files = {f"{n}.png": picture(n) for n in range(6)} | table(*lines, name="metadata.jsonl")
    assert problems(as_folder(tmp_path, files)) == [
        "line 5: no value for 'x'",
        "line 6: no value for 'x'",
    ]


def test_whole_numbers_are_equal_however_written(tmp_path: Path) -> None:
    path = as_folder(tmp_path, rows("0", "1.0", "0.0", "1"))
    assert counts(load(str(path))) == {"0": 2, "1": 2}


def test_true_and_other_values_in_one_column_are_an_error(tmp_path: Path) -> None:
    values = [True, 1, False, 0]
    lines = [json.dumps({"file_name": f"{n}.png", "x": value}) for n, value in enumerate(values)]
    path = as_folder(tmp_path, FOUR | table(*lines, name="metadata.jsonl"))
    assert "'x' is true or false in some lines, but not in others" in problems(path)


@pytest.mark.parametrize("value", ["a\u200b", "a\x07", "a\0", "\ufeffa"])
def test_characters_that_cannot_be_seen_are_an_error(tmp_path: Path, value: str) -> None:
    found = problems(as_folder(tmp_path, rows("a", value, "a", value)))
    assert found == [f"attribute 'x': the value {value!r} has characters that cannot be seen"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("A.PNG", "but there is 'pets/a.png'"),
        ("a.jpg", "but there is 'pets/a.png'"),
        ("C:\\me\\a.png", "but there is 'pets/a.png'"),
        ("/content/pets/a.png", "but there is 'pets/a.png'"),
        ("b.png", "but there are test/b.png, train/b.png: --split chooses"),
    ],
)
def test_image_of_a_similar_name_is_told(tmp_path: Path, value: str, said: str) -> None:
    files = {name: picture() for name in ("pets/a.png", "train/b.png", "test/b.png", "c.png")}
    lines = ["c.png,x", f"{value},x"]
    found = problems(as_folder(tmp_path, files | table("file_name,x", *lines)))
    assert f"line 3: no image {value!r}, {said}" in found


def test_table_of_a_split_names_the_images_of_that_split(tmp_path: Path) -> None:
    files = {f"{split}/{n}.png": picture(n) for split in ("train", "test") for n in range(4)}
    lines = [f"{n}.png,{'ab'[n % 2]}" for n in range(4)]
    path = as_folder(tmp_path, files | table("id,x", *lines, name="train.csv"))
    dataset = load(str(path))
    assert dataset.reading is not None
    assert dataset.reading.left_out["image that the table does not list"].examples[0] == (
        "test/0.png"
    )
    path = as_folder(tmp_path / "b", files | table("id,x", *lines, name="labels.csv"))
    assert counts(load(str(path), split="test")) == {"a": 2, "b": 2}


def test_tables_of_old_macs_and_of_europe(tmp_path: Path) -> None:
    lines = [f"{n}.png;{n % 2};{n % 2},5" for n in range(4)]
    content = "\r".join(["file_name;kind, of;size, in, cm", *lines]).encode()
    dataset = load(str(as_folder(tmp_path, FOUR | {"metadata.csv": content})))
    assert [attribute.values for attribute in dataset.attributes] == [("0", "1"), ("0,5", "1,5")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\3\4 [Content_Types].xml", "is no text: it is a zip, or a spreadsheet of Excel"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no text: it is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "is no text: it is an HTML page"),
    ],
)
def test_other_content_of_a_table_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    assert problems(as_folder(tmp_path, FOUR | {"metadata.csv": content}))[0].startswith(said)


@pytest.mark.parametrize(
    "name",
    [
        *("labels.txt", "labels.json", "labels.xlsx", "metadata.csv.gz", "annotations/train.json"),
        *("image_class_labels.txt", "train_test_split.txt", "imagelabels.mat", "labels/0.txt"),
    ],
)
def test_lists_of_labels_that_are_not_read_are_named(tmp_path: Path, name: str) -> None:
    found = problems(as_folder(tmp_path, FOUR | {name: b"0.png a"}))
    assert "--unconditional" in found[0]
    assert found[1].startswith(f"seen, not read as a label: {name} (")
    files = classes("cat", "dog") | {name: b"0.png a"}
    reading = load(str(as_folder(tmp_path / "classes", files))).reading
    assert reading is not None
    assert list(reading.unread) == [name]


def test_all_tables_are_counted(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'ab'[n % 2]}" for n in range(4)]
    files = {f"{split}/{n}.png": picture(n) for split in ("train", "test") for n in range(4)}
    files |= table("id,x", *lines, name="train.csv") | table("id", "0.png", name="test.csv")
    files |= table("id,x", *lines, name="sample_submission.csv")
    dataset = load(str(as_folder(tmp_path, files)))
    assert dataset.reading is not None
    assert dataset.reading.left_out["not an image"].examples == [
        "sample_submission.csv",
        "test.csv",
    ]


@pytest.mark.parametrize("name", ["nowhere.csv", "other.csv"])
def test_table_that_does_not_fit_is_an_error(tmp_path: Path, name: str) -> None:
    files = classes("cat", "dog") | table("x,y", "q,2", name="other.csv")
    path = as_folder(tmp_path, files)
    with pytest.raises(DataError, match=r"--table (nowhere|other)\.csv"):
        load(str(path), table=name)


def test_folders_that_look_like_classes_are_named_beside_a_table(tmp_path: Path) -> None:
    files = classes("cat", "dog")
    lines = [f"{name},{'ab'[n % 2]}" for n, name in enumerate(files)]
    dataset = load(str(as_folder(tmp_path, files | table("file_name,x", *lines))))
    assert counts(dataset) == {"a": 2, "b": 2}
    assert dataset.reading is not None
    assert dataset.reading.unread == {"folders cat, dog": "the table has the labels"}


def test_one_image_under_two_names_is_an_error(tmp_path: Path) -> None:
    path = as_folder(tmp_path, FOUR | table("file_name,x", "0.png,a", "1.png,b", "./0.png,b"))
    assert "line 4: './0.png' is the image of line 2" in problems(path)


def test_lines_of_json_end_with_line_feeds_only(tmp_path: Path) -> None:
    lines = [f'{{"file_name": "{n}.png", "x": "{"ab"[n % 2]}", "y": "p\u2028q"}}' for n in range(4)]
    path = as_folder(tmp_path, FOUR | table(*lines, name="metadata.jsonl"))
    assert counts(load(str(path), ["x"])) == {"a": 2, "b": 2}
    (path / "metadata.jsonl").write_text(f"[{','.join(lines)}]")
    assert problems(path) == ["is one JSON array: write each object on a line of its own"]


@pytest.mark.parametrize("name", ["sampleSubmission.csv", "sample_submission.csv"])
def test_form_of_a_competition_is_no_table(tmp_path: Path, name: str) -> None:
    files = below("train", classes("cat", "dog")) | {f"test1/{n}.png": picture() for n in range(4)}
    files |= table("id,label", "1,0", "2,0", name=name)
    assert counts(load(str(as_folder(tmp_path, files)))) == {"cat": 2, "dog": 2}
