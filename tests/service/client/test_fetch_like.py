"""``fetch --like``: a set that fills the classes of the user's own folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main
from tests.helpers.server import Server

pytestmark = pytest.mark.server

HAVE = {"7": 6, "3": 2, "1": 0}


@pytest.fixture
def like(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for name, count in HAVE.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index}.png").touch()
    return folder


def fetch(server: Server, *words: str, model: str = "digits") -> tuple[int, str]:
    done = CliRunner().invoke(main, ["fetch", "--server", server.url, "--model", model, *words])
    return done.exit_code, done.output


@pytest.mark.parametrize(("to", "made"), [("5", {"1": 5, "3": 3}), ("largest", {"1": 6, "3": 4})])
def test_only_what_each_class_lacks_is_fetched(
    server: Server, like: Path, tmp_path: Path, to: str, made: dict[str, int]
) -> None:
    out = tmp_path / "set"
    words = ("--like", str(like), "--to", to, "--seed", "3", "--out", str(out))
    status, output = fetch(server, *words)
    assert status == 0, output
    assert output.splitlines()[0].split() == ["class", "have", "make", "total"]
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()[1:4]}
    for label, have in HAVE.items():
        make = made.get(label, 0)
        assert rows[label] == [str(have), str(make), str(have + make)]
    manifest = json.loads((out / "manifest.json").read_text())
    assert {each["label"]: each["images"] for each in manifest["labels"]} == made
    assert fetch(server, *words)[0] == 0  # the same command resumes, and finds it whole


def test_nothing_is_fetched_if_nothing_is_missing(
    server: Server, like: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    (like / "1").rmdir()
    status, output = fetch(server, "--like", str(like), "--to", "2", "--out", str(out))
    assert status == 0 and "no class lacks images" in output
    assert not out.exists()


def test_default_is_the_conditional_model(server: Server, tmp_path: Path) -> None:
    folder, out = tmp_path / "mine", tmp_path / "set"
    (folder / "orange").mkdir(parents=True)
    words = ["--like", str(folder), "--to", "2", "--by", "eyes", "--out", str(out)]
    done = CliRunner().invoke(main, ["fetch", "--server", server.url, *words])
    assert done.exit_code == 0, done.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["origin"]["model"], manifest["labels"][0]["label"]) == (
        "anime-faces",
        "orange eyes",
    )


@pytest.mark.parametrize("format_", ["parquet", "zip", "webdataset"])
def test_attribute_of_the_classes_fits_every_format(
    server: Server, tmp_path: Path, format_: str
) -> None:
    (tmp_path / "mine" / "red").mkdir(parents=True)
    words = ("--like", str(tmp_path / "mine"), "--to", "2", "--by", "eyes", "--format", format_)
    status, output = fetch(server, *words, "--out", str(tmp_path / "set"), model="anime-faces")
    assert status == 0, output


@pytest.mark.parametrize("to", ["3", "largest"])
def test_folder_without_images_is_an_error(server: Server, tmp_path: Path, to: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "metadata.csv").write_text("file_name,digit\n")
    status, output = fetch(server, "--like", str(folder), "--to", to, "--out", str(tmp_path / "x"))
    assert status == 1 and "no images that can be counted" in output


def test_bad_options(server: Server, like: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "set"))
    asked = ("--like", str(like))
    for words, said in [
        ((*asked, *out), "belong together"),
        (("--to", "5", *out), "belong together"),
        ((*asked, "--to", "0", *out), "neither a number from 1 on nor 'largest'"),
        ((*asked, "--to", "most", *out), "neither a number from 1 on nor 'largest'"),
        ((*asked, "--to", "5", "-n", "3", *out), "omit LABELS and -n"),
        ((*asked, "--to", "5", "7", *out), "omit LABELS and -n"),
        (("--like", str(like / "nowhere"), "--to", "5", *out), "does not exist"),
        (out, "-n N, or --like FOLDER"),
    ]:
        status, output = fetch(server, *words)
        assert status == 2 and said in output, output
    status, output = fetch(server, *asked, "--to", "5", "--out", str(like / "new"))
    assert status == 1 and "would count as its class" in output
    (like / "seven").mkdir()
    status, output = fetch(server, *asked, "--to", "5", *out)
    assert status == 1 and "seven: unknown label 'seven'" in output
    status, output = fetch(server, *asked, "--to", "5", *out, model="anime-faces-free")
    assert status == 1 and "unconditional" in output
    assert not (tmp_path / "set").exists()
