"""The command that fetches a set: whatever interrupts it, what it leaves is the same."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.formats.registry import SUFFIXES
from tests.conftest import attribute, manifest
from tests.helpers.cut_connections import cutting
from tests.helpers.onnx_files import model, put
from tests.helpers.reload import reload
from tests.helpers.server import MODELS, ROOT, Server, default_sigint, environment, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

SMALL = ["red eyes", "blue eyes", "-n", "100", "--seed", "3"]
LARGE = ["red eyes", "blue eyes", "-n", "400", "--seed", "3", "--verify", "0.9"]


def fetch(server: str, out: Path, *arguments: str, fails: bool = False) -> str:
    """Output of the command, run in this process."""
    words = ["fetch", "--server", server, "--out", str(out), *arguments]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert (done.exit_code != 0) == fails, done.output
    return done.output


def start(server: str, out: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, that a test can end."""
    command = [sys.executable, "-m", "service", "fetch", "--server", server, "--out", str(out)]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def read(folder: Path) -> dict[str, bytes]:
    """Files of a set by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def read_manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The large set, fetched in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    fetch(server.url, out, *LARGE)
    return read(out)


@pytest.mark.parametrize("format_", sorted(SUFFIXES))
def test_files_are_what_the_server_answers_for_their_images(
    server: Server, tmp_path: Path, format_: str
) -> None:
    said = fetch(server.url, tmp_path, *SMALL, "--format", format_, "--per-file", "30")
    assert "100 images of anime-faces version 2, seed 3, in " in said
    files = [f"anime-faces-0000{i}{SUFFIXES[format_]}" for i in range(4)]
    tables = [f"anime-faces-0000{i}.csv" for i in range(4)] if format_ == "npy" else []
    described = {"manifest.json", "README.md", "croissant.json"}
    if format_ == "webdataset":
        described |= {"_info.json", "_wids-train.json"}
    assert set(read(tmp_path)) == {*files, *tables, *described}
    for i, name in enumerate(files):
        body = {"label": ["red eyes", "blue eyes"], "seed": 3, "offset": 30 * i}
        answer = server.client.post(
            "/generate", params={"format": format_}, json=body | {"n": min(30, 100 - 30 * i)}
        )
        assert (tmp_path / name).read_bytes() == answer.content


def test_the_manifest_tells_what_is_there_and_where_it_came_from(
    server: Server, tmp_path: Path
) -> None:
    fetch(server.url, tmp_path, *SMALL, "--verify", "0.95")
    found = read_manifest(tmp_path)
    about = server.client.get("/models/anime-faces/2").json()
    assert found["origin"] == {
        "model": "anime-faces",
        "version": 2,
        "model_sha256": about["sha256"],
        "verifier_sha256": about["verifier_sha256"],
        "latent_recipe": 1,
        "seed": 3,
    }
    assert found["complete"] is True
    assert found["images"] == 100
    assert [row["images"] for row in found["labels"]] == [50, 50]
    body = {"label": ["red eyes", "blue eyes"], "seed": 3, "n": 100, "verify": 0.95}
    answer = server.client.post("/generate", json=body).json()
    assert sum(row["tried"] for row in found["labels"]) == answer["tried"]
    assert [entry["images"] for entry in found["files"]] == [12] * 8 + [4]
    for entry in found["files"]:
        content = (tmp_path / entry["name"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_an_array_has_a_table_beside_it(server: Server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path, *SMALL, "--format", "npy", "--per-file", "100")
    array = np.load(tmp_path / "anime-faces-00000.npy")
    with (tmp_path / "anime-faces-00000.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(array) == len(rows) == 100
    assert [row["eyes"] for row in rows[:3]] == ["red", "blue", "red"]
    image = server.client.get(rows[7]["address"].replace(".png", ".webp")).content
    assert image


def test_so_many_of_each_label(server: Server, tmp_path: Path) -> None:
    counts = ["red eyes", "blue eyes", "-n", "30", "-n", "10", "--seed", "3"]
    how = ["--format", "parquet", "--labels", "names", "--per-file", "40"]
    fetch(server.url, tmp_path, *counts, *how)
    eyes = pq.read_table(tmp_path / "anime-faces-00000.parquet")["eyes"].to_pylist()
    assert (eyes.count("red"), eyes.count("blue")) == (30, 10)


def test_without_labels_all_is_drawn(server: Server, tmp_path: Path) -> None:
    said = fetch(server.url, tmp_path, "-n", "20", "--model", "digits", "--model-version", "1")
    assert "20 images of digits version 1, seed " in said
    assert len(read(tmp_path)) == 15  # ten of two images, three that describe them, two indexes


def test_a_fetch_over_connections_that_are_cut(
    server: Server, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    points = random.Random(2)
    with cutting(server.url, [points.randrange(15_000, 330_000) for _ in range(15)]) as proxy:
        said = fetch(proxy.url, tmp_path, *LARGE)
        assert proxy.cuts == 15
    assert "the connection was cut" in said
    assert read(tmp_path) == undisturbed


def test_a_fetch_that_is_killed_and_started_again(
    server: Server, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    moments = random.Random(3)
    for _ in range(4):
        before = size(tmp_path)
        process = start(server.url, tmp_path, *LARGE)
        # Not before it has come further than the last one.
        while size(tmp_path) <= before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate()
    fetch(server.url, tmp_path, *LARGE)
    assert read(tmp_path) == undisturbed
    assert "400 images" in fetch(server.url, tmp_path, *LARGE)  # and once more does nothing
    assert read(tmp_path) == undisturbed


def size(folder: Path) -> int:
    """Bytes of images."""
    found = 0
    for path in (*folder.glob("*.tar"), *folder.glob("*.part")):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def test_ctrl_c_says_what_is_kept(
    server: Server, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(server.url, tmp_path, *LARGE, preexec_fn=default_sigint)
    wait_until(lambda: bool(list(tmp_path.glob("*.tar"))))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in told
    assert "of 400 images are kept: run the same command to resume" in told
    fetch(server.url, tmp_path, *LARGE)
    assert read(tmp_path) == undisturbed


def test_a_server_that_is_restarted_in_the_middle(
    server: Server, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    (models / "anime-faces").symlink_to(MODELS / "anime-faces")
    with serve("--models", str(models)) as first, cutting(first.url, []) as address:
        process = start(address.url, out, *LARGE)
        wait_until(lambda: bool(list(out.glob("*.tar"))))
        first.process.kill()
        first.process.wait()
        address.target = server.url
        _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "retrying in" in told
    assert read(out) == undisturbed


def test_a_full_disk(server: Server, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    import resource

    def less_than_a_file_has() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))

    process = start(server.url, tmp_path, *LARGE, preexec_fn=less_than_a_file_has)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot write" in told and "File too large" in told
    assert "of 400 images are kept: run the same command to resume" in told
    kept = list(tmp_path.glob("*.part"))
    assert kept
    fetch(server.url, tmp_path, *LARGE)
    assert read(tmp_path) == undisturbed


def test_a_folder_that_nobody_may_write_to(server: Server) -> None:
    told = fetch(server.url, Path("/proc/figment"), *SMALL, fails=True)
    assert "cannot write /proc/figment" in told


def test_a_folder_is_of_one_set(server: Server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path, *SMALL)
    before = read(tmp_path)
    told = fetch(server.url, tmp_path, *SMALL, "--truncation", "0.5", fails=True)
    assert "holds another set (it differs in truncation): choose another folder" in told
    told = fetch(server.url, tmp_path, *SMALL, "--format", "zip", fails=True)
    assert "(it differs in format)" in told
    assert read(tmp_path) == before
    changed = bytearray(before["anime-faces-00003.tar"])
    changed[5000] ^= 1
    (tmp_path / "anime-faces-00003.tar").write_bytes(changed)
    told = fetch(server.url, tmp_path, *SMALL, fails=True)
    assert "anime-faces-00003.tar is missing or has changed" in told


def test_files_of_others_are_left_alone(server: Server, tmp_path: Path) -> None:
    mine = {"notes.txt": b"mine", ".draft.tmp": b"mine", "large.part": b"mine"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    told = fetch(server.url, tmp_path, *SMALL, fails=True)
    assert "has no manifest.json, but other files (large.part)" in told
    assert read(tmp_path) == mine

    (tmp_path / "manifest.json").write_text("[1]")
    told = fetch(server.url, tmp_path, *SMALL, fails=True)
    assert "manifest.json is not a manifest of a set" in told
    (tmp_path / "manifest.json").unlink()

    set_ = tmp_path / "set"
    fetch(server.url, set_, *SMALL)
    (set_ / ".draft.tmp").write_bytes(b"mine")
    (set_ / "large.part").write_bytes(b"mine")
    fetch(server.url, set_, *SMALL)
    assert (set_ / ".draft.tmp").exists() and (set_ / "large.part").exists()


def test_two_fetches_into_one_folder(server: Server, tmp_path: Path) -> None:
    process = start(server.url, tmp_path, *LARGE)
    wait_until(lambda: bool(list(tmp_path.glob("*.part"))))
    assert "another command is writing to" in fetch(server.url, tmp_path, *LARGE, fails=True)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_another_model_of_the_same_name_is_told(tmp_path: Path) -> None:
    colours = attribute("colour", "red", "blue")
    arguments = ["-n", "6", "--seed", "1", "--per-file", "2"]
    out, models = tmp_path / "out", tmp_path / "models"
    put(models, "tiny", 1, model(manifest(colours)))
    with serve("--models", str(models)) as changing:
        fetch(changing.url, out, *arguments)
        manifest_ = read_manifest(out)
        # As if it had been interrupted after its first file.
        for entry in manifest_["files"][1:]:
            (out / entry["name"]).unlink()
        manifest_ |= {"files": manifest_["files"][:1], "images": 2, "next": 2, "complete": False}
        manifest_["labels"][0] |= {"images": 2, "tried": 2}
        (out / "manifest.json").write_text(json.dumps(manifest_))

        put(models, "tiny", 1, model(manifest(colours, latent_size=9)))
        assert reload(changing)["changed"] == ["tiny/1"]
        told = fetch(changing.url, out, *arguments, fails=True)
        assert "the server's model has changed" in told
        assert "2 of 6 images are kept" in told
        put(models, "other", 1, model(manifest(colours, name="other")))
        (models / "tiny" / "1" / "model.onnx").unlink()
        assert reload(changing)["removed"] == ["tiny/1"]
        told = fetch(changing.url, out, *arguments, fails=True)
        assert "the server's models have changed: no model 'tiny'" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["red eys", "-n", "1"], "did you mean 'red eyes'"),
        (["red eyes", "-n", "1", "--model", "nope"], "no model 'nope'"),
        (["red eyes", "-n", "9", "--verify", "0.9999999"], "never saw 'red eyes'"),
        (["red eyes", "-n", "12000000", "--verify", "0.5"], "at most 10,000,000 images"),
        (["red eyes", "-n", "0"], "n: Input should be greater than or equal to 1"),
        (["red eyes", "blue eyes", "-n", "1", "-n", "1", "-n", "1"], "-n is given 3 times"),
        (["red eyes", "-n", "1", "--truncation", "7"], "truncation: "),
        (["red eyes", "-n", "1", "--layout", "folders"], "the model has: hair, eyes"),
        (["red eyes", "-n", "1", "--by", "nose"], "unknown attribute 'nose'"),
        (["red eyes", "-n", "1", "--format", "npy", "--by", "eyes"], "it is for zip, webdataset"),
        (["red eyes", "-n", "1", "--splits", "train:0.9"], "the fractions sum to 0.9"),
        (["red eyes"], "give -n N, or --like"),
    ],
)
def test_mistakes(server: Server, tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in fetch(server.url, tmp_path / "out", *arguments, fails=True)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    told = fetch("http://127.0.0.1:9", tmp_path, *SMALL, "--patience", "0.3", fails=True)
    assert "http://127.0.0.1:9 cannot be reached" in told
    assert "no image for 0.3 s, giving up" in told
