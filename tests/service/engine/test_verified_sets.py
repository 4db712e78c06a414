"""Verified and counted labels, over a real socket."""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from service.client import Figment
from service.core.quotas import MAX_MISSES
from service.errors import RequestRejected
from tests.conftest import attribute, manifest
from tests.helpers.onnx_files import model, put, verifier
from tests.helpers.server import MODELS, Server, serve

pytestmark = pytest.mark.server

Body = dict[str, Any]

BALANCED: Body = {"label": ["red eyes", "blue eyes"], "n": 60, "seed": 5}


def generate(client: httpx.Client, body: Body) -> Body:
    answer = client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    found: Body = answer.json()
    return found


def looked_at(client: httpx.Client, rows: list[Body], attribute: str) -> list[float]:
    """Probability that verifier.onnx gives to the label of each image."""
    session = ort.InferenceSession(MODELS / "anime-faces" / "2" / "verifier.onnx")
    about = client.get("/models/anime-faces/labels").json()["attributes"]
    (values,) = [each["values"] for each in about if each["name"] == attribute]
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(row["data"])))) for row in rows]
    (probabilities,) = session.run([attribute], {"image": np.stack(images)})
    return [
        float(probabilities[i, values.index(row["labels"][attribute])])
        for i, row in enumerate(rows)
    ]


def test_verified_images_reach_the_threshold_of_the_verifier(
    client: httpx.Client,
) -> None:
    found = generate(client, BALANCED | {"verify": 0.95})
    rows = found["images"]
    seen = looked_at(client, rows, "eyes")
    assert min(seen) >= 0.95
    assert seen == pytest.approx([row["verified"]["eyes"] for row in rows])
    assert Counter(row["labels"]["eyes"] for row in rows) == {"red": 30, "blue": 30}

    # Just those are left out that the verifier doubts, and the others are as they were.
    last = rows[-1]["index"]
    everyone = generate(client, BALANCED | {"n": last + 1})["images"]
    doubted = looked_at(client, everyone, "eyes")
    by_index = {row["index"]: row for row in rows}
    taken = Counter[str]()
    for row, probability in zip(everyone, doubted, strict=True):
        eyes = row["labels"]["eyes"]
        expected = probability >= 0.95 and taken[eyes] < 30
        assert (row["index"] in by_index) == expected
        if expected:
            taken[eyes] += 1
            assert by_index[row["index"]]["data"] == row["data"]
            assert by_index[row["index"]]["url"] == row["url"]
    assert found["tried"] < last + 2
    assert found["tried"] > 60


def test_drawn_values_are_verified_only_if_none_is_requested(client: httpx.Client) -> None:
    asked = {"label": {"eyes": "red"}, "n": 4, "seed": 1, "verify": 0.5}
    assert {tuple(row["verified"]) for row in generate(client, asked)["images"]} == {("eyes",)}
    drawn = generate(client, {"n": 4, "seed": 1, "verify": 0.5})
    assert drawn["model"] == "anime-faces"
    assert {tuple(row["verified"]) for row in drawn["images"]} == {("hair", "eyes")}


def test_every_format_holds_the_same_verified_images(client: httpx.Client) -> None:
    body = BALANCED | {"n": 9, "verify": 0.95}
    rows = generate(client, body)["images"]
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(base64.b64decode(row["data"])))) for row in rows]
    )
    array = client.post("/generate?format=npy", json=body)
    assert np.array_equal(np.load(io.BytesIO(array.content)), pixels)
    sheet = client.post("/generate?format=png", json=body)
    assert int(sheet.headers["figment-tried"]) > 9
    with Image.open(io.BytesIO(sheet.content)) as image:
        assert np.array_equal(np.asarray(image)[:64, 64:128], pixels[1])
    one = client.post("/generate?format=png", json=body | {"n": 1})
    assert one.headers["content-location"] == rows[0]["url"]


def test_aborted_verified_set_resumes_with_offset_and_missing_counts(
    client: httpx.Client,
) -> None:
    whole = generate(client, BALANCED | {"verify": 0.95})["images"]
    start = whole[:23]
    missing = [30 - sum(row["index"] % 2 == entry for row in start) for entry in range(2)]
    rest = BALANCED | {"verify": 0.95, "n": missing, "offset": start[-1]["index"] + 1}
    assert start + generate(client, rest)["images"] == whole


def test_count_of_each_label(client: httpx.Client) -> None:
    rows = generate(client, BALANCED | {"n": [7, 2]})["images"]
    assert Counter(row["labels"]["eyes"] for row in rows) == {"red": 7, "blue": 2}
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 6, 8, 10, 12]
    everyone = {row["index"]: row for row in generate(client, BALANCED)["images"]}
    assert all(everyone[row["index"]] == row for row in rows)


def test_unverifiable_label_is_answered_422_with_the_images_found(client: httpx.Client) -> None:
    body = BALANCED | {"verify": 0.9999999}
    answer = client.post("/generate", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["title"] == "Label not seen"
    assert problem["label"] in ("red eyes", "blue eyes")
    assert f"'{problem['label']}' with a probability of 0.9999999" in problem["detail"]
    assert problem["tried"] >= MAX_MISSES
    for url in problem["found"]:
        assert client.get(url).status_code == 200
    streamed = client.post("/generate?format=zip", json=body)
    assert streamed.status_code == 422
    assert streamed.json()["found"] == problem["found"]


def test_set_is_aborted_when_a_label_is_not_verified(server: Server, client: httpx.Client) -> None:
    body = BALANCED | {"verify": 0.9999}
    found = client.post("/generate", json=body).json()["found"]
    assert 0 < len(found) < 60
    with (
        client.stream("POST", "/generate?format=webdataset", json=body) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        assert answer.status_code == 200
        answer.read()
    samples = Figment(server.url).stream(**body)
    urls = []
    with pytest.raises(
        RequestRejected, match=r"never saw 'red eyes' with a probability of 0\.9999"
    ):
        for sample in samples:
            urls.append(sample.url)
    assert urls == found


def test_search_of_a_disconnected_client_stops(server: Server, client: httpx.Client) -> None:
    labels = ["red eyes", "blue eyes"] * 20
    body = {"label": labels, "n": 1000, "seed": 5, "verify": 0.9999999}
    for format_ in ("zip", "json"):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/generate?format={format_}", json=body, timeout=0.15)
        for _ in range(40):
            time.sleep(0.05)
            if not client.get("/info").json()["admitted_images"]:
                break
        assert not client.get("/info").json()["admitted_images"]


def test_models_have_the_hash_of_their_verifier(client: httpx.Client) -> None:
    sha256 = client.get("/models/anime-faces/2").json()["verifier_sha256"]
    file = MODELS / "anime-faces" / "2" / "verifier.onnx"
    assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    body = BALANCED | {"n": 2, "verify": 0.5}
    answer = client.post("/generate?format=npy", json=body)
    assert answer.headers["figment-verifier-sha256"] == sha256
    assert client.get("/models/anime-faces/1").json()["verifier_sha256"] is None
    answer = client.post("/generate", json={"model": "anime-faces-free", "verify": 0.5})
    assert answer.status_code == 422
    assert answer.json()["models"] == ["anime-faces", "digits"]


YES_NO = attribute("Smiling", "-1", "1"), attribute("Hat", "no", "yes")


@pytest.fixture(scope="module")
def smiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models of yes/no attributes beside all kinds of verifiers."""
    folder = tmp_path_factory.mktemp("models")
    good = verifier(("Smiling", 2), ("Hat", 2))
    beside = {
        "good": good,
        "bytes": b"no model",
        "fewer": verifier(("Smiling", 2)),
        "larger": verifier(("Smiling", 3), ("Hat", 2)),
        "wide": verifier(("Smiling", 2), ("Hat", 2), image=(16, 17, 3)),
    }
    for name, content in beside.items():
        path = put(folder, name, 1, model(manifest(*YES_NO, name=name)))
        path.with_name("verifier.onnx").write_bytes(content)
    path = put(folder, "free", 1, model(manifest(name="free")))
    path.with_name("verifier.onnx").write_bytes(good)
    with serve("--models", str(folder)) as running:
        yield running


def test_invalid_verifier_is_rejected_and_its_model_served(smiles: Server) -> None:
    models = smiles.client.get("/models").json()
    assert [each["name"] for each in models["models"]] == [
        "bytes",
        "fewer",
        "free",
        "good",
        "larger",
        "wide",
    ]
    refused = {each["path"]: each["reason"] for each in models["refused"]}
    assert refused.keys() == {
        f"{name}/1/verifier.onnx" for name in ("bytes", "fewer", "free", "larger", "wide")
    }
    assert "cannot load it" in refused["bytes/1/verifier.onnx"]
    assert "its outputs are" in refused["fewer/1/verifier.onnx"]
    assert "its inputs are" in refused["wide/1/verifier.onnx"]
    assert generate(smiles.client, {"model": "fewer", "label": "Smiling"})["images"]


def test_yes_no_attributes_are_verified(smiles: Server) -> None:
    body = {"model": "good", "label": ["Smiling, not Hat", "not Smiling"], "n": 4, "seed": 1}
    rows = generate(smiles.client, body | {"verify": 0.5})["images"]
    assert [row["verified"] for row in rows[:2]] == [{"Smiling": 0.5, "Hat": 0.5}, {"Smiling": 0.5}]
    assert rows[0]["labels"] == {"Smiling": "1", "Hat": "no"}
    assert smiles.client.post("/generate", json=body | {"verify": 0.51}).status_code == 422
