"""Layouts of sets: splits, classes, names of folders, and fields that do not fit."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.core.set_request import SetRequest, read_splits
from service.errors import InvalidRequest
from service.formats.layout import MAX_NAME_BYTES, Layout
from service.formats.records import ImageRecord
from service.formats.registry import check_fields, layout_of, open_writer

VALUES = {"hair": ["black", "red"], "eyes": ["blue", "green", "red"]}
SPLITS = {"train": 0.7, "val": 0.2, "test": 0.1}


def layout(values: dict[str, list[str]] = VALUES, **fields: Any) -> Layout:
    return Layout.of(SetRequest(**fields), values)


def record(index: int, seed: int = 3, **labels: str) -> ImageRecord:
    url = f"/images/m/1/{seed}/{index}.png"
    return ImageRecord("m", 1, seed, index, labels or None, url, b"png")


def records(count: int) -> list[ImageRecord]:
    return [
        record(i, hair=VALUES["hair"][i % 2], eyes=VALUES["eyes"][i // 2 % 3]) for i in range(count)
    ]


def packed(format_: str, of: Layout, items: list[ImageRecord]) -> bytes:
    writer = open_writer(format_, of, (len(items), 1, 1, 1))
    content = writer.add(items) + b"".join(writer.end())
    writer.close()
    return content


def test_splits_have_their_shares() -> None:
    found = Counter(layout(splits=SPLITS).split(each.url) for each in records(10_000))
    for name, share in SPLITS.items():
        assert abs(found[name] - 10_000 * share) < 200


def test_split_follows_from_the_address_alone() -> None:
    """Known values: a later release must not move an image from one split to another."""
    of = layout(splits=SPLITS)
    assert [of.split(record(i).url) for i in range(5)] == ["test", "train", "val", "train", "train"]
    other = layout(splits=SPLITS, layout="folders", by=["eyes", "hair"]).of_split("val")
    assert [of.split(each.url) for each in records(50)] == [
        other.split(each.url) for each in records(50)
    ]


def test_all_in_one_split() -> None:
    assert {layout(splits={"val": 1}).split(each.url) for each in records(100)} == {"val"}


@pytest.mark.parametrize("by", ["eyes", ["eyes"], ["hair", "eyes"], ["eyes", "hair"]])
def test_zip_of_folders(by: str | list[str]) -> None:
    content = packed("zip", layout(layout="folders", by=by, splits=SPLITS), records(60))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        paths = [PurePosixPath(name) for name in archive.namelist()]
    names = [by] if isinstance(by, str) else by
    for path, each in zip(paths, records(60), strict=True):
        assert each.labels is not None
        split, folder, file = path.parts
        assert split == layout(splits=SPLITS).split(each.url)
        assert folder == "__".join(each.labels[name] for name in names)
        assert file == each.file_name


def test_zip_of_tables_has_one_for_each_split() -> None:
    items = records(60)
    content = packed("zip", layout(splits=SPLITS), items)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        tables = {name: archive.read(f"{name}/metadata.csv").decode() for name in SPLITS}
        assert len(archive.namelist()) == 63
        for name, table in tables.items():
            head, *rows = table.splitlines()
            assert head == "file_name,hair,eyes,address"
            for row in rows:
                assert f"{name}/{row.partition(',')[0]}" in archive.namelist()
    assert sum(table.count("\n") for table in tables.values()) == 63


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (None, {"hair.cls": b"1", "eyes.cls": b"2"}),
        ("eyes", {"cls": b"2", "hair.cls": b"1", "eyes.cls": b"2"}),
        (["hair", "eyes"], {"cls": b"5", "hair.cls": b"1", "eyes.cls": b"2"}),
        (["eyes", "hair"], {"cls": b"5", "hair.cls": b"1", "eyes.cls": b"2"}),
    ],
)
def test_classes_of_webdataset(by: Any, expected: dict[str, bytes]) -> None:
    content = packed("webdataset", layout(by=by), [record(7, hair="red", eyes="red")])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        key = "m-1-3-00000007"
        assert archive.getnames()[:2] == [f"{key}.png", f"{key}.json"]
        classes = {}
        for name in archive.getnames()[2:]:
            file = archive.extractfile(name)
            assert file is not None
            classes[name.removeprefix(f"{key}.")] = file.read()
    assert classes == expected


def test_webdataset_of_one_attribute_and_of_none() -> None:
    one = layout({"digit": ["0", "1"]})
    assert one.class_files(record(0, digit="1")) == [(".cls", b"1")]
    assert layout({}).class_files(record(0)) == []


def test_header_of_a_member_is_what_tarfile_writes() -> None:
    for url in ("/a", "/é"):
        items = [
            ImageRecord(model, 1, 3, 0, {"é!": "red"}, url, b"png") for model in ("m", "m" * 90)
        ]
        content = packed("webdataset", layout({"é!": ["red"]}), items)
        rewritten = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(content)) as archive,
            tarfile.open(fileobj=rewritten, mode="w", format=tarfile.PAX_FORMAT) as copy,
        ):
            for member in archive.getmembers():
                info = tarfile.TarInfo(member.name)
                info.size = member.size
                copy.addfile(info, archive.extractfile(member))
        assert rewritten.getvalue().startswith(content)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a/b", "a\\b", "a:b"], ["a-b", "a-b-", "a-b--"]),
        (["..", ".", ".hidden", "dot."], ["--", "-", "-hidden", "dot-"]),
        (["CON", "nul.txt", "Lpt1"], ["-CON", "-nul.txt", "-Lpt1"]),
        (["a__b", "_a", "a_", "not_a"], ["a-b", "-a", "a-", "not_a"]),
        (["Ankle boot", "T-shirt & top", "été"], ["Ankle boot", "T-shirt & top", "été"]),
        (["a\x00b", "a\nb", "a\u202eb"], ["a-b", "a-b-", "a-b--"]),
    ],
)
def test_classes_are_safe_names_of_folders(values: list[str], expected: list[str]) -> None:
    of = layout({"kind": values}, layout="folders")
    assert [of.class_name(record(0, kind=value)) for value in values] == expected


def test_long_classes_differ_and_fit() -> None:
    values = ["é" * 199 + end for end in "ab"]
    of = layout({"kind": values, "other": ["x", "y"]}, layout="folders", by=["kind", "other"])
    names = {
        of.class_name(record(0, kind=kind, other=other)) for kind in values for other in ("x", "y")
    }
    assert len(names) == 4
    assert max(len(name.encode()) for name in names) <= MAX_NAME_BYTES


def test_parquet_has_ids_or_names() -> None:
    items = records(6)
    ids = pq.read_table(io.BytesIO(packed("parquet", layout(), items)))
    names = pq.read_table(io.BytesIO(packed("parquet", layout(labels="names"), items)))
    assert names["eyes"].to_pylist() == ["blue", "blue", "green", "green", "red", "red"]
    assert ids["eyes"].to_pylist() == [0, 0, 1, 1, 2, 2]
    split = pq.read_table(io.BytesIO(packed("parquet", layout(splits=SPLITS), items)))
    assert set(split["split"].to_pylist()) <= {*SPLITS}


@pytest.mark.parametrize(
    ("values", "fields", "words"),
    [
        (VALUES, {"layout": "folders"}, "the model has: hair, eyes"),
        (VALUES, {"by": "nose"}, "unknown attribute 'nose'; the model has: hair, eyes"),
        (VALUES, {"by": ["eyes", "nose"]}, "'nose'"),
        ({}, {"layout": "folders"}, "the model is unconditional"),
        ({}, {"by": "eyes"}, "the model is unconditional"),
    ],
)
def test_fields_that_do_not_fit_the_model(
    values: dict[str, list[str]], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        layout(values, **fields)
    assert words in str(error.value)
    assert error.value.problem()["attributes"] == [*values]


@pytest.mark.parametrize(
    ("format_", "fields", "words"),
    [
        ("json", {"layout": "folders"}, "it is for zip"),
        ("parquet", {"layout": "folders", "by": "eyes"}, "it is for zip"),
        ("parquet", {"by": "eyes"}, "it is for zip, webdataset"),
        ("zip", {"by": "eyes"}, "ask for the layout 'folders'"),
        ("zip", {"labels": "names"}, "it is for parquet"),
        ("npy", {"splits": SPLITS}, "it is for zip, webdataset, parquet"),
        ("png", {"splits": SPLITS}, "splits: means nothing in the format png"),
    ],
)
def test_fields_that_mean_nothing_in_a_format(
    format_: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        layout_of(SetRequest(**fields), format_, VALUES)


def test_defaults_fit_every_format() -> None:
    for format_ in ("json", "png", "npy", "zip", "webdataset", "parquet"):
        check_fields(SetRequest(layout="table", labels="ids", by=None, splits=None), format_)


@pytest.mark.parametrize(
    "splits",
    [
        *({}, {"train": 0.9}, {"train": 0.9, "val": 0.2}, {"train": 1.1, "val": -0.1}),
        *({"train": 1, "val": 0}, {"Train": 1}, {"": 1}, {"a/b": 1}, {"..": 1}, {"x" * 33: 1}),
        *({"train": float("nan")}, {"train": "1"}, {"train": True}, ["train"], 0.9),
        {f"s{i}": 1 / 9 for i in range(9)},
    ],
)
def test_splits_that_are_none(splits: Any) -> None:
    with pytest.raises((ValueError, InvalidRequest), match="fractions above 0 that sum to 1"):
        SetRequest(splits=splits).check_fields_agree()


@pytest.mark.parametrize("by", [[], "x" * 201, ["eyes", "eyes"], 3, [3], {"eyes": "red"}])
def test_by_that_is_none(by: Any) -> None:
    with pytest.raises(ValueError, match="attribute"):
        SetRequest(by=by)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:0.9,val:0.1", {"train": 0.9, "val": 0.1}),
        ("train:0.9, val:1e-1", {"train": 0.9, "val": 0.1}),
        ('{"train": 0.9, "val": 0.1}', {"train": 0.9, "val": 0.1}),
        ("train", "train"),
        ("train:x", "train:x"),
        ("{" + '"a":[' * 100_000, "{" + '"a":[' * 100_000),
    ],
)
def test_splits_in_a_query(text: str, expected: Any) -> None:
    assert read_splits(text) == expected
