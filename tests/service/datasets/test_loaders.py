"""Loaders of others read the files of a set: classes, their names, and counts."""

from __future__ import annotations

import csv
import gc
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import webdataset

from tests.helpers.make_dataset import SMALL, Command

ALL = SMALL | {"label": ["red, small", "blue, small", "red, large"], "n": 300, "seed": 3}
SPLITS = {"splits": {"train": 0.8, "val": 0.2}}
FOLDERS = ALL | SPLITS | {"format": "zip", "layout": "folders", "by": "colour"}
JOINT = FOLDERS | {"by": ["colour", "size"], "images_per_file": 300}


def unpacked(command: Command) -> Path:
    """Images of a set of zip files, in one folder."""
    folder = command.folder / "images"
    for path in command.made():
        zipfile.ZipFile(path).extractall(folder)
    return folder


@contextmanager
def files_left_open() -> Iterator[None]:
    """Ignore the warnings about files that a loader leaves open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def samples(shards: list[str]) -> list[dict[str, Any]]:
    with files_left_open():
        return list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))


def test_splits_have_files_of_their_own(command: Command) -> None:
    command.build(ALL | SPLITS | {"format": "webdataset"})
    names = [path.name for path in command.made()]
    assert names == [f"tiny-{split}-0000{i}.tar" for split in ("train", "val") for i in range(3)]
    files = json.loads((command.out / "manifest.json").read_text())["files"]
    assert sum(file["images"] for file in files) == 300
    assert {file["split"] for file in files} == {"train", "val"}
    assert all(sum(file["labels"]) == file["images"] for file in files)


def test_webdataset_reads_splits_and_classes(command: Command) -> None:
    command.build(ALL | SPLITS | {"format": "webdataset", "by": "size"})
    keys: list[str] = []
    for split, least in (("train", 200), ("val", 30)):
        found = samples([str(path) for path in command.made() if split in path.name])
        assert len(found) > least
        for sample in found:
            labels = sample["json"]["labels"]
            assert sample["cls"] == sample["size.cls"] == ["small", "large"].index(labels["size"])
            assert sample["colour.cls"] == ["red", "blue"].index(labels["colour"])
            assert sample["__key__"].startswith(f"{split}/tiny-2-3-")
        keys += [sample["__key__"].rpartition("/")[2] for sample in found]
    assert len({*keys}) == 300


def test_indexes_name_what_is_there(command: Command) -> None:
    command.build(ALL | SPLITS | {"format": "webdataset"})
    info = json.loads((command.out / "_info.json").read_text())["splits"]
    assert info.keys() == {"train", "val"}
    for name, split in info.items():
        counts = [len(samples([str(command.out / file)])) for file in split["filenames"]]
        assert split["shard_lengths"] == counts
        assert split["num_samples"] == sum(counts)
        index = json.loads((command.out / f"_wids-{name}.json").read_text())
        assert [shard["nsamples"] for shard in index["shardlist"]] == counts
        for shard in index["shardlist"]:
            assert (command.out / shard["url"]).stat().st_size == shard["filesize"]


def test_hugging_face_reads_shards(command: Command, hugging_face: Any) -> None:
    command.build(ALL | SPLITS | {"format": "webdataset", "by": ["colour", "size"]})
    files = {name: str(command.out / f"tiny-{name}-*.tar") for name in ("train", "val")}
    loaded = hugging_face.load_dataset("webdataset", data_files=files)
    assert loaded["train"].num_rows + loaded["val"].num_rows == 300
    assert Counter(loaded["train"]["cls"]).keys() == {0, 1, 2}  # red small, red large, blue small


def test_hugging_face_reads_folders_of_classes(command: Command, hugging_face: Any) -> None:
    command.build(JOINT)
    loaded = hugging_face.load_dataset("imagefolder", data_dir=str(unpacked(command)))
    assert {*loaded} == {"train", "validation"}
    for split in loaded.values():
        assert split.features["label"].names == ["blue__small", "red__large", "red__small"]
    assert sum(split.num_rows for split in loaded.values()) == 300
    counts = Counter(loaded["train"]["label"]) + Counter(loaded["validation"]["label"])
    assert counts == {0: 100, 1: 100, 2: 100}


def test_hugging_face_reads_a_table_for_each_split(command: Command, hugging_face: Any) -> None:
    command.build(ALL | SPLITS | {"format": "zip", "images_per_file": 300})
    with files_left_open():
        loaded = hugging_face.load_dataset("imagefolder", data_dir=str(unpacked(command)))
    assert {*loaded} == {"train", "validation"}
    colours = Counter(loaded["train"]["colour"]) + Counter(loaded["validation"]["colour"])
    assert colours == {"red": 200, "blue": 100}


def test_hugging_face_reads_classes_of_parquet(command: Command, hugging_face: Any) -> None:
    command.build(ALL | SPLITS | {"format": "parquet"})
    files = {name: str(command.out / f"tiny-{name}-*.parquet") for name in ("train", "val")}
    loaded = hugging_face.load_dataset("parquet", data_files=files)
    assert loaded["train"].features["size"].names == ["small", "large"]
    sizes = Counter(loaded["train"]["size"]) + Counter(loaded["val"]["size"])
    assert sizes == {0: 200, 1: 100}
    assert {*loaded["val"]["split"]} == {"val"}


@pytest.mark.parametrize("splits", [{}, SPLITS])
def test_images_as_files(command: Command, hugging_face: Any, splits: dict[str, Any]) -> None:
    """As they are in a zip, with their table; loaders take the folder as it is."""
    plan = ALL | splits | {"layout": "folders", "by": "colour"}
    command.build(plan | {"format": "zip"})
    expected = {
        str(path.relative_to(root)): path.read_bytes()
        for root in [unpacked(command)]
        for path in root.rglob("*.png")
    }
    command.out = command.folder / "files"
    command.build(plan | {"format": "folder"})
    found = {str(path.relative_to(command.out)): path for path in command.out.rglob("*.png")}
    assert {name: path.read_bytes() for name, path in found.items()} == expected
    tables = [csv.DictReader(path.read_text().splitlines()) for path in command.made()]
    assert {row["file_name"] for table in tables for row in table} == found.keys()
    loaded = hugging_face.load_dataset("imagefolder", data_dir=str(command.out))
    for split in loaded.values():
        assert split.features["label"].names == ["blue", "red"]
    assert sum(split.num_rows for split in loaded.values()) == 300


def test_images_as_files_are_made_again(command: Command) -> None:
    plan = ALL | {"layout": "folders", "by": "colour", "format": "folder"}
    command.build(plan)
    before = {path: path.read_bytes() for path in command.out.rglob("*.*") if path.is_file()}
    changed, lost, *_ = sorted(command.out.rglob("*.png"))
    changed.write_bytes(b"")
    lost.unlink()
    command.build(plan)
    assert {path: path.read_bytes() for path in before} == before


def test_torchvision_reads_folders(command: Command) -> None:
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    command.build(FOLDERS | {"format": "folder"})
    train, val = folder(command.out / "train"), folder(command.out / "val")
    assert train.classes == val.classes == ["blue", "red"]
    assert Counter(train.targets) + Counter(val.targets) == {0: 100, 1: 200}


def test_timm_reads_folders_and_shards(command: Command) -> None:
    create = pytest.importorskip("timm.data").create_dataset
    command.build(FOLDERS | {"format": "folder"})
    with files_left_open():
        found = create("", str(command.out), split="val")
        folders = Counter(found[i][1] for i in range(len(found)))
    assert found.reader.class_to_idx == {"blue": 0, "red": 1}

    command.out = command.folder / "tar"
    command.build(ALL | SPLITS | {"format": "webdataset", "by": "colour"})
    with files_left_open():
        shards = create("wds/tiny", str(command.out), split="val", is_training=False)
        classes = Counter(target for _, target in shards)
    assert classes == {0: folders[1], 1: folders[0]}  # the manifest's order is red, blue
