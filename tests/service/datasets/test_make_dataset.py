"""The command that makes sets without a server: whatever is killed, what it leaves is the same."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import psutil
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from service.core.manifest import Attribute
from service.core.redact import without_passwords
from service.datasets import local_executor
from service.datasets.build import open_build
from service.datasets.plan_file import read_plan
from service.datasets.shard_builder import BuildSpec, OnProgress, ShardResult, ShardTask
from service.datasets.shards import LabelledIndices, Shards
from service.datasets.storage import LocalStorage
from service.errors import DatasetError
from service.formats.registry import SUFFIXES
from service.models.sandbox import ModelSandbox
from tests.conftest import attribute, manifest
from tests.helpers.onnx_files import model, put
from tests.helpers.server import MODELS, ROOT, Server, default_sigint, environment, serve

SMALL: dict[str, Any] = {"model": "tiny", "n": 100, "seed": 3, "label": ["red", "blue"]}
LARGE = SMALL | {"n": [9000, 3000], "offset": 5, "images_per_file": 1000}
COLOURS = attribute("colour", "red", "blue")
SIZES = Attribute(name="size", values=("small", "large"), frequencies=(0.9, 0.1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    put(folder, "tiny", 1, model(manifest(COLOURS, latent_size=4)))
    put(folder, "tiny", 2, model(manifest(COLOURS, SIZES)))
    put(folder, "free", 1, model(manifest(name="free")))
    return folder


class Command:
    """``make-dataset`` with a plan, into a folder or URL of its own."""

    def __init__(self, models: Path, folder: Path) -> None:
        self.models = models
        self.folder = folder
        self.out = folder / "out"
        self.variables: dict[str, str] = {}

    def start(
        self, plan: dict[str, Any], *arguments: str, out: str = "", **options: Any
    ) -> subprocess.Popen[str]:
        path = self.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        command = [sys.executable, "-m", "service", "make-dataset", str(path)]
        return subprocess.Popen(
            [*command, "--out", out or str(self.out), "--models", str(self.models), *arguments],
            cwd=ROOT,
            env=environment() | self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(
        self, plan: dict[str, Any], *arguments: str, fails: bool = False, **options: Any
    ) -> str:
        """What it says."""
        process = self.start(plan, *arguments, **options)
        said, told = process.communicate(timeout=120)
        assert (process.returncode != 0) == fails, said + told
        assert "Traceback" not in told
        return said + told

    def wait(self, files: int, process: subprocess.Popen[str]) -> None:
        """Until so many files are there, or it has ended."""
        while len(self.made()) < files and process.poll() is None:
            time.sleep(0.01)

    def made(self) -> list[Path]:
        """Files that are there."""
        return sorted(self.out.glob("tiny-*"))


@pytest.fixture
def command(models: Path, tmp_path: Path) -> Command:
    return Command(models, tmp_path)


def read(folder: Path) -> dict[str, bytes]:
    """All files of a set; those that were not finished would be among them."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The large set, made in one go."""
    command = Command(models, tmp_path_factory.mktemp("undisturbed"))
    command.run(LARGE, "--workers", "1")
    return read(command.out)


def load(shards: Iterable[str]) -> list[dict[str, Any]]:
    """What a loader makes of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves files open
        samples = list(webdataset.WebDataset(list(shards), shardshuffle=False).decode("rgb8"))
        gc.collect()
    return samples


def workers(driver: int) -> list[psutil.Process]:
    """The processes that make files."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child
            for child in psutil.Process(driver).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
    return []


# The same images as the server.


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with serve("--models", str(models), "--max-wait", "30") as running:
        yield running


EVEN = SMALL | {"offset": 3}
UNEVEN = SMALL | {"n": [70, 0, 8], "label": ["red", "blue", "blue, large"], "truncation": 0.7}
FREE = {"model": "free", "n": 20, "seed": 3}


@pytest.mark.parametrize(
    "plan",
    [
        EVEN | {"format": "webdataset"},
        FREE | {"format": "parquet"},
        *(UNEVEN | {"format": format_, "images_per_file": 9} for format_ in sorted(SUFFIXES)),
    ],
    ids=str,
)
def test_files_are_those_of_a_fetch(server: Server, command: Command, plan: dict[str, Any]) -> None:
    command.run(plan)
    fetch = [sys.executable, "-m", "service", "fetch", *plan.get("label", [])]
    for count in plan["n"] if isinstance(plan["n"], list) else [plan["n"]]:
        fetch += ["-n", str(count)]
    for name in ("model", "seed", "offset", "truncation", "format"):
        fetch += [f"--{name}", str(plan[name])] if name in plan else []
    fetch += ["--per-file", "9"] if "images_per_file" in plan else []
    out = command.folder / "fetched"
    fetch += ["--out", str(out), "--server", server.url]
    subprocess.run(fetch, cwd=ROOT, env=environment(), check=True, capture_output=True)
    found, expected = read(command.out), read(out)
    described = json.loads(found.pop("manifest.json"))
    assert described | {"made_by": "fetch"} == json.loads(expected.pop("manifest.json"))
    assert described["complete"] and len(described["files"]) >= 8
    assert found == expected


@given(
    st.integers(0, 2**40),
    st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    st.integers(1, 20),
)
def test_images_of_a_file_are_found_without_those_before(
    offset: int, counts: list[int], per_file: int
) -> None:
    missing, taken = list(counts), []
    for index in itertools.count(offset):
        if missing[index % len(counts)]:
            missing[index % len(counts)] -= 1
            taken.append(index)
        if not any(missing):
            break
    shards = Shards(LabelledIndices(offset, counts), per_file)
    found = [shards.indices(number) for number in range(len(shards))]
    assert found == [taken[i : i + per_file] for i in range(0, len(taken), per_file)]
    assert [shards.end(number) for number in range(len(shards))] == [each[-1] + 1 for each in found]
    assert [shards.size(number) for number in range(len(shards))] == [len(each) for each in found]


@pytest.mark.parametrize("counts", [[10**8], [7 * 10**7, 0, 1, 3 * 10**7 - 1], [10**5] * 1000])
def test_the_last_of_a_hundred_million_images(counts: list[int]) -> None:
    offset, entries, per_file = 2**52, len(counts), 10_000
    shards = Shards(LabelledIndices(offset, counts), per_file)
    assert len(shards) == 10_000
    for number in (0, 1, 5000, 9999):
        first, *_ = indices = shards.indices(number)
        assert len(indices) == per_file
        assert shards.end(number) == indices[-1] + 1
        # All before it are taken, but for those of an entry that has its share.
        before = 0
        for entry, count in enumerate(counts):
            place = offset + (entry - offset) % entries
            before += min(count, len(range(place, first, entries)))
        assert before == number * per_file


def test_loaders_read_them(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command.run(SMALL)
    shards = [str(path) for path in command.made()]
    assert len(shards) == 9
    samples = load(shards)
    assert [sample["json"]["labels"]["colour"] for sample in samples] == ["red", "blue"] * 50
    assert samples[0]["png"].shape == (16, 16, 3)

    command.out = command.folder / "parquet"
    command.run(SMALL | {"format": "parquet"})
    tables = [str(path) for path in command.made()]
    assert sum(pq.read_table(path).num_rows for path in tables) == 100
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", command.folder / "cache")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("parquet", data_files=tables, split="train")
    assert loaded.num_rows == 100
    assert loaded[7]["image"].size == (16, 16) and loaded[7]["colour"] == "blue"


def test_what_a_plan_leaves_open(command: Command) -> None:
    """The highest version, a drawn seed, drawn labels: all stand in the manifest, and stay."""
    said = command.run({"model": "tiny", "n": 3000})
    found = json.loads(read(command.out)["manifest.json"])
    assert f"3,000 images of tiny version 2, seed {found['origin']['seed']}, in " in said
    assert found["labels"] == [{"label": None, "images": 3000, "tried": 3000}]
    before = read(command.out)
    # As if it had been killed after its first file; and there is another version meanwhile.
    put(command.models, "tiny", 3, model(manifest(COLOURS)))
    try:
        for path in command.made()[1:]:
            path.unlink()
        found |= {"files": found["files"][:1], "complete": False}
        (command.out / "manifest.json").write_text(json.dumps(found))
        command.run({"model": "tiny", "n": 3000})
    finally:
        (command.models / "tiny" / "3" / "model.onnx").unlink()
    assert read(command.out) == before
    sizes = [sample["json"]["labels"]["size"] for sample in load(map(str, command.made()))]
    assert 200 < sizes.count("large") < 400  # a tenth, as in the training data


def test_the_guide(tmp_path: Path) -> None:
    """Its commands and programs run, in order, and say what it shows."""
    guide = (ROOT / "docs" / "bulk.md").read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", guide, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python"]
    (tmp_path / "models").symlink_to(MODELS)
    for kind, code in blocks:
        code = re.sub(r"\.venv-cpu/bin/python", sys.executable, code)
        done = subprocess.run(
            ["bash", "-ec", code] if kind == "sh" else [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment() | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert all(f"    {line}\n" in guide for line in done.stdout.splitlines())


# Whatever happens.


def test_workers_that_are_killed(command: Command, undisturbed: dict[str, bytes]) -> None:
    process, killed = command.start(LARGE, "--workers", "2"), 0
    for files in (2, 5, 7):
        command.wait(files, process)
        for worker in workers(process.pid)[:1]:
            worker.kill()
            killed += 1
    assert process.wait(120) == 0, process.communicate()[1]
    assert killed == 3
    process.communicate()
    assert read(command.out) == undisturbed


def test_a_worker_that_is_killed_when_it_has_nothing_to_do(
    models: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    made: list[int] = []
    found: list[int] = []

    def killing(
        recipe: BuildSpec, jobs: deque[ShardTask], tell: OnProgress
    ) -> Iterator[ShardResult]:
        for number, done in enumerate(local_executor.run(recipe, jobs, tell, processes=1)):
            if number in (0, 4):
                (worker,) = multiprocessing.active_children()
                worker.kill()
                worker.join()
            yield done

    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(LARGE))
    out = tmp_path / "out"
    with open_build(
        read_plan(path), LocalStorage(out), models, "cpu", ModelSandbox(), lambda message: None
    ) as dataset:
        dataset.run(killing, found.append, made.append)
    assert read(out) == undisturbed
    assert sum(made) == 12_000 and not found


def test_a_driver_that_is_killed_and_started_again(
    command: Command, undisturbed: dict[str, bytes]
) -> None:
    moments = random.Random(3)
    for _ in range(4):
        before = len(command.made())
        process = command.start(LARGE, "--workers", "2")
        command.wait(before + 1, process)
        time.sleep(moments.uniform(0, 0.2))
        left = workers(process.pid)
        assert left
        process.kill()
        process.communicate()
        psutil.wait_procs(left, 10)
        assert not any(worker.is_running() for worker in left)
    command.run(LARGE)
    assert read(command.out) == undisturbed
    assert "12,000 images" in command.run(LARGE)  # and once more does nothing
    assert read(command.out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_says_what_is_kept(
    command: Command, undisturbed: dict[str, bytes], number: signal.Signals
) -> None:
    process = command.start(
        LARGE, "--workers", "2", start_new_session=True, preexec_fn=default_sigint
    )
    command.wait(3, process)
    left = workers(process.pid)
    os.killpg(process.pid, number)  # as a terminal does
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in told and "Traceback" not in told
    assert "of 12,000 images are kept: run the same command to resume" in told
    assert not any(worker.is_running() for worker in left)
    kept = json.loads((command.out / "manifest.json").read_text())
    assert {file["name"] for file in kept["files"]} <= set(read(command.out))
    assert not list(command.out.glob(".*.tmp"))
    command.run(LARGE)
    assert read(command.out) == undisturbed


def test_a_file_that_costs_processes_is_told(command: Command) -> None:
    process = command.start(SMALL | {"n": 10**6, "images_per_file": 10**6}, "--workers", "1")
    seen = set()
    while process.poll() is None:
        for worker in workers(process.pid):
            if worker.pid not in seen:
                seen.add(worker.pid)
                time.sleep(0.5)
                worker.kill()
        time.sleep(0.02)
    _, told = process.communicate()
    assert "3 processes were lost to tiny-00000.tar; the last was killed by SIGKILL" in told
    assert len(seen) == 3


def test_files_that_are_gone_or_changed_are_made_again(
    command: Command, undisturbed: dict[str, bytes]
) -> None:
    command.run(LARGE)
    changed = bytearray(undisturbed["tiny-00003.tar"])
    changed[5000] ^= 1
    (command.out / "tiny-00003.tar").write_bytes(changed)
    (command.out / "tiny-00005.tar").unlink()
    (command.out / ".tiny-00007.tar.0123456789abcdef.tmp").write_bytes(b"of a kill")
    said = command.run(LARGE)
    assert "tiny-00003.tar is missing or has changed: building it again" in said
    assert "tiny-00005.tar is missing or has changed: building it again" in said
    assert said.count("building it again") == 2
    assert read(command.out) == undisturbed


def test_a_full_disk(command: Command, undisturbed: dict[str, bytes]) -> None:
    def a_megabyte_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    told = command.run(LARGE, fails=True, preexec_fn=a_megabyte_a_file)
    assert "cannot write" in told and "File too large" in told
    assert not list(command.out.glob(".*.tmp")) and not command.made()
    command.run(LARGE)
    assert read(command.out) == undisturbed


def test_a_place_is_of_one_set(command: Command, models: Path) -> None:
    command.run(SMALL)
    before = read(command.out)
    told = command.run(SMALL | {"truncation": 0.5, "format": "zip"}, fails=True)
    assert "holds another set (it differs in truncation, format): choose another folder" in told
    path = models / "tiny" / "2" / "model.onnx"
    content = path.read_bytes()
    put(models, "tiny", 2, model(manifest(COLOURS, SIZES, latent_size=9)))
    try:
        told = command.run(SMALL, fails=True)
    finally:
        path.write_bytes(content)
    assert "the model has changed since" in told and "model_sha256 is " in told
    assert read(command.out) == before
    (command.out / "manifest.json").unlink()
    told = command.run(SMALL, fails=True)
    assert "has no manifest.json, but other files (tiny-00000.tar)" in told
    (command.out / "manifest.json").write_text("[1]")
    assert "is not a manifest of a set" in command.run(SMALL, fails=True)


def test_fetch_and_make_dataset_keep_apart(server: Server, command: Command) -> None:
    fetch = [sys.executable, "-m", "service", "fetch", "-n", "9", "--server", server.url]
    fetch += ["--model", "tiny", "--seed", "3", "--out", str(command.out)]
    plan = {"model": "tiny", "n": 9, "seed": 3}
    subprocess.run(fetch, cwd=ROOT, env=environment(), check=True, capture_output=True)
    assert "holds a set of fetch: choose another folder" in command.run(plan, fails=True)
    fetch[-1] = str(command.folder / "made")
    command.run(plan, out=fetch[-1])
    done = subprocess.run(fetch, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert "holds a set of make-dataset: choose another folder" in done.stderr


def test_two_at_once(command: Command) -> None:
    process = command.start(LARGE, "--workers", "1")
    command.wait(1, process)
    assert "another command is writing to" in command.run(LARGE, fails=True)
    process.communicate(timeout=120)
    assert process.returncode == 0


# Other places.

BUCKET = '''
import fnmatch, os, shutil
from fsspec.implementations.local import LocalFileSystem

class Bucket(LocalFileSystem):
    """Objects that appear whole, in a folder."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path):
        name = str(path).removeprefix(os.environ["BUCKET"]).removeprefix("bucket://").strip("/")
        return os.environ["BUCKET"] + "/" + name

    def put_file(self, local, remote, **options):
        if "BUCKET_REFUSES" in os.environ:
            raise PermissionError("Access Denied to bucket://user:hunter2@team")
        if fnmatch.fnmatch(os.path.basename(remote), os.environ.get("BUCKET_LOSES", "")):
            return
        remote = self._strip_protocol(remote)
        os.makedirs(os.path.dirname(remote), exist_ok=True)
        part = f"{os.environ['BUCKET']}/{os.getpid()}.part"
        shutil.copyfile(local, part)
        os.replace(part, remote)

    def pipe_file(self, path, value, **options):
        with open(f"{os.environ['BUCKET']}/manifest.part", "wb") as file:
            file.write(value)
        self.put_file(file.name, path)
'''


@pytest.fixture
def bucket(command: Command) -> Path:
    """What fsspec has a protocol for, ``bucket://``, known to all processes of the command."""
    installed, content = command.folder / "installed", command.folder / "bucket"
    (installed / "bucket-1.dist-info").mkdir(parents=True)
    content.mkdir()
    (installed / "bucket.py").write_text(BUCKET)
    (installed / "bucket-1.dist-info" / "METADATA").write_text("Name: bucket\nVersion: 1\n")
    points = "[fsspec.specs]\nbucket = bucket:Bucket\n"
    (installed / "bucket-1.dist-info" / "entry_points.txt").write_text(points)
    command.variables = {"PYTHONPATH": str(installed), "BUCKET": str(content)}
    return content


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
def test_a_url_of_a_folder(command: Command, protocol: str) -> None:
    command.run(SMALL, out=f"{protocol}://{command.out}")
    assert len(command.made()) == 9
    with FileLock(command.out / ".lock"):  # which a store would not have
        told = command.run(SMALL, out=f"{protocol}://{command.out}", fails=True)
    assert f"another command is writing to {command.out}" in told


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
    told = command.run(SMALL, "--workers", "1", out="bucket://set", fails=True)
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
    assert said in command.run(SMALL, out=out, fails=True)


# Plans.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a plan is a list of fields"),
        ("- 1", "a plan is a list of fields"),
        ("model: [", "line 1: invalid YAML: "),
        ("model: tiny\nn: 5\nn: 6", "line 3: n is given twice"),
        ("model: tiny\nn: 5\nlabel:\n- a: b\n  a: c", "line 5: a is given twice"),
        ("model: tiny\nn: 5\nlabel: &a [*a]", "line 3: label: "),
        ("n: " + "[" * 5000, "lists are nested too deeply"),
        ("model: tiny", "plan.yaml: n is missing"),
        ("n: 5", "plan.yaml: model is missing"),
        ("model: tiny\nlabels: [red]\nn: 5", "line 2: no field is called 'labels'; there are: n, "),
        ("model: tiny\nn: 0", "line 2: n: "),
        ("model: tiny\nn: 1.5", "line 2: n: "),
        (
            "model: tiny\nn: [0, 0]\nlabel: [red, blue]",
            "line 2: n: should request at least",
        ),
        ("model: tiny\nn: [1, 2]\nlabel: red", "n has 2 counts for 1 labels"),
        ("model: tiny\nn: 5\n\nlabel: [7]", "line 4: label: should be a phrase"),
        ("model: tiny\nn: 5\n\nlabel: [yes]", "is put in quotes: '7'"),
        ("model: tiny\nn: 5\nseed: -1", "line 3: seed: "),
        ("model: tiny\nn: 5\ntruncation: 2", "line 3: truncation: "),
        ("model: tiny\nn: 5\nformat: tfrecord", "line 3: format: should be one of npy, parquet"),
        ("model: tiny\nn: 5\nimages_per_file: 0", "line 3: images_per_file: "),
        ("model: tiny\nn: 5\nimages_per_file: 1000001", "less than or equal to 1000000"),
        ("model: tiny\nn: 5\nverify: 0.9", "use `python -m service fetch --verify`"),
        ("model: ../x\nn: 5", "line 1: model: "),
    ],
)
def test_plans_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError) as told:
        read_plan(path)
    assert said in str(told.value) and str(path) in str(told.value)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (SMALL | {"label": "rad"}, "did you mean 'red colour'?"),
        (SMALL | {"model": "nope"}, "no model 'nope' in "),
        (SMALL | {"version": 7}, "model 'tiny' has no version 7; available: 1, 2, latest"),
        (SMALL | {"offset": 2**53 - 50}, f"the last index may be at most {2**53 - 1}"),
        ({"model": "free", "n": 5, "label": "red"}, "this model is unconditional"),
        (SMALL | {"n": 2 * 10**6 + 1, "images_per_file": 2}, "has 1,000,001 files, and a set"),
        (SMALL | {"n": 2**53}, "raise images_per_file, or build several sets"),
    ],
)
def test_plans_that_do_not_fit(command: Command, plan: dict[str, Any], said: str) -> None:
    assert said in command.run(plan, fails=True)


def test_options_that_do_not_fit(command: Command) -> None:
    assert "CUDA cannot be had" in command.run(SMALL, "--device", "cuda", fails=True)
    told = command.run(SMALL, "--device", "cuda", "--workers", "2", fails=True)
    assert "--workers 2 is for CPUs: a GPU computes images in one process" in told


def test_a_model_file_that_is_too_large(models: Path, command: Command) -> None:
    path = models / "large" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes((1 << 20) + 1))
    command.variables["FIGMENT_MAX_MODEL_MB"] = "1"
    assert "larger than 1 MB" in command.run(SMALL | {"model": "large"}, fails=True)
    told = command.run(SMALL | {"model": "large"}, "--max-model-mb", "2", fails=True)
    assert "larger" not in told


def test_without_ray(command: Command) -> None:
    """As where the extra is not installed."""
    hidden = command.folder / "hidden" / "ray"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('it is not here')")
    command.variables = {"PYTHONPATH": str(hidden.parent)}
    told = command.run(SMALL, "--ray", "auto", fails=True)
    assert 'pip install "figment[ray]"' in told
    command.run(SMALL)  # which does without


@pytest.mark.ray
def test_on_a_ray_cluster(models: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Of two nodes: with processes killed, and with drivers ended and started again."""
    pytest.importorskip("ray", reason='this takes Ray: pip install "figment[ray]"')
    alone = "unshare -rn bash -c 'ip link set lo up && exec \"$@\"' -"
    if subprocess.run([*shlex.split(alone), "true"], capture_output=True).returncode:
        pytest.skip("Ray would listen beyond this machine: a network of its own takes unshare")
    (tmp_path / "models").symlink_to(models)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(LARGE))
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [*shlex.split(alone), sys.executable, "-m", "tests.helpers.datasets_on_ray", str(tmp_path)],
        cwd=tmp_path / "elsewhere",  # that of the cluster
        env=environment()
        | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-2:] == ["2", "2"]
    assert read(tmp_path / "killed-workers") == undisturbed
    assert read(tmp_path / "ended-drivers") == undisturbed
