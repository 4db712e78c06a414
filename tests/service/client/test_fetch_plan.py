"""``fetch --plan``: a set of a plan, as ``make-dataset`` takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from service.cli.main import main
from tests.helpers.server import Server

pytestmark = pytest.mark.server

PLAN = {
    "model": "digits",
    "label": ["3", "7"],
    "n": [2, 4],
    "seed": 3,
    "verify": 0.9,
    "format": "zip",
    "images_per_file": 4,
}
OPTIONS = (
    *("3", "7", "-n", "2", "-n", "4", "--model", "digits", "--seed", "3"),
    *("--verify", "0.9", "--format", "zip", "--per-file", "4"),
)


def fetch(server: Server, out: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["fetch", "--server", server.url, "--out", str(out), *words])
    return done.exit_code, done.output


def write(path: Path, plan: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(plan))
    return str(path)


def test_plan_gives_the_files_of_the_same_options(server: Server, tmp_path: Path) -> None:
    plan = write(tmp_path / "plan.yaml", PLAN)
    status, output = fetch(server, tmp_path / "planned", "--plan", plan)
    assert status == 0, output
    status, output = fetch(server, tmp_path / "asked", *OPTIONS)
    assert status == 0, output
    found, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("planned", "asked")
    )
    assert found == expected and "digits-00001.zip" in found
    assert fetch(server, tmp_path / "planned", "--plan", plan)[0] == 0  # it finds it whole


def test_plan_may_ask_for_what_classes_lack(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine" / "7").mkdir(parents=True)
    plan = write(tmp_path / "plan.json", {"model": "digits", "like": "mine", "to": 2})
    status, output = fetch(server, tmp_path / "set", "--plan", plan)
    assert status == 0, output
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert [(each["label"], each["images"]) for each in manifest["labels"]] == [("7", 2)]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("7",), "LABELS"),
        (("-n", "6"), "-n"),
        (("--seed", "3"), "--seed"),
        (("--like", ".", "--to", "5"), "--like"),
        (("--format", "zip"), "--format"),
        (("--model-version", "2"), "--model-version"),
    ],
)
def test_options_beside_a_plan_are_errors(
    server: Server, tmp_path: Path, words: tuple[str, ...], option: str
) -> None:
    plan = write(tmp_path / "plan.yaml", PLAN)
    status, output = fetch(server, tmp_path / "set", "--plan", plan, *words)
    assert status == 2 and f"says what to fetch: omit {option}\n" in output
    assert not (tmp_path / "set").exists()


def test_bad_plan_is_an_error_with_its_line(server: Server, tmp_path: Path) -> None:
    plan = write(tmp_path / "plan.yaml", PLAN | {"verify": 2})
    status, output = fetch(server, tmp_path / "set", "--plan", plan)
    assert status == 1 and f"{plan}, line " in output and "verify: " in output
