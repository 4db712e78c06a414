"""A set as a dataset repository: its card for Hugging Face, and its croissant.json."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from service.cli.fetch import fetch
from service.datasets.card import card_of
from service.datasets.croissant import croissant_of
from service.datasets.manifest import DatasetManifest
from service.formats.registry import SUFFIXES
from tests.helpers.make_dataset import SMALL, Command, read
from tests.helpers.server import Server, environment

MLCROISSANT = """
import json, os, shutil, sys
import mlcroissant

found = {}
for folder in sys.argv[1:]:
    dataset = mlcroissant.Dataset(f"{folder}/croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    found[folder] = [
        {name: str(value) for name, value in record.items()}
        for record in dataset.records("images")
    ]
    # Archives of one name share a place in the cache.
    shutil.rmtree(os.environ["CROISSANT_CACHE"], ignore_errors=True)
print(json.dumps(found))
"""
PLANS = {format_: SMALL | {"n": 40, "version": 2, "format": format_} for format_ in SUFFIXES}
PLANS["folder"] = PLANS["zip"] | {"format": "folder", "layout": "folders", "by": "colour"}
PLANS["free"] = {"model": "free", "n": 20, "seed": 3, "format": "zip"}


def card(folder: Path) -> tuple[dict[str, Any], str]:
    """YAML and text of a card."""
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def manifest_of(folder: Path) -> DatasetManifest:
    return DatasetManifest.model_validate_json((folder / "manifest.json").read_bytes())


@pytest.mark.parametrize("name", PLANS)
def test_load_dataset_reads_the_folder(command: Command, hugging_face: Any, name: str) -> None:
    plan = PLANS[name]
    command.build(plan)
    found = hugging_face.load_dataset(str(command.out))
    assert {split: rows.num_rows for split, rows in found.items()} == {"train": plan["n"]}
    rows = found["train"]
    if plan["format"] == "webdataset":
        assert {row["png"].size for row in rows} == {(16, 16)}
        colours = [row["json"]["labels"]["colour"] for row in rows]
    else:
        if plan["format"] == "folder":
            rows = rows.rename_column("label", "colour")
        if plan["format"] != "npy":
            assert {row["image"].size for row in rows} == {(16, 16)}
        colours = rows["colour"] if plan["model"] == "tiny" else ["red", "blue"] * 10
    if plan["format"] in ("parquet", "folder"):
        colours = rows.features["colour"].int2str(colours)
    assert Counter(colours) == dict.fromkeys(["red", "blue"], plan["n"] // 2)


def test_card_says_what_the_hub_asks(command: Command) -> None:
    command.build(PLANS["parquet"] | {"n": [15, 5]})
    head, text = card(command.out)
    assert "synthetic" in head["tags"]
    assert (head["license"], head["license_details"]) == ("mit", "MIT")
    assert head["task_categories"][0] == "image-classification"
    assert head["size_categories"] == ["n<1K"]
    (config,) = head["configs"]
    assert config["data_files"] == [{"split": "train", "path": "tiny-*.parquet"}]
    assert head["dataset_info"]["splits"][0]["num_examples"] == 20
    assert [each["name"] for each in head["dataset_info"]["features"]][:3] == [
        *("image", "colour", "size")
    ]
    for words in ("| red | 15 | 15 |", "| blue | 5 | 5 |", "`small`, `large`", "digitalsourcetype"):
        assert words in text
    assert manifest_of(command.out).origin.model_sha256 in text


def test_plan_of_the_card_makes_the_same_files(command: Command) -> None:
    plan = PLANS["webdataset"] | {"label": [{"colour": "red"}, "blue, large"], "truncation": 0.5}
    command.build(plan | {"seed": None})
    (again,) = re.findall(r"```yaml\n(.*?)```", (command.out / "README.md").read_text(), re.DOTALL)
    first, command.out = command.out, command.folder / "again"
    command.build(yaml.safe_load(again))
    found, expected = read(command.out), read(first)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} <= {"manifest.json"}


@pytest.mark.server
def test_card_of_a_verified_set_has_a_plan_for_fetch(server: Server, tmp_path: Path) -> None:
    options = ["red", "blue", "-n", "3", "-n", "5", "--model", "tiny", "--server", server.url]
    fetched = CliRunner().invoke(fetch, [*options, "--out", str(tmp_path / "out")])
    assert fetched.exit_code == 0, fetched.output
    manifest = manifest_of(tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == card_of(manifest)
    manifest.asked["verify"] = 0.9
    card = card_of(manifest)
    assert "`figment fetch --plan plan.yaml --out SET`" in card
    (again,) = re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert yaml.safe_load(again) == {
        "n": [3, 5],
        "label": ["red", "blue"],
        "seed": manifest.origin.seed,
        "model": "tiny",
        "version": 2,
        "verify": 0.9,
        "format": "webdataset",
        "images_per_file": 1,
    }


def test_incomplete_set_has_no_card(command: Command) -> None:
    process = command.start(SMALL | {"n": 4000, "images_per_file": 100}, "--workers", "1")
    command.wait(3, process)
    process.kill()
    process.communicate()
    assert "manifest.json" in read(command.out)
    assert not manifest_of(command.out).complete
    assert not {"README.md", "croissant.json"} & read(command.out).keys()


def test_splits_of_the_manifest_are_those_of_the_card(command: Command) -> None:
    command.build(PLANS["parquet"])
    manifest = manifest_of(command.out)
    for file in manifest.files:
        file.split = "val" if file.name.startswith("tiny-00000") else "train"
        file.name = file.name.replace("tiny-", f"tiny-{file.split}-")
    manifest.asked |= {"labels": "ids", "splits": {"val": 0.1, "train": 0.9}}
    head = yaml.safe_load(card_of(manifest).split("---\n")[1])
    assert head["configs"][0]["data_files"] == [
        {"split": "val", "path": "tiny-val-*.parquet"},
        {"split": "train", "path": "tiny-train-*.parquet"},
    ]
    assert [each["num_examples"] for each in head["dataset_info"]["splits"]] == [5, 35]
    _, colour, size, split, *_ = head["dataset_info"]["features"]
    assert (size["name"], split) == ("size", {"name": "split", "dtype": "string"})
    assert colour["dtype"] == {"class_label": {"names": {"0": "red", "1": "blue"}}}
    (files,) = (
        each
        for each in json.loads(croissant_of(manifest))["distribution"]
        if each["@type"] == "cr:FileSet"
    )
    assert files["includes"] == ["tiny-val-*.parquet", "tiny-train-*.parquet"]


def test_zip_of_class_folders_is_read_without_labels(command: Command) -> None:
    command.build(PLANS["zip"])
    manifest = manifest_of(command.out)
    manifest.asked["layout"] = "folders"
    head, text = card_of(manifest).split("---\n")[1:3]
    assert yaml.safe_load(head)["configs"][0]["drop_labels"] is True
    assert "Unpack them" in text


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("CC BY-SA 3.0 (MNIST, LeCun, Cortes and Burges)", "cc-by-sa-3.0"),
        ("unknown: pictures of unclear rights", "unknown"),
        ("CC BY 7.0", "other"),
        ("Apache 2.0", "apache-2.0"),
        ("MIT-0", "other"),
        ("ask: Ms. O'Hara --- \u2028 {yaml}: [ a | b\n# x", "other"),
    ],
)
def test_licences(command: Command, text: str, licence: str) -> None:
    command.build(PLANS["npy"])
    manifest = manifest_of(command.out)
    manifest.training_data = manifest.training_data.model_copy(update={"licence": text})
    assert text.count("|") == 0 or "a \\| b" in card_of(manifest)
    head = yaml.safe_load(re.split(r"^---\n", card_of(manifest), flags=re.MULTILINE)[1])
    assert (head["license"], head["license_details"]) == (licence, text)


def test_class_folders_of_one_class_keep_their_label(command: Command, hugging_face: Any) -> None:
    command.build(PLANS["folder"] | {"label": "red", "n": 20, "splits": {"a": 1e-9, "b": 1 - 1e-9}})
    found = hugging_face.load_dataset(str(command.out))
    assert {*found} == {"b"}, "a split without images is none for a loader"
    assert found["b"].features["label"].names == ["red"]
    assert found["b"].num_rows == 20


def test_class_folders_have_a_card_of_their_splits(command: Command, hugging_face: Any) -> None:
    command.build(PLANS["folder"] | {"splits": {"train": 0.5, "val": 0.5}})
    found = hugging_face.load_dataset(str(command.out))
    assert {*found} == {"train", "val"}
    assert sum(rows.num_rows for rows in found.values()) == 40
    assert found["val"].features["label"].names == ["blue", "red"]
    described = json.loads((command.out / "croissant.json").read_text())
    assert described["distribution"][-1]["includes"] == ["tiny-train-*.csv", "tiny-val-*.csv"]


@pytest.mark.slow
def test_mlcroissant_reads_the_records(command: Command) -> None:
    if importlib.util.find_spec("mlcroissant") is None:
        pytest.skip("NOT TESTED: mlcroissant is not installed")
    folders = {}
    for name, plan in PLANS.items():
        folders[name] = command.out = command.folder / name
        command.build(plan)
        described = json.loads((command.out / "croissant.json").read_text())
        assert described["conformsTo"] == "http://mlcommons.org/croissant/1.1"
        assert described["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    done = subprocess.run(
        [sys.executable, "-c", MLCROISSANT, *map(str, folders.values())],
        env=environment() | {"CROISSANT_CACHE": str(command.folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, folder in folders.items():
        records = found[str(folder)]
        assert len(records) == PLANS[name]["n"]
        if name in ("parquet", "npy"):
            colours = ["0", "1"] if name == "parquet" else ["b'red'", "b'blue'"]
            assert [each["images/colour"] for each in records[:2]] == colours
        if name not in ("npy", "folder"):
            assert all("size=16x16" in each["images/image"] for each in records)
