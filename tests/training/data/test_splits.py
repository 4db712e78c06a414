"""Which files are for training, and errors that list the candidates and the option that chooses."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.image_files import (
    as_folder,
    as_zip,
    below,
    classes,
    counts,
    picture,
    problems,
    table,
)
from training.data import load
from training.data.splits import kind_of, select
from training.errors import DataError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", ("train", "")),
        ("training_set", ("train", "set")),
        ("seg_train", ("train", "seg")),
        ("train-00000-of-00002.parquet", ("train", "")),
        ("birds_test.parquet", ("test", "birds")),
        ("test1", ("test", "")),
        ("train2017", ("train", "")),
        ("split=val", ("val", "")),
        ("trainer", None),
        ("my train of thought", None),
        ("cat", None),
    ],
)
def test_kind_of_split(name: str, kind: tuple[str, str] | None) -> None:
    assert kind_of(name) == kind


def test_splits_without_one_for_training_are_an_error() -> None:
    with pytest.raises(DataError, match="--split"):
        select(["test/a/0.png", "val/a/0.png"], "here")
    assert select(["test/a/0.png", "val/a/0.png"], "here", "val").split == "val"
    with pytest.raises(DataError, match="has no split 'dev2'"):
        select(["test/a/0.png", "val/a/0.png"], "here", "dev2")


def test_nested_copy_of_splits_is_left_out(tmp_path: Path) -> None:
    inner = below("train", classes("sick", "well")) | below("test", classes("sick", "well"))
    files = below("xray", inner | below("xray", inner))
    dataset = load(str(as_folder(tmp_path, files)))
    assert counts(dataset) == {"sick": 2, "well": 2}
    assert dataset.reading is not None
    assert dataset.reading.left_out["nested copy of the splits"].count == 8
    assert dataset.reading.left_out["split test"].count == 4


def test_siblings_with_the_same_folders_are_an_error_that_lists_them(tmp_path: Path) -> None:
    files = below("spring", classes("cat", "dog")) | below("autumn", classes("cat", "dog"))
    path = as_folder(tmp_path, files)
    (found,) = problems(path)
    assert "autumn, spring look like splits" in found
    assert "--split" in found
    assert counts(load(str(path), split="spring")) == {"cat": 2, "dog": 2}
    assert counts(load(str(path), split="none")) == {"cat": 4, "dog": 4}


def test_splits_below_classes(tmp_path: Path) -> None:
    files = {
        f"{kind}/{split}/{n}.png": picture(n)
        for kind in ("cat", "dog")
        for split, count in (("train", 3), ("test", 2))
        for n in range(count)
    }
    assert counts(load(str(as_folder(tmp_path, files)))) == {"cat": 3, "dog": 3}


def test_parts_are_joined(tmp_path: Path) -> None:
    files = below("part1", classes("cat", "dog")) | below("part2", classes("cat", "dog"))
    assert counts(load(str(as_folder(tmp_path, files)))) == {"cat": 4, "dog": 4}


def test_column_of_splits_is_no_label(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(6)}
    rows = [f"{n}.png,{'ab'[n % 2]},{'train' if n < 4 else 'test'}" for n in range(6)]
    dataset = load(str(as_folder(tmp_path, files | table("file_name,x,split", *rows))))
    assert [attribute.name for attribute in dataset.attributes] == ["x"]
    assert counts(dataset) == {"a": 2, "b": 2}


@pytest.mark.parametrize("name", ["set", "data set", "Usage", "is_train", "Dataset-Split"])
def test_column_of_splits_by_its_name_or_values(tmp_path: Path, name: str) -> None:
    train, test = ("1", "0") if name == "is_train" else ("Training", "PublicTest")
    files = {f"{n}.png": picture(n) for n in range(8)}
    rows = [f"{n}.png,{'ab'[n % 2]},{train if n < 4 else test}" for n in range(8)]
    path = as_folder(tmp_path, files | table(f"file_name,x,{name}", *rows))
    dataset = load(str(path))
    assert counts(dataset) == {"a": 2, "b": 2}
    assert dataset.reading is not None
    assert dataset.reading.left_out["not of split train"].count == 4
    assert counts(load(str(path), split="test")) == {"a": 2, "b": 2}
    assert len(load(str(path), split="none")) == 8


def test_column_of_flags_may_name_the_other_split(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(6)}
    rows = [f"{n}.png,{'ab'[n % 2]},{n >= 4}" for n in range(6)]
    dataset = load(str(as_folder(tmp_path, files | table("file_name,x,is_valid", *rows))))
    assert counts(dataset) == {"a": 2, "b": 2}


def test_column_of_unknown_splits_is_an_error(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(8)}
    rows = [f"{n}.png,{'ab'[n % 2]},{'AB'[n // 4]}" for n in range(8)]
    path = as_folder(tmp_path, files | table("file_name,x,split", *rows))
    (found,) = problems(path)
    assert "column 'split' looks like splits" in found
    assert "'A', 'B'; name one with --split" in found
    assert counts(load(str(path), split="B")) == {"a": 2, "b": 2}
    assert counts(load(str(path), ["split"])) == {"A": 4, "B": 4}


def test_column_without_a_split_for_training(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(8)}
    rows = [f"{n}.png,{'ab'[n % 2]},{'val' if n < 4 else 'test'}" for n in range(8)]
    path = as_folder(tmp_path, files | table("file_name,x,split", *rows))
    assert "test, val look like splits" in problems(path)[0]
    dataset = load(str(path), split="val")
    assert dataset.reading is not None
    assert (len(dataset), dataset.reading.split) == (4, "val")


def test_one_table_of_all_splits(tmp_path: Path) -> None:
    names = [f"{split}/{n}.png" for split in ("train", "test") for n in range(4)]
    files = {name: picture(n) for n, name in enumerate(names)}
    rows = [f"{name},{'ab'[n % 2]}" for n, name in enumerate(names)]
    path = as_folder(tmp_path, files | table("file_name,x", *rows))
    assert load(str(path)).images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert load(str(path), split="test").images[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    with pytest.raises(DataError, match="has no split 'tset'"):
        load(str(path), split="tset")


@pytest.mark.parametrize(
    "folders",
    [
        ("trainA", "trainB", "testA", "testB"),
        ("cat_train", "cat_test", "dog_train", "dog_test"),
        ("train", "test", "sample"),
    ],
)
def test_splits_beside_others_without_classes_are_an_error(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    path = as_folder(tmp_path, classes(*folders))
    found = problems(path)[0]
    assert f"{', '.join(sorted(folders))} look like splits" in found
    assert "--split train" in found or "--split cat_train" in found
    assert len(load(str(path), split="none")) == 2 * len(folders)


def test_folders_beside_splits_are_left_out(tmp_path: Path) -> None:
    files = below("train", classes("cat", "dog")) | below("test", classes("cat", "dog"))
    dataset = load(str(as_folder(tmp_path, files | classes("sample"))))
    assert counts(dataset) == {"cat": 2, "dog": 2}
    assert dataset.reading is not None
    assert dataset.reading.left_out["beside the split train"].count == 2


def test_a_training_folder_beside_classes_is_an_error(tmp_path: Path) -> None:
    path = as_folder(tmp_path, below("train", classes("cat", "dog")) | classes("bird"))
    assert "bird, train look like splits" in problems(path)[0]


def test_siblings_with_nearly_the_same_folders_are_an_error(tmp_path: Path) -> None:
    files = below("spring", classes("cat", "dog")) | below("autumn", classes("cat", "dog", "fox"))
    assert "autumn, spring look like splits" in problems(as_folder(tmp_path, files))[0]


def test_folder_of_a_split_is_chosen(tmp_path: Path) -> None:
    files = {
        f"{split}/{kind}/{n}.png": picture(n)
        for split in ("train", "test")
        for kind in ("images", "masks")
        for n in range(3)
    }
    path = as_folder(tmp_path, files)
    assert "images, masks look like images and what belongs to them" in problems(path, [])[0]
    dataset = load(str(path), [], split="images")
    assert dataset.reading is not None
    assert (len(dataset), dataset.reading.split) == (3, "train/images")


def test_archives_that_are_no_shards_are_an_error(tmp_path: Path) -> None:
    for name in ("new", "old"):
        as_zip(tmp_path, classes("cat", "dog")).rename(tmp_path / f"{name}.zip")
    assert "new.zip, old.zip look like splits" in problems(tmp_path)[0]
    assert len(load(str(tmp_path), split="new.zip")) == 4


def test_training_images_that_are_packed_still_are_an_error(tmp_path: Path) -> None:
    path = as_folder(tmp_path, below("test", classes("cat", "dog")))
    as_zip(tmp_path, classes("cat", "dog")).rename(path / "train.zip")
    assert problems(path) == [
        "train.zip is not read beside files that are unpacked: unpack it, too"
    ]
    as_folder(tmp_path, below("train", classes("cat", "dog")))
    assert counts(load(str(path))) == {"cat": 2, "dog": 2}


def write(path: Path, count: int, **columns: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [picture(n) for n in range(count)]
    pq.write_table(pa.table({"image": images, **columns}), path)


def test_configurations_of_parquet_are_an_error(tmp_path: Path) -> None:
    for name in ("full", "small"):
        write(tmp_path / "data" / name / "train-00000-of-00001.parquet", 4, x=["a", "b"] * 2)
    assert "full, small look like splits" in problems(tmp_path)[0]
    assert counts(load(str(tmp_path), split="small")) == {"a": 2, "b": 2}


def test_column_of_splits_in_parquet(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 6, x=["a", "b"] * 3, Usage=["Training"] * 4 + ["PublicTest"] * 2)
    assert counts(load(str(tmp_path))) == {"a": 2, "b": 2}
    write(tmp_path / "b.parquet", 4, x=["a", "b"] * 2, Usage=["PrivateTest"] * 4)
    assert counts(load(str(tmp_path), split="test")) == {"a": 3, "b": 3}
    (tmp_path / "b.parquet").unlink()
    write(tmp_path / "a.parquet", 4, x=["a", "b"] * 2)
    with pytest.raises(DataError, match="has no split 'test'"):
        load(str(tmp_path), split="test")
