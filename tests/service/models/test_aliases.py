"""Aliases of versions: files, commands, requests and reloads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import main
from tests.helpers.reload import answer, place, refused, reload, weights
from tests.helpers.server import Server

pytestmark = pytest.mark.server


def run(models: Path, *arguments: str) -> Result:
    """Run ``python -m service`` in this process."""
    return CliRunner().invoke(main, [*arguments, "--models", str(models)])


def test_aliases_and_rollback(server: Server, models: Path) -> None:
    for version in (2, 3):
        place(models, "tiny", version, weights(version))
    for alias, version in (("stable", 1), ("default", 2), ("default", 1), ("stable", 3)):
        done = run(models, "alias", "tiny", alias, str(version))
        assert done.exit_code == 0, done.stderr
        assert "SIGHUP or POST /models/reload" in done.stdout
    written = json.loads((models / "tiny" / "aliases.json").read_text())
    assert written == {"stable": [1, 3], "default": [2, 1]}
    means = {"stable": 3, "default": 1}
    assert reload(server)["aliases"] == {"tiny": means}

    # 1. An alias is allowed wherever a number is, and the answer has the number.
    for requested, found in ((None, 1), ("default", 1), ("stable", 3), ("latest", 3), (2, 2)):
        assert answer(server, version=requested)["version"] == found
    ends = {"from": {"seed": 1}, "to": {"seed": 2}, "steps": 2}
    for path, body in (("/interpolate", ends), ("/variations", {"of": {"seed": 1}, "n": 1})):
        named = body | {"model": "tiny", "version": "stable"}
        assert server.client.post(path, json=named).json()["version"] == 3
    assert server.client.get("/models/tiny/stable").json()["version"] == 3
    labels = server.client.get("/models/tiny/labels", params={"version": "stable"})
    assert labels.json()["version"] == 3
    shown = server.client.get("/models/tiny").json()
    assert (shown["version"], shown["aliases"]) == (1, means | {"latest": 3})
    listed = {each["name"]: each for each in server.client.get("/models").json()["models"]}
    assert (listed["tiny"]["version"], listed["other"]["aliases"]) == (1, {"latest": 1})

    # 2. But not in addresses, which are permanent.
    assert server.client.get("/images/tiny/stable/1/0.png").status_code == 422

    # 3. An unknown alias: the error lists those that exist.
    unknown = server.client.post("/generate", json={"model": "tiny", "version": "canary"})
    assert unknown.status_code == 404
    assert "no version 'canary'; there are: 1, 2, 3, default, latest, stable" in unknown.text
    for wrong in ("No Alias", "", 0, 1.5, True, [1]):
        malformed = server.client.post("/generate", json={"model": "tiny", "version": wrong})
        assert malformed.status_code == 422
        assert "version: should be a number from 1 on, or an alias" in malformed.json()["detail"]

    # 4. Rollback to the previous version, once.
    done = run(models, "rollback", "tiny", "default")
    assert done.stdout.startswith("default of tiny is version 2 again")
    assert reload(server)["aliases"] == {"tiny": means | {"default": 2}}
    assert answer(server)["version"] == 2
    done = run(models, "rollback", "tiny", "default")
    assert (done.exit_code, "no previous version" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alias", "tiny", "latest", "1"], "'latest' is not an alias that can be set"),
        (["alias", "tiny", "labels", "1"], "'labels' is not an alias"),
        (["alias", "tiny", "Stable", "1"], "'Stable' is not an alias"),
        (["alias", "tiny", "stable", "9"], "there is no"),
        (["alias", "tiny", "stable", "one"], "'one' is not a valid integer"),
        (["alias", "../tiny", "stable", "1"], "there is no model '../tiny'"),
        (["rollback", "nope", "stable"], "there is no model 'nope'"),
        (["rollback", "tiny", "stable"], "no previous version"),
    ],
)
def test_invalid_alias_commands_fail(tmp_path: Path, arguments: list[str], said: str) -> None:
    place(tmp_path, "tiny", 1, weights(1))
    done = run(tmp_path, *arguments)
    assert isinstance(done.exception, SystemExit)
    assert said in done.stderr
    assert not (tmp_path / "tiny" / "aliases.json").exists()


def test_invalid_aliases_keep_the_previous_ones(server: Server, models: Path) -> None:
    place(models, "tiny", 2, weights(2))
    path = models / "tiny" / "aliases.json"
    path.write_text('{"stable": 1, "default": 1}')
    assert reload(server)["aliases"] == {"tiny": {"stable": 1, "default": 1}}
    for content, said in (
        ("{", "Invalid JSON"),
        ("[" * 100_000, "is larger than"),
        ("[" * 10_000, "Invalid JSON"),
        ('{"stable": "2"}', "stable: Input should be a valid integer"),
        ('{"stable": true}', "stable: "),
        ('{"stable": []}', "stable: "),
        ('{"Stable": 2}', "Stable: "),
        ('{"latest": 2}', "'latest' cannot be set"),
        ('{"labels": 2}', "'labels' cannot be set"),
    ):
        path.write_text(content)
        report = reload(server)
        reason = refused(report)["tiny/aliases.json"]
        assert said in reason
        assert reason.endswith("; the previous aliases stay in effect")
        assert report["aliases"] == {"tiny": {"stable": 1, "default": 1}}

    # Valid aliases of a readable file take effect.
    path.write_text('{"stable": 9, "default": [1, 2], "canary": 7}')
    report = reload(server)
    assert report["aliases"] == {"tiny": {"stable": 1, "default": 2}}
    assert [item["reason"] for item in report["refused"]] == [
        "'stable': version 9 is not served; it is still version 1",
        "'canary': version 7 is not served",
    ]

    # A removed version has no alias.
    shutil.rmtree(models / "tiny" / "2")
    assert reload(server)["aliases"] == {"tiny": {"stable": 1}}
    path.unlink()
    assert reload(server)["aliases"] == {}
