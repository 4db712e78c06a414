"""Models come, change and go under a running service, and nobody who is being served notices."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from service.cli.main import main
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.server import ROOT, Server, environment, serve

LABELLED = manifest(attribute("eyes", "red", "blue"), name="other")
STREAM = {"n": 20_000, "seed": 1}
"""15 MB, far more than the sockets between hold."""


def weights(seed: int, name: str = "tiny") -> onnx.ModelProto:
    """A model unlike those of other seeds."""
    return changed(onnx_files.model(manifest(name=name)), seed)


def changed(built: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    (matrix,) = (each for each in built.graph.initializer if each.name == "matrix")
    values = np.random.default_rng(seed).permutation(numpy_helper.to_array(matrix))
    matrix.CopyFrom(numpy_helper.from_array(values, "matrix"))
    return built


def place(folder: Path, name: str, version: int, content: bytes | onnx.ModelProto) -> None:
    """As a careful person does: beside its place first, then into it."""
    path = onnx_files.put(folder, name, version, b"")
    path.unlink()
    ready = onnx_files.put(folder, name, ".coming", content)
    ready.rename(path)
    ready.parent.rmdir()


def fill(folder: Path) -> Path:
    """With one version of each of two models."""
    shutil.rmtree(folder, ignore_errors=True)
    place(folder, "tiny", 1, weights(1))
    place(folder, "other", 1, onnx_files.model(LABELLED))
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    folder = fill(tmp_path_factory.mktemp("reload") / "models")
    with serve("--models", str(folder), "--threads", "2") as server:
        yield folder, server


@pytest.fixture
def server(running: tuple[Path, Server]) -> Server:
    """One that serves what it did at first, whatever was done to it."""
    folder, server = running
    fill(folder)
    reload(server)
    return server


@pytest.fixture
def models(running: tuple[Path, Server]) -> Path:
    return running[0]


def reload(server: Server) -> dict[str, Any]:
    answer = server.client.post("/models/reload")
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def answer(server: Server, **body: Any) -> dict[str, Any]:
    found = server.client.post("/generate", json={"seed": 1, "model": "tiny"} | body)
    assert found.status_code == 200, found.text
    return dict(found.json())


def refused(report: dict[str, Any]) -> dict[str, str]:
    return {item["path"]: item["reason"] for item in report["refused"]}


def test_versions_come_change_and_go(server: Server, models: Path) -> None:
    first = answer(server)
    assert first["version"] == 1
    assert reload(server) == {
        "added": [],
        "changed": [],
        "removed": [],
        "refused": [],
        "warnings": [],
        "aliases": {},
    }

    # 1. A second version is added, and is what requests get from then on.
    place(models, "tiny", 2, weights(2))
    assert answer(server)["version"] == 1
    assert reload(server)["added"] == ["tiny/2"]
    second = answer(server)
    assert second["version"] == 2
    assert second["images"][0]["data"] != first["images"][0]["data"]
    assert "tiny/2" in server.client.get("/info").json()["batches"]

    # 2. The first is replaced: other images, another ETag, at the same address.
    address = first["images"][0]["url"]
    etag = server.client.get(address).headers["etag"]
    place(models, "tiny", 1, weights(3))
    assert reload(server)["changed"] == ["tiny/1"]
    assert server.client.get(address).headers["etag"] != etag

    # 3. The second goes, and the first is the highest again.
    shutil.rmtree(models / "tiny" / "2")
    assert reload(server)["removed"] == ["tiny/2"]
    assert answer(server)["version"] == 1
    assert server.client.get("/models/tiny/2").status_code == 404
    assert "tiny/2" not in server.client.get("/info").json()["batches"]

    # 4. A whole model goes.
    shutil.rmtree(models / "tiny")
    assert reload(server)["removed"] == ["tiny/1"]
    assert server.client.get("/models/tiny").status_code == 404
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_stream_ends_on_the_version_that_it_began_with(
    server: Server, models: Path, change: str
) -> None:
    body = STREAM | {"model": "tiny"}
    path = "/generate?format=npy"
    whole = server.client.post(path, json=body).content
    with server.client.stream("POST", path, json=body) as stream:
        chunks = stream.iter_raw()
        begun = next(chunks)
        if change == "replaced":
            place(models, "tiny", 1, weights(9))
            assert reload(server)["changed"] == ["tiny/1"]
        else:
            shutil.rmtree(models / "tiny")
            assert reload(server)["removed"] == ["tiny/1"]
        assert len(begun) < len(whole) / 2
        assert begun + b"".join(chunks) == whole
    after = server.client.post(path, json=body | {"n": 10})
    if change == "replaced":
        assert after.content[-7680:] != whole[-len(after.content) :][:7680]
        assert after.content[200:] not in whole
    else:
        assert after.status_code == 404


def test_a_bad_file_leaves_the_old_one_serving(server: Server, models: Path) -> None:
    before = answer(server)
    place(models, "tiny", 1, weights(1).SerializeToString()[:5000])
    place(models, "tiny", 2, b"no model")
    report = reload(server)
    assert (report["added"], report["changed"], report["removed"]) == ([], [], [])
    reasons = refused(report)
    assert reasons["tiny/1/model.onnx"].endswith("; the one loaded before goes on serving")
    assert "goes on" not in reasons["tiny/2/model.onnx"]
    assert refused(server.client.get("/models").json()) == reasons
    assert answer(server) == before
    place(models, "tiny", 1, weights(1))
    assert list(refused(reload(server))) == ["tiny/2/model.onnx"]


def test_a_version_that_can_be_verified_does_not_become_one_that_cannot(
    server: Server, models: Path
) -> None:
    def about() -> tuple[str, str | None]:
        found = server.client.get("/models/other/1").json()
        return found["sha256"], found["verifier_sha256"]

    # 1. Without a verifier it goes on without one, when a bad one comes.
    path = models / "other" / "1" / "verifier.onnx"
    plain = about()
    path.write_bytes(b"no verifier")
    report = reload(server)
    assert (report["changed"], list(refused(report))) == ([], ["other/1/verifier.onnx"])
    assert about() == plain

    # 2. A good one is taken up.
    path.write_bytes(onnx_files.verifier(("eyes", 2)))
    assert reload(server)["changed"] == ["other/1"]
    assert (pair := about())[1]

    # 3. Then a bad one keeps the pair, and so it does beside a good model.
    path.write_bytes(b"no verifier")
    reason = refused(reload(server))["other/1/verifier.onnx"]
    assert reason.endswith("; the one loaded before goes on serving")
    place(models, "other", 1, changed(onnx_files.model(LABELLED), 4))
    report = reload(server)
    assert (report["changed"], list(refused(report))) == ([], ["other/1/verifier.onnx"])
    assert about() == pair
    body = {"model": "other", "label": "red eyes", "verify": 0.1, "seed": 1}
    assert server.client.post("/generate", json=body).status_code == 200

    # 4. It is given up where it is taken away.
    path.unlink()
    assert reload(server)["changed"] == ["other/1"]
    assert about()[1] is None


def test_a_folder_that_vanishes_changes_nothing(server: Server, models: Path) -> None:
    before = answer(server)
    away = models.rename(models.with_name("away"))
    for _ in range(2):
        report = reload(server)
        assert report["removed"] == []
        assert report["warnings"][0].startswith("nothing was changed: ")
        assert answer(server) == before
        models.mkdir(exist_ok=True)  # the second time, it is empty
    models.rmdir()
    away.rename(models)
    assert reload(server)["warnings"] == []


def test_a_default_that_goes_is_told_and_another_steps_in(tmp_path: Path) -> None:
    models = fill(tmp_path / "models")
    place(models, "usual", 1, weights(5, "usual"))
    with serve("--models", str(models), "--default-model", "usual") as server:
        assert server.client.post("/generate", json={}).json()["model"] == "usual"
        shutil.rmtree(models / "usual")
        (warning,) = reload(server)["warnings"]
        assert warning == "'usual' cannot be the default unconditional model; there are: tiny"
        assert server.client.post("/generate", json={}).json()["model"] == "tiny"


def run(models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments, "--models", str(models)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_aliases_and_rollback(server: Server, models: Path) -> None:
    for version in (2, 3):
        place(models, "tiny", version, weights(version))
    for alias, version in (("stable", 1), ("default", 2), ("default", 1), ("stable", 3)):
        done = run(models, "alias", "tiny", alias, str(version))
        assert done.returncode == 0, done.stderr
        assert "SIGHUP or POST /models/reload" in done.stdout
    written = json.loads((models / "tiny" / "aliases.json").read_text())
    assert written == {"stable": [1, 3], "default": [2, 1]}
    means = {"stable": 3, "default": 1}
    assert reload(server)["aliases"] == {"tiny": means}

    # 1. Wherever a number may be given, and the answer tells the number.
    for asked, found in ((None, 1), ("default", 1), ("stable", 3), ("latest", 3), (2, 2)):
        assert answer(server, version=asked)["version"] == found
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

    # 2. But not in addresses, which are for ever.
    assert server.client.get("/images/tiny/stable/1/0.png").status_code == 422

    # 3. What is no alias is answered with what there is.
    unknown = server.client.post("/generate", json={"model": "tiny", "version": "canary"})
    assert unknown.status_code == 404
    assert "no version 'canary'; there are: 1, 2, 3, default, latest, stable" in unknown.text
    for wrong in ("No Alias", "", 0, 1.5, True, [1]):
        malformed = server.client.post("/generate", json={"model": "tiny", "version": wrong})
        assert malformed.status_code == 422
        assert "version: should be a number from 1 on, or an alias" in malformed.json()["detail"]

    # 4. Back to what it was, once.
    done = run(models, "rollback", "tiny", "default")
    assert done.stdout.startswith("default of tiny is version 2 again")
    assert reload(server)["aliases"] == {"tiny": means | {"default": 2}}
    assert answer(server)["version"] == 2
    done = run(models, "rollback", "tiny", "default")
    assert (done.returncode, "nothing else before" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alias", "tiny", "latest", "1"], "'latest' is no alias that can be set"),
        (["alias", "tiny", "labels", "1"], "'labels' is no alias"),
        (["alias", "tiny", "Stable", "1"], "'Stable' is no alias"),
        (["alias", "tiny", "stable", "9"], "there is no"),
        (["alias", "tiny", "stable", "one"], "'one' is not a valid integer"),
        (["alias", "../tiny", "stable", "1"], "there is no model '../tiny'"),
        (["rollback", "nope", "stable"], "there is no model 'nope'"),
        (["rollback", "tiny", "stable"], "nothing else before"),
    ],
)
def test_commands_that_cannot_be_followed(tmp_path: Path, arguments: list[str], said: str) -> None:
    place(tmp_path, "tiny", 1, weights(1))
    done = CliRunner().invoke(main, [*arguments, "--models", str(tmp_path)])
    assert isinstance(done.exception, SystemExit)
    assert said in done.stderr
    assert not (tmp_path / "tiny" / "aliases.json").exists()


def test_aliases_that_are_no_good_leave_those_before(server: Server, models: Path) -> None:
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
        assert reason.endswith("; those read before stay")
        assert report["aliases"] == {"tiny": {"stable": 1, "default": 1}}

    # Of a file that can be read, the good ones are taken.
    path.write_text('{"stable": 9, "default": [1, 2], "canary": 7}')
    report = reload(server)
    assert report["aliases"] == {"tiny": {"stable": 1, "default": 2}}
    assert [item["reason"] for item in report["refused"]] == [
        "'stable': version 9 is not served; it still means 1",
        "'canary': version 7 is not served",
    ]

    # A version that is gone is meant by nothing.
    shutil.rmtree(models / "tiny" / "2")
    assert reload(server)["aliases"] == {"tiny": {"stable": 1}}
    path.unlink()
    assert reload(server)["aliases"] == {}


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), (None, 200)]
)
def test_pages_on_other_sites_reload_nothing(server: Server, site: str | None, status: int) -> None:
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    found = server.client.post("/models/reload", headers=headers)
    assert found.status_code == status
    if status == 403:
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["title"] == "Cross-site request"


def test_thirty_reloads_leave_nothing_behind(server: Server, models: Path) -> None:
    process = psutil.Process(server.process.pid)
    found: list[tuple[int, int, int]] = []
    for turn in range(30):
        if turn % 4 == 0:
            place(models, "tiny", 1, weights(turn))
        assert len(reload(server)["changed"]) == (turn % 4 == 0)
        answer(server)
        found.append((process.num_fds(), process.num_threads(), len(process.children())))
    files, threads, children = map(set, zip(*found[8:], strict=True))
    assert (len(files), children) == (1, {0}), found
    # A model has one thread of its own, or none, as was found to be faster when it was loaded.
    assert max(threads) - min(threads) <= 1, found


def test_those_who_ask_meanwhile_share_a_reload(server: Server, models: Path) -> None:
    """Whether they wait for it or leave at once."""

    def told() -> int:
        return sum("models reloaded:" in line for line in server.log)

    place(models, "tiny", 2, weights(2))  # which takes a while to be looked at
    before = told()
    address = httpx.URL(server.url)
    for _ in range(60):
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(b"POST /models/reload HTTP/1.1\r\nHost: figment\r\n\r\n")
    with ThreadPoolExecutor(10) as callers:
        reports = list(callers.map(lambda _: reload(server), range(10)))
    assert answer(server)["version"] == 2
    assert all(report["refused"] == [] for report in reports)
    assert 1 <= told() - before <= 6


def test_the_log_tells_of_keys_and_aliases(tmp_path: Path) -> None:
    def entry(name: str, key: str) -> str:
        return f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"

    models, keys = fill(tmp_path / "models"), tmp_path / "keys"
    place(models, "tiny", 2, weights(2))
    (models / "tiny" / "aliases.json").write_text('{"stable": 1, "default": 1}')
    keys.write_text(entry("slow", "1") + entry("team", "2"))
    with serve("--models", str(models), "--api-keys-file", str(keys)) as server:
        server.client.headers["Authorization"] = "Bearer 2"
        (models / "tiny" / "aliases.json").write_text('{"stable": 2, "default": 1}')
        keys.write_text(entry("team", "2") + entry("new", "3"))
        reload(server)
        keys.write_text(entry("team", "4") + entry("new", "3"))
        place(models, "tiny", 3, weights(3))
        (models / "tiny" / "aliases.json").write_text('{"stable": 2, "canary": 3}')
        reload(server)
    told = [line.strip() for line in server.log if "reloaded" in line or "API keys" in line]
    for line, said in zip(
        told,
        (
            "INFO API keys: added new; removed slow",
            "INFO models reloaded: tiny: stable 1 -> 2",
            "INFO API keys: changed team",
            "INFO models reloaded: added tiny/3; tiny: canary none -> 3, default 1 -> none",
        ),
        strict=True,
    ):
        assert line.startswith(said)


def test_a_reload_that_fails_is_told_until_one_does_well(tmp_path: Path) -> None:
    models, keys = fill(tmp_path / "models"), tmp_path / "keys"
    keys.write_text("team:key-of-the-team")
    with serve("--models", str(models), "--api-keys-file", str(keys)) as server:
        server.client.headers["Authorization"] = "Bearer key-of-the-team"

        def failed() -> bool:
            reload(server)
            return "\nfigment_reload_failed 1.0\n" in server.client.get("/metrics").text

        assert not failed()
        for content in ("", "no key", "twice:a\ntwice:b"):
            keys.write_text(content)
            assert failed()
        keys.unlink()
        assert failed()
        keys.write_text("team:key-of-the-team")
        assert not failed()
        models.rename(tmp_path / "away")
        assert failed()
        models.mkdir()
        assert failed()
        models.rmdir()
        (tmp_path / "away").rename(models)
        assert not failed()
