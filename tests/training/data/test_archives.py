"""Zips and tars as programs write them, and files that systems put beside data."""

from __future__ import annotations

import io
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest

from tests.helpers.image_files import as_folder, as_zip, below, classes, counts, picture, problems
from training.data import load

CATS = {"cat": 2, "dog": 2}


def as_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz"])
def test_tars_by_compression(tmp_path: Path, ending: str) -> None:
    kind = {"r": "", "2": "bz2", "z": "xz" if "x" in ending else "gz"}[ending[-1]]
    files = dict(reversed(classes("cat", "dog").items()))
    path = as_tar(tmp_path / f"a.{ending}", files, f"w:{kind}")
    assert counts(load(str(path))) == CATS
    assert counts(load(str(tmp_path))) == CATS


@pytest.mark.parametrize("start", ["./", "/", ".//data/", "../"])
def test_names_are_below_the_root(tmp_path: Path, start: str) -> None:
    files = {f"{start}{name}": content for name, content in classes("cat", "dog").items()}
    assert counts(load(str(as_zip(tmp_path, files)))) == CATS
    assert counts(load(str(as_tar(tmp_path / "a.tar", files)))) == CATS


@pytest.mark.parametrize("second", ["cat/é.png", "./cat/é.png", "cat/e\u0301.png"])
def test_two_files_of_one_name_are_an_error(tmp_path: Path, second: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (classes("cat", "dog") | {"cat/é.png": picture()}).items():
            archive.writestr(name, content)
        if second == "cat/é.png":
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(second, picture(1))
        else:
            archive.writestr(second, picture(1))
    assert problems(path) == ["holds two files called 'cat/é.png'"]


def test_names_that_are_equal_in_nfc_are_one_class(tmp_path: Path) -> None:
    files = classes("café", "thé") | {unicodedata.normalize("NFD", "café/9.png"): picture()}
    assert counts(load(str(as_folder(tmp_path, files)))) == {"café": 3, "thé": 2}


def test_links_in_a_tar_are_followed(tmp_path: Path) -> None:
    path = as_tar(tmp_path / "a.tar", classes("cat", "dog"))
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("dog/hard.png", tarfile.LNKTYPE, "cat/0.png"),
            ("dog/soft.png", tarfile.SYMTYPE, "../cat/1.png"),
            ("dog/gone.png", tarfile.SYMTYPE, "nothing.png"),
            ("bird", tarfile.SYMTYPE, "cat"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    dataset = load(str(path))
    assert counts(dataset) == {"cat": 2, "dog": 4}
    assert dataset.reading is not None
    assert {why: files.examples for why, files in dataset.reading.left_out.items()} == {
        "link to nothing": ["dog/gone.png"],
        "link to a folder that was read already": ["bird"],
    }


def test_links_in_a_zip_are_followed(tmp_path: Path) -> None:
    path = as_zip(tmp_path, classes("cat", "dog"))
    with zipfile.ZipFile(path, "a") as archive:
        for name, target in (("dog/9.png", "../cat/1.png"), ("dog/gone.png", "nothing.png")):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    dataset = load(str(path))
    assert counts(dataset) == {"cat": 2, "dog": 3}
    assert dataset.reading is not None
    assert dataset.reading.left_out["link to nothing"].examples == ["dog/gone.png"]


@pytest.mark.parametrize("packed", [False, True])
def test_empty_class_folder_is_noted(tmp_path: Path, packed: bool) -> None:
    files = classes("cat", "dog") | {"fish/Thumbs.db": b""}
    if packed:
        path = as_zip(tmp_path, files | {"bird/": b""})
    else:
        path = as_folder(tmp_path, files)
        (path / "bird").mkdir()
    reading = load(str(path)).reading
    assert reading is not None
    assert reading.notes["folders without files that are read"].examples == (
        ["bird"] if packed else ["bird", "fish"]
    )


def test_encrypted_zip_is_called_so(tmp_path: Path) -> None:
    path = as_zip(tmp_path, classes("cat", "dog"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert problems(path) == ["is encrypted: unpack it with its password"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"", "the file is empty"),
    ],
)
def test_other_content_of_an_archive_is_named(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in problems(tmp_path / name)[0]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_tar(tmp_path: Path, mode: str) -> None:
    path = as_tar(tmp_path / "a.tar", classes("cat", "dog", count=9), mode)
    path.write_bytes(path.read_bytes()[:600])
    assert problems(path)[0].startswith("is not a readable tar file: ")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data.npz", b"PK\3\4", "save the images as NAME.npy"),
        ("train/data-00000-of-00001.arrow", b"\xff\xff", "save it with Dataset.to_parquet"),
        ("data_batch_1", b"\x80\4", "it is a pickle"),
        ("data.7z", b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it"),
        ("train_32x32.mat", b"MATLAB 5.0", "it is a MATLAB file"),
        ("data.h5", b"\x89HDF", "it is an HDF5 file"),
    ],
)
def test_data_that_is_not_read_is_named(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    found = problems(as_folder(tmp_path, {name: content}))
    assert found[1].startswith(f"{name}: ")
    assert said in found[1]


def test_archive_in_an_archive_is_named(tmp_path: Path) -> None:
    inner = as_zip(tmp_path, classes("cat", "dog")).read_bytes()
    found = problems(as_zip(tmp_path, {"train.zip": inner}))
    assert found[1] == "train.zip: a zip in an archive: unpack the outer one"


def test_files_of_systems_are_left_out(tmp_path: Path) -> None:
    junk = {
        "$RECYCLE.BIN/1.png": "deleted file or snapshot that the system keeps",
        "#snapshot/cat/0.png": "deleted file or snapshot that the system keeps",
        "lost+found/0.png": "deleted file or snapshot that the system keeps",
        "dog/.ipynb_checkpoints/0.png": "hidden",
        "cat/Picasa.ini": "thumbnail of a NAS or a viewer",
        "cat/raw.dng": "image in a format that is not read, such as HEIC or camera raw",
        "cat/icon.ico": "image in a format that is not read, such as HEIC or camera raw",
    }
    files = classes("cat", "dog") | {name: picture(form="TIFF") for name in junk}
    dataset = load(str(as_folder(tmp_path, below("pets", files))))
    assert counts(dataset) == CATS
    assert dataset.reading is not None
    assert {
        name.removeprefix("pets/"): why
        for why, files in dataset.reading.left_out.items()
        for name in files.examples
    } == junk
