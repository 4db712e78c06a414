"""Folders, URLs and object stores as destinations."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from service.core.redact import without_passwords
from service.datasets.object_storage import open_storage
from service.datasets.storage import LocalStorage
from tests.helpers.make_dataset import LARGE, SMALL, Command, read


@pytest.mark.slow
def test_a_store_behind_a_url(
    command: Command, bucket: Path, undisturbed: dict[str, bytes]
) -> None:
    url = "bucket://team/sets/colours"
    command.out = bucket / "team" / "sets" / "colours"
    process = command.start(LARGE, "--workers", "2", out=url)
    command.wait(4, process)
    process.kill()
    process.communicate()
    command.run(LARGE, out=url)
    assert read(command.out) == undisturbed
    (command.out / "tiny-00001.tar").write_bytes(b"too short")
    assert "tiny-00001.tar is missing or has changed" in command.run(LARGE, out=url)
    assert read(command.out) == undisturbed
    told = command.run(LARGE | {"seed": 4}, out=url, fails=True)
    assert f"{url} holds another set (it differs in seed)" in told
    command.variables["BUCKET_REFUSES"] = "yes"
    told = command.run(LARGE, out="bucket://other", fails=True)
    assert "cannot write bucket://other/manifest.json: Access Denied" in told


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_url_of_a_folder_is_that_folder(tmp_path: Path, protocol: str) -> None:
    """Which has a lock, unlike an object store."""
    assert open_storage(f"{protocol}://{tmp_path}") == LocalStorage(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://user:hunter2@host/set", "ftp://user:***@host/set"),
        ("cannot write ftp://user:p@ss:w@host/a@b: no", "cannot write ftp://user:***@host/a@b: no"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("abfs://container@account/set", "abfs://container@account/set"),
        ("http://host:80/a:b@c", "http://host:80/a:b@c"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_the_password_of_a_store_is_not_shown(command: Command, bucket: Path) -> None:
    url = "bucket://user:hunter2@team/set"
    assert "in bucket://user:***@team/set" in command.run(SMALL, out=url)
    told = command.run(SMALL | {"seed": 4}, out=url, fails=True)
    assert "bucket://user:***@team/set holds another set" in told
    command.variables["BUCKET_REFUSES"] = "yes"
    told = command.run(SMALL, out=f"{url}2", fails=True)
    assert "Access Denied to bucket://user:***@" in told and "hunter2" not in told


def test_files_that_went_elsewhere(command: Command, bucket: Path) -> None:
    """As on machines that do not see the same place: the manifest names none of them."""
    command.out = bucket / "set"
    command.variables["BUCKET_LOSES"] = "tiny-0000[135].tar"
    told = command.run(SMALL, out="bucket://set", fails=True)
    assert "tiny-00001.tar and 2 other files were built, but not found in bucket://set" in told
    kept = json.loads((command.out / "manifest.json").read_text())
    assert [file["name"] for file in kept["files"]] == [path.name for path in command.made()]
    assert len(kept["files"]) == 6 and not kept["complete"]
    del command.variables["BUCKET_LOSES"]
    command.run(SMALL, out="bucket://set")
    assert len(command.made()) == 9


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://bucket/set", "s3:// needs a package that is not installed: Install s3fs"),
        ("s3:/bucket/set", "s3:/bucket/set is not a URL"),
        ("memory://set", "memory:// is private to one process"),
        ("nope://x", "nope://x: Protocol not known: nope"),
        ("/proc/figment", "cannot write /proc/figment: "),
    ],
)
def test_places_that_cannot_be_written_to(command: Command, out: str, said: str) -> None:
    if out.startswith("s3") and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    assert said in command.refuse(SMALL, out=out)
