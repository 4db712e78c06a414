"""Versions added, replaced and removed under a running service, while clients are served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers import onnx_files
from tests.helpers.reload import LABELLED, answer, changed, fill, place, refused, reload, weights
from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server


STREAM = {"n": 20_000, "seed": 1}
"""15 MB, far more than socket buffers."""


def test_versions_are_added_replaced_and_removed(server: Server, models: Path) -> None:
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

    # 1. A second version is added. Result: it becomes the default.
    place(models, "tiny", 2, weights(2))
    assert answer(server)["version"] == 1
    assert reload(server)["added"] == ["tiny/2"]
    second = answer(server)
    assert second["version"] == 2
    assert second["images"][0]["data"] != first["images"][0]["data"]
    assert "tiny/2" in server.client.get("/info").json()["batches"]

    # 2. The first is replaced. Result: the same address has another ETag.
    address = first["images"][0]["url"]
    etag = server.client.get(address).headers["etag"]
    place(models, "tiny", 1, weights(3))
    assert reload(server)["changed"] == ["tiny/1"]
    assert server.client.get(address).headers["etag"] != etag

    # 3. The second is removed. Result: the first is the default again.
    shutil.rmtree(models / "tiny" / "2")
    assert reload(server)["removed"] == ["tiny/2"]
    assert answer(server)["version"] == 1
    assert server.client.get("/models/tiny/2").status_code == 404
    assert "tiny/2" not in server.client.get("/info").json()["batches"]

    # 4. The whole model is removed.
    shutil.rmtree(models / "tiny")
    assert reload(server)["removed"] == ["tiny/1"]
    assert server.client.get("/models/tiny").status_code == 404
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_stream_keeps_its_version_across_a_reload(
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


def test_invalid_file_keeps_the_previous_version(server: Server, models: Path) -> None:
    before = answer(server)
    place(models, "tiny", 1, weights(1).SerializeToString()[:5000])
    place(models, "tiny", 2, b"no model")
    report = reload(server)
    assert (report["added"], report["changed"], report["removed"]) == ([], [], [])
    reasons = refused(report)
    assert reasons["tiny/1/model.onnx"].endswith("; the previous one is still served")
    assert "previous" not in reasons["tiny/2/model.onnx"]
    assert refused(server.client.get("/models").json()) == reasons
    assert answer(server) == before
    place(models, "tiny", 1, weights(1))
    assert list(refused(reload(server))) == ["tiny/2/model.onnx"]


def test_invalid_verifier_keeps_the_previous_pair(server: Server, models: Path) -> None:
    def about() -> tuple[str, str | None]:
        found = server.client.get("/models/other/1").json()
        return found["sha256"], found["verifier_sha256"]

    # 1. An invalid verifier is added to a version without one. Result: nothing changes.
    path = models / "other" / "1" / "verifier.onnx"
    plain = about()
    path.write_bytes(b"no verifier")
    report = reload(server)
    assert (report["changed"], list(refused(report))) == ([], ["other/1/verifier.onnx"])
    assert about() == plain

    # 2. A valid one is added. Result: it is used.
    path.write_bytes(onnx_files.verifier(("eyes", 2)))
    assert reload(server)["changed"] == ["other/1"]
    assert (pair := about())[1]

    # 3. An invalid one replaces it, alone or with a valid model. Result: the pair stays.
    path.write_bytes(b"no verifier")
    reason = refused(reload(server))["other/1/verifier.onnx"]
    assert reason.endswith("; the previous one is still served")
    place(models, "other", 1, changed(onnx_files.model(LABELLED), 4))
    report = reload(server)
    assert (report["changed"], list(refused(report))) == ([], ["other/1/verifier.onnx"])
    assert about() == pair
    body = {"model": "other", "label": "red eyes", "verify": 0.1, "seed": 1}
    assert server.client.post("/generate", json=body).status_code == 200

    # 4. The verifier is removed. Result: the version has none.
    path.unlink()
    assert reload(server)["changed"] == ["other/1"]
    assert about()[1] is None


def test_missing_models_folder_changes_nothing(server: Server, models: Path) -> None:
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


def test_removed_default_model_is_a_warning_and_is_replaced(tmp_path: Path) -> None:
    models = fill(tmp_path / "models")
    place(models, "usual", 1, weights(5, "usual"))
    with serve("--models", str(models), "--default-model", "usual") as server:
        assert server.client.post("/generate", json={}).json()["model"] == "usual"
        shutil.rmtree(models / "usual")
        (warning,) = reload(server)["warnings"]
        assert warning == "'usual' cannot be the default unconditional model; there are: tiny"
        assert server.client.post("/generate", json={}).json()["model"] == "tiny"


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), (None, 200)]
)
def test_cross_site_reload_is_rejected(server: Server, site: str | None, status: int) -> None:
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    found = server.client.post("/models/reload", headers=headers)
    assert found.status_code == status
    if status == 403:
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["title"] == "Cross-site request"
