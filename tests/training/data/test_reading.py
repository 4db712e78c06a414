"""Account of what was read, what was left out, and errors that say what to do."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.image_files import (
    as_folder,
    as_zip,
    classes,
    counts,
    picture,
    problems,
    table,
)
from training.data import load


def test_hive_folders_name_the_attribute(tmp_path: Path) -> None:
    dataset = load(str(as_folder(tmp_path, classes("kind=cat", "kind=dog"))))
    assert dataset.attributes[0].name == "kind"
    assert counts(dataset) == {"cat": 2, "dog": 2}


def test_several_tables_in_one_folder_are_an_error(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(4)}
    rows = [f"{n}.png,{'ab'[n % 2]}" for n in range(4)]
    files |= table("file_name,x", *rows) | table("file_name,y", *rows, name="labels.csv")
    path = as_folder(tmp_path, files)
    assert (
        "has several tables: labels.csv, metadata.csv; name one with --table" in problems(path)[0]
    )
    assert load(str(path), table="labels.csv").attributes[0].name == "y"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_by_encoding_and_separator(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = ["file_name,x", *(f"{n}.png,{'äb'[n % 2]}" for n in range(4))]
    content = "\r\n".join(rows).replace(",", separator).encode(encoding)
    files = {f"{n}.png": picture(n) for n in range(4)} | {"metadata.csv": content}
    assert counts(load(str(as_folder(tmp_path, files)))) == {"b": 2, "ä": 2}


def test_encoding_is_named(tmp_path: Path) -> None:
    rows = ["file_name,x", *(f"{n}.png,{'äb'[n % 2]}" for n in range(4))]
    files = {f"{n}.png": picture(n) for n in range(4)}
    path = as_folder(tmp_path, files | {"metadata.csv": "\n".join(rows).encode("cp1252")})
    assert "--encoding" in problems(path)[0]
    assert counts(load(str(path), encoding="cp1252")) == {"b": 2, "ä": 2}


def test_backslashes_part_folders(tmp_path: Path) -> None:
    files = {f"img\\{n}.png": picture(n) for n in range(4)}
    rows = [f"img\\{n}.png,{'ab'[n % 2]}" for n in range(4)]
    assert len(load(str(as_zip(tmp_path, files | table("file_name,x", *rows))))) == 4


def test_images_without_labels_need_the_option(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(4)} | {"0.txt": b"a cat"}
    path = as_folder(tmp_path, files)
    found = problems(path)
    assert "--unconditional" in found[0]
    assert found[1] == "seen, not read as a label: 0.txt (called like an image)"
    assert len(load(str(path), [])) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"\0\0\0\x18ftypheic", "it is HEIC"),
        (b"PK\x03\x04", "it is a zip"),
        (b"whatever", "cannot identify its format; it begins with b'whatever'"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (found,) = problems(as_folder(tmp_path, {"0.png": content}), [])
    assert said in found


def test_nothing_fits_lists_the_layouts_tried(tmp_path: Path) -> None:
    found = problems(as_folder(tmp_path, {"mnist.idx": b"x", "photo.heic": b"\0\0\0\x18ftypheic"}))
    assert "is no data that can be read (there are: mnist.idx, photo.heic)" in found[0]
    assert "not IDX: no *images-idx3-ubyte; mnist.idx is nearly it" in found
    assert any(line.startswith("not class folders: ") for line in found)


@pytest.mark.parametrize(
    "name",
    [
        *("train-images.idx3-ubyte", "MNIST/raw/train-images-idx3-ubyte"),
        *("emnist-letters-train-images-idx3-ubyte", "TRAIN-IMAGES-IDX3-UBYTE"),
    ],
)
def test_names_of_idx_files(tmp_path: Path, name: str) -> None:
    images = b"\0\0\x08\x03" + struct.pack(">3I", 4, 16, 16) + bytes(4 * 256)
    labels = b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes([1, 2, 1, 2])
    other = name.replace("images", "labels").replace("IMAGES", "LABELS")
    other = other.replace("idx3", "idx1").replace("IDX3", "IDX1")
    files = {name: images, other: labels}
    assert counts(load(str(as_folder(tmp_path, files)))) == {"1": 2, "2": 2}


def test_several_idx_sets_are_an_error(tmp_path: Path) -> None:
    images = b"\0\0\x08\x03" + struct.pack(">3I", 4, 16, 16) + bytes(4 * 256)
    labels = b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes([1, 2, 1, 2])
    files = {}
    for name in ("letters", "digits"):
        files[f"emnist-{name}-train-images-idx3-ubyte"] = images
        files[f"emnist-{name}-train-labels-idx1-ubyte"] = labels
    path = as_folder(tmp_path, files)
    assert "has several sets: " in problems(path)[0]
    assert len(load(str(path), table="letters")) == 4


def test_idx_files_that_windows_unpacked(tmp_path: Path) -> None:
    images = b"\0\0\x08\x03" + struct.pack(">3I", 4, 16, 16) + bytes(4 * 256)
    labels = b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes([1, 2, 1, 2])
    files = {
        f"{name}/{name}": images for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    }
    files |= {
        f"{name}/{name}": labels for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
    }
    files["train-images-idx3-ubyte/train-images-idx3-ubyte.gz"] = b"x"
    dataset = load(str(as_folder(tmp_path, files)))
    assert counts(dataset) == {"1": 2, "2": 2}
    assert dataset.reading is not None
    assert {why: files.count for why, files in dataset.reading.left_out.items()} == {
        "IDX file, test": 2,
        "gzipped copy of an IDX file that is read": 1,
    }


def test_celeba_of_kaggle(tmp_path: Path) -> None:
    files = {f"img_align_celeba/00000{n}.jpg": picture(n, form="JPEG") for n in range(4)}
    rows = [f"00000{n}.jpg,{(-1, 1)[n % 2]}" for n in range(4)]
    files |= table("image_id,Smiling", *rows, name="list_attr_celeba.csv")
    parts = [f"00000{n}.jpg,{0 if n < 4 else 2}" for n in range(4)]
    files |= table("image_id,partition", *parts, name="list_eval_partition.csv")
    assert counts(load(str(as_folder(tmp_path, files)))) == {"no": 2, "yes": 2}


def test_metadata_parquet_and_jsonl(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(4)}
    lines = [json.dumps({"file_name": f"{n}.png", "x": "ab"[n % 2], "box": [1]}) for n in range(4)]
    path = as_folder(tmp_path / "jsonl", files | table(*lines, name="metadata.jsonl"))
    dataset = load(str(path))
    assert counts(dataset) == {"a": 2, "b": 2}
    assert dataset.reading is not None
    assert dataset.reading.unread == {"box": "a list or an object"}
    path = as_folder(tmp_path / "parquet", files)
    names = [f"{n}.png" for n in range(4)]
    pq.write_table(pa.table({"file_name": names, "x": list("abab")}), path / "metadata.parquet")
    assert counts(load(str(path))) == {"a": 2, "b": 2}


def test_twelve_bits_in_sixteen_are_noted(tmp_path: Path) -> None:
    from PIL import Image

    from tests.helpers.image_files import encoded

    dark = encoded(Image.fromarray(np.full((16, 16), 4000, dtype=np.uint16)))
    dark_colour = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", 16, 16, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress((b"\0" + struct.pack(">3H", 4000, 2000, 0) * 16) * 16))
        + chunk(b"IEND", b"")
    )
    for name, content in {"grey": dark, "colour": dark_colour}.items():
        reading = load(str(as_folder(tmp_path / name, {"0.png": content})), []).reading
        assert reading is not None
        assert any(what.startswith("16-bit images") for what in reading.notes)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Chunk of a PNG file."""
    whole = kind + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def test_links_are_followed_once(tmp_path: Path) -> None:
    path = as_folder(tmp_path, classes("cat"))
    elsewhere = as_folder(tmp_path / "elsewhere", classes("dog"))
    (path / "dog").symlink_to(elsewhere / "dog")
    (path / "cat" / "loop").symlink_to(path)
    (path / "cat" / "gone.png").symlink_to(tmp_path / "nothing")
    dataset = load(str(path))
    assert counts(dataset) == {"cat": 2, "dog": 2}
    assert dataset.reading is not None
    left_out = {reason: files.examples for reason, files in dataset.reading.left_out.items()}
    assert left_out == {
        "link to nothing": ["cat/gone.png"],
        "link to a folder that was read already": ["cat/loop"],
    }
