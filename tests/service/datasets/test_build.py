"""Files of ``make-dataset``: those of a fetch, readable by loaders, of one set per folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from service.cli.fetch import fetch
from service.datasets.storage import LocalStorage
from service.formats.registry import SUFFIXES
from tests.conftest import manifest
from tests.helpers.make_dataset import COLOURS, LARGE, SIZES, SMALL, Command, load, read
from tests.helpers.onnx_files import model, put
from tests.helpers.server import MODELS, ROOT, Server, environment

EVEN = SMALL | {"offset": 3}
UNEVEN = SMALL | {"n": [70, 0, 8], "label": ["red", "blue", "blue, large"], "truncation": 0.7}
HALVES = EVEN | {"splits": {"train": 0.5, "val": 0.5}, "images_per_file": 9}
FOLDERS = {"layout": "folders", "by": ["colour", "size"]}
FREE = {"model": "free", "n": 20, "seed": 3}


@pytest.mark.parametrize(
    "plan",
    [
        EVEN | {"format": "webdataset"},
        FREE | {"format": "parquet"},
        HALVES | {"format": "webdataset", "by": "size"},
        HALVES | {"format": "parquet", "labels": "names"},
        HALVES | FOLDERS,
        *(UNEVEN | {"format": format_, "images_per_file": 9} for format_ in sorted(SUFFIXES)),
    ],
    ids=str,
)
def test_files_are_those_of_a_fetch(server: Server, command: Command, plan: dict[str, Any]) -> None:
    command.build(plan)
    options = list(plan.get("label", []))
    for count in plan["n"] if isinstance(plan["n"], list) else [plan["n"]]:
        options += ["-n", str(count)]
    for name in ("model", "seed", "offset", "truncation", "format", "layout", "labels"):
        options += [f"--{name}", str(plan[name])] if name in plan else []
    by = plan.get("by", [])
    options += [f"--by={name}" for name in ([by] if isinstance(by, str) else by)]
    splits = ",".join(f"{name}:{share}" for name, share in plan.get("splits", {}).items())
    options += ["--splits", splits] if splits else []
    options += ["--per-file", "9"] if "images_per_file" in plan else []
    out = command.folder / "fetched"
    options += ["--out", str(out), "--server", server.url]
    fetched = CliRunner().invoke(fetch, options)
    assert fetched.exit_code == 0, fetched.output
    found, expected = read(command.out), read(out)
    described = json.loads(found.pop("manifest.json"))
    assert described | {"made_by": "fetch"} == json.loads(expected.pop("manifest.json"))
    assert described["complete"] and len(described["files"]) >= 8
    assert found == expected


def test_loaders_read_them(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets  # takes 1.5 s

    command.build(SMALL)
    shards = [str(path) for path in command.made()]
    assert len(shards) == 9
    samples = load(shards)
    assert [sample["json"]["labels"]["colour"] for sample in samples] == ["red", "blue"] * 50
    assert samples[0]["png"].shape == (16, 16, 3)

    command.out = command.folder / "parquet"
    command.build(SMALL | {"format": "parquet"})
    tables = [str(path) for path in command.made()]
    assert sum(pq.read_table(path).num_rows for path in tables) == 100
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", command.folder / "cache")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("parquet", data_files=tables, split="train")
    assert loaded.num_rows == 100
    assert loaded[7]["image"].size == (16, 16) and loaded[7]["colour"] == 1


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


def test_files_that_are_gone_or_changed_are_made_again(
    command: Command, undisturbed: dict[str, bytes]
) -> None:
    command.build(LARGE)
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


def test_a_place_is_of_one_set(command: Command, models: Path) -> None:
    command.build(SMALL)
    before = read(command.out)
    told = command.refuse(SMALL | {"truncation": 0.5, "format": "zip"})
    assert "holds another set (it differs in truncation, format): choose another folder" in told
    path = models / "tiny" / "2" / "model.onnx"
    content = path.read_bytes()
    put(models, "tiny", 2, model(manifest(COLOURS, SIZES, latent_size=9)))
    try:
        told = command.refuse(SMALL)
    finally:
        path.write_bytes(content)
    assert "the model has changed since" in told and "model_sha256 is " in told
    assert read(command.out) == before
    (command.out / "manifest.json").unlink()
    told = command.refuse(SMALL)
    assert "has no manifest.json, but other files (README.md)" in told
    (command.out / "manifest.json").write_text("[1]")
    assert "is not a manifest of a set" in command.refuse(SMALL)


def test_fetch_and_make_dataset_keep_apart(server: Server, command: Command) -> None:
    options = ["-n", "9", "--server", server.url, "--model", "tiny", "--seed", "3", "--out"]
    plan = {"model": "tiny", "n": 9, "seed": 3}
    assert CliRunner().invoke(fetch, [*options, str(command.out)]).exit_code == 0
    assert "holds a set of fetch: choose another folder" in command.refuse(plan)
    command.out = command.folder / "made"
    command.build(plan)
    refused = CliRunner().invoke(fetch, [*options, str(command.out)])
    assert "holds a set of make-dataset: choose another folder" in refused.output


def test_two_at_once(command: Command) -> None:
    with LocalStorage(command.out).lock():
        assert "another command is writing to" in command.refuse(SMALL)


def test_plan_like_a_folder_makes_what_its_classes_lack(command: Command) -> None:
    for name, count in {"red": 3, "blue": 1}.items():
        (command.folder / "mine" / name).mkdir(parents=True)
        for index in range(count):
            (command.folder / "mine" / name / f"{index}.png").touch()
    plan = {"model": "tiny", "seed": 3, "like": "mine", "by": "colour", "format": "parquet"}
    said = command.run(plan | {"to": 5})
    assert [line.split() for line in said.splitlines()[:4]] == [
        ["class", "have", "make", "total"],
        ["red", "colour", "3", "2", "5"],
        ["blue", "colour", "1", "4", "5"],
        ["4", "6", "10"],
    ]
    labels = json.loads((command.out / "manifest.json").read_text())["labels"]
    assert {each["label"]: each["images"] for each in labels} == {"red colour": 2, "blue colour": 4}
    command.out = command.folder / "none"
    assert "no class lacks images" in command.run(plan | {"to": 1})
    assert not command.out.exists()
