"""``/v2``, the Open Inference Protocol: with Triton's own client, and byte by byte."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tritonclient.utils import InferenceServerException

from service.api.oip.routes import MAX_BODY_BYTES as MAX_BODY
from service.api.oip.schemas import LENGTH
from service.api.oip.tensors import encode_json, parse_body, tensor_images
from service.core import latents
from service.errors import RequestError
from service.inference.model import Model, load_model
from service.inference.session import SessionFactory
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.server import MODELS, ROOT, Server, environment, serve
from tests.service.api.test_bad_requests import problem
from tests.service.observability.test_metrics_logs_traces import metric

Floats = npt.NDArray[np.float32]
FACES = "/v2/models/faces/infer"
PLAIN = "/v2/models/plain/infer"
EYES = manifest(attribute("eyes", "red", "blue"), name="faces")
"""Latents of 8 numbers, conditions of 2, images of 16x16x3."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    for version in (1, 2):
        onnx_files.put(folder, "faces", version, onnx_files.model(EYES))
    return folder


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[Server]:
    options = ("--max-images", "64", "--max-wait", "30")
    with serve("--models", str(models), *options) as running:
        yield running


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return load_model(models / "faces" / "2" / "model.onnx", SessionFactory("cpu"))


@pytest.fixture
def client(small: Server) -> Iterator[triton.InferenceServerClient]:
    with client_of(small) as found:
        yield found


def client_of(server: Server) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(server.url.removeprefix("http://"))


def tensor(name: str, rows: Floats, *, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput(name, list(rows.shape), "FP32")
    found.set_data_from_numpy(rows, binary_data=binary)
    return found


def rows(count: int, size: int, seed: int = 0) -> Floats:
    return latents.latents(seed, 0, count, size)


def conditions(count: int) -> Floats:
    return np.eye(2, dtype=np.float32)[np.arange(count) % 2]


# With Triton's client.


def test_what_is_there(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("faces") and client.is_model_ready("faces", "1")
    assert not client.is_model_ready("faces", "3") and not client.is_model_ready("nobody")
    latent = {"name": "latent", "datatype": "FP32", "shape": [-1, 8]}
    condition = {"name": "condition", "datatype": "FP32", "shape": [-1, 2]}
    image = {"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}
    faces = {
        "name": "faces",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [latent, condition],
        "outputs": [image],
    }
    assert client.get_model_metadata("faces") == faces
    assert client.get_model_metadata("faces", "1") == faces
    assert client.get_model_metadata("plain")["inputs"] == [latent]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_images_of_rows(
    client: triton.InferenceServerClient, model: Model, sent: bool, taken: bool
) -> None:
    latent, condition = rows(3, 8), conditions(3)
    inputs = [tensor("condition", condition, binary=sent), tensor("latent", latent, binary=sent)]
    output = triton.InferRequestedOutput("image", binary_data=taken)
    answer = client.infer("faces", inputs, outputs=[output], request_id="mine")
    assert np.array_equal(answer.as_numpy("image"), model.generate(latent, condition))
    told = answer.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("mine", "faces", "2")
    assert ("data" in told["outputs"][0]) == (not taken)


def test_without_a_word_on_outputs_all_come_in_binary(
    client: triton.InferenceServerClient, model: Model
) -> None:
    latent, condition = rows(2, 8), conditions(2)
    mixed = [tensor("latent", latent), tensor("condition", condition, binary=False)]
    answer = client.infer("faces", mixed, model_version="1", priority=1, timeout=1000)
    assert np.array_equal(answer.as_numpy("image"), model.generate(latent, condition))
    assert "id" not in answer.get_response()
    assert answer.get_response()["model_version"] == "1"


def test_an_unconditional_model(client: triton.InferenceServerClient) -> None:
    answer = client.infer("plain", [tensor("latent", rows(64, 8))])
    assert answer.as_numpy("image").shape == (64, 16, 16, 3)
    with pytest.raises(InferenceServerException, match="the request names latent, condition"):
        client.infer("plain", [tensor("latent", rows(1, 8)), tensor("condition", conditions(1))])


def test_errors_reach_the_client(client: triton.InferenceServerClient) -> None:
    latent = tensor("latent", rows(2, 8))
    with pytest.raises(InferenceServerException, match=r"no model 'nobody'; there are") as raised:
        client.infer("nobody", [latent])
    assert raised.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"no version 3; there are: 1, 2") as raised:
        client.infer("faces", [latent], model_version="3")
    with pytest.raises(InferenceServerException, match="65 images do not fit") as raised:
        client.infer("plain", [tensor("latent", rows(65, 8))])
    assert raised.value.status() == "422"
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="send it uncompressed") as raised:
            client.infer("plain", [latent], request_compression_algorithm=algorithm)
        assert raised.value.status() == "415"
    latent.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="there is no shared memory"):
        client.infer("plain", [latent])
    with pytest.raises(InferenceServerException, match="GET /v2/models/plain/config: Not Found"):
        client.get_model_config("plain")


def test_a_key_is_sent_as_a_header(models: Path) -> None:
    keys = ("--api-keys", "me:figment_for-triton")
    with serve("--models", str(models), *keys) as guarded, client_of(guarded) as client:
        assert client.is_server_live() and client.is_server_ready()
        inputs = [tensor("latent", rows(1, 8))]
        with pytest.raises(InferenceServerException, match="key") as raised:
            client.infer("plain", inputs)
        assert raised.value.status() == "401"
        key = {"Authorization": "Bearer figment_for-triton"}
        assert client.infer("plain", inputs, headers=key).as_numpy("image") is not None
        assert client.is_model_ready("plain", headers=key)


# Addresses.


def test_the_tensors_of_an_address_give_its_pixels(server: Server) -> None:
    """From what ``docs/determinism.md`` promises, with the shipped model of faces."""
    asked = {"label": "red eyes, black hair", "n": 20, "seed": 5, "offset": 7, "version": 2}
    told = server.client.post("/generate/conditional", json={"model": "anime-faces", **asked})
    expected = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["data"]))))
        for image in told.json()["images"]
    ]
    faces = load_model(MODELS / "anime-faces" / "2" / "model.onnx", SessionFactory("cpu"))
    latent = latents.latents(5, 7, 20, faces.manifest.latent_size)
    choice = faces.vocabulary.parse("red eyes, black hair")
    values = np.array([[choice[0], choice[1]]] * 20)
    condition = faces.vocabulary.condition(values)
    inputs = [tensor("latent", latent), tensor("condition", condition)]
    with client_of(server) as client:
        images = client.infer("anime-faces", inputs, "2").as_numpy("image")
    assert np.array_equal(images, expected)


def test_an_image_is_the_same_whatever_it_is_computed_with(server: Server) -> None:
    faces = "/v2/models/anime-faces/infer"
    latent = rows(48, 100)
    condition = np.zeros((48, 22), np.float32)

    def images(first: int, last: int) -> bytes:
        some = binary_body(latent=latent[first:last], condition=condition[first:last])
        answer = server.client.post(faces, content=some[0], headers=some[1])
        assert answer.status_code == 200, answer.text
        return answer.content[int(answer.headers[LENGTH]) :]

    whole = images(0, 48)
    size = len(whole) // 48
    with ThreadPoolExecutor(8) as pool:
        spans = [(first, first + n) for n in (1, 3, 8) for first in range(0, 48, n)]
        parts = list(pool.map(lambda span: images(*span), spans))
    for (first, last), part in zip(spans, parts, strict=True):
        assert part == whole[first * size : last * size]


# Byte by byte.


def binary_body(**tensors: Floats) -> tuple[bytes, dict[str, str]]:
    inputs = [
        {
            "name": name,
            "shape": list(found.shape),
            "datatype": "FP32",
            "parameters": {"binary_data_size": found.nbytes},
        }
        for name, found in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join([head, *(found.tobytes() for found in tensors.values())])
    return body, {LENGTH: str(len(head))}


def plain(**changes: Any) -> dict[str, Any]:
    """A request for two images of the unconditional model; ``changes`` to its one input."""
    one: dict[str, Any] = {
        "name": "latent",
        "shape": [2, 8],
        "datatype": "FP32",
        "data": [0.5] * 16,
    }
    one |= changes
    return {"inputs": [{key: value for key, value in one.items() if value is not ...}]}


@pytest.mark.parametrize(
    "data",
    [
        [0.5] * 16,
        [[0.5] * 8, [0.5] * 8],
        [0, 1, -2, 1e-50, 3.25, 1e38, *[0] * 10],
        [[1, 2, 3, 4, 5, 6, 7, 8], [0.5] * 8],
    ],
)
def test_numbers(small: Server, model: Model, data: list[Any]) -> None:
    answer = small.client.post(PLAIN, json=plain(data=data))
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"queue;dur=.*, inference;dur=.*", answer.headers["Server-Timing"])
    (output,) = answer.json()["outputs"]
    body, head = binary_body(latent=np.array(data, np.float32).reshape(2, 8))
    binary = small.client.post(PLAIN, content=body, headers=head)
    assert binary.headers["Content-Type"] == "application/octet-stream"
    assert bytes(output["data"]) == binary.content[int(binary.headers[LENGTH]) :]
    assert output["shape"] == [2, 16, 16, 3] and output["datatype"] == "UINT8"


def test_what_clients_send_besides_changes_nothing(small: Server) -> None:
    """MLServer's sends all its members, and a content type; Triton's a priority."""
    given_ = {"content_type": "np", "binary_data_size": None}
    asked = plain(parameters=given_) | {"id": None, "outputs": None, "parameters": None}
    answers = [asked, asked | {"parameters": {"priority": 1}, "model_name": "plain"}, plain()]
    first, *others = (small.client.post(PLAIN, json=each).json() for each in answers)
    assert "outputs" in first and "id" not in first
    assert all(each == first for each in others)


def test_every_level_is_written_as_it_is() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert json.loads(b"[%b]" % encode_json(None, levels)) == list(range(256))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is not JSON"),
        (b"{", 400, "the body is not JSON"),
        (b"\x80", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "recursion limit"),
        (b'{"inputs": [{"shape": [%b]}]}' % (b"9" * 10_000), 400, "number out of range"),
        (b"[]", 422, "body: "),
        ({}, 422, "inputs: Field required"),
        ({"inputs": []}, 422, "has latent, each once, and the request names none"),
        ({"inputs": [{}]}, 422, "inputs.0.name: Field required"),
        ({"inputs": plain()["inputs"] * 2}, 422, "the request names latent, latent"),
        (plain(name="z"), 422, "the request names z"),
        (plain(name="z" * 100_000), 422, "the request names zzz"),
        (plain() | {"outputs": [{"name": "picture"}]}, 422, "outputs: model 'plain' version 1 has"),
        (plain() | {"outputs": [{"name": "image"}] * 2}, 422, "names image, image"),
        (
            plain() | {"outputs": [{"name": "image", "parameters": {"classification": 3}}]},
            422,
            "'classification' is not a known parameter",
        ),
        (plain() | {"id": 5}, 422, "id: "),
        (plain() | {"parameters": {"binary_data_output": "yes"}}, 422, "binary_data_output: "),
        (plain(datatype="FP64"), 422, "inputs.0.datatype: Input should be 'FP32'"),
        (plain(datatype=32), 422, "inputs.0.datatype: "),
        (plain(shape=[2, 7]), 422, "its shape is [2, 7], and must be [N, 8]"),
        (plain(shape=[16]), 422, "its shape is [16], and must be [N, 8]"),
        (plain(shape=[1, 2, 8]), 422, "must be [N, 8]"),
        (plain(shape=[]), 422, "must be [N, 8]"),
        (plain(shape=[1] * 9), 422, "inputs.0.shape: "),
        (plain(shape=[-1, 8]), 422, "inputs.0.shape.0: "),
        (plain(shape=[2.5, 8]), 422, "inputs.0.shape.0: "),
        (plain(shape=["2", 8]), 422, "inputs.0.shape.0: "),
        (plain(shape=[True, 8]), 422, "inputs.0.shape.0: "),
        (plain(shape=[10**30, 8]), 422, "inputs.0.shape.0: "),
        (plain(shape=[2**63 - 1, 8]), 422, "its data has 16 numbers"),
        (plain(shape=[3, 8]), 422, "its data has 16 numbers"),
        (plain(shape=[0, 8], data=[]), 422, "there are 0 rows of latent"),
        (plain(shape=[65, 8], data=[0.5] * 65 * 8), 422, "at most 64"),
        (plain(data=...), 422, "latent: has neither data nor a binary_data_size"),
        (plain(data=None), 422, "latent: has neither data"),
        (plain(data="0.5"), 422, "inputs.0.data: "),
        (plain(data={"0": 0.5}), 422, "inputs.0.data: "),
        (plain(data=["0.5"] * 16), 422, "data must be numbers"),
        (plain(data=[0.5] * 15 + [True]), 422, "data must be numbers"),
        (plain(data=[0.5] * 15 + [None]), 422, "data must be numbers"),
        (plain(data=[0.5] * 15 + [{}]), 422, "data must be numbers"),
        (plain(data=[0.5] * 15 + ["x" * 100_000]), 422, "data must be numbers"),
        (plain(data=[0.5] * 15 + [[0.5]]), 422, "data must be numbers"),
        (plain(data=[[0.5] * 8, [0.5] * 7]), 422, "its rows must all have 8 numbers"),
        (plain(data=[[0.5] * 8, 0.5]), 422, "its rows must all have 8 numbers"),
        (plain(data=[[[0.5]] * 8, [0.5] * 8]), 422, "data must be numbers"),
        (plain(data=[[], []]), 422, "its rows must all have 8 numbers"),
        (plain(data=[0.5] * 15 + [1e39]), 422, "must be finite"),
        (plain(data=[0.5] * 15 + [10**400]), 422, "must be finite"),
        (json.dumps(plain(data=[0.5] * 15 + [np.nan])).encode(), 422, "must be finite"),
        (json.dumps(plain(data=[0.5] * 15 + [-np.inf])).encode(), 422, "must be finite"),
        (plain(parameters={"binary_data_size": 64}), 422, "has both data and a binary_data_size"),
        (plain(parameters={"binary_data_size": 64}, data=...), 422, "0 bytes are left"),
        (
            plain() | {"outputs": [{"name": "image", "parameters": {"shared_memory_region": "x"}}]},
            422,
            "'shared_memory_region' is not a known parameter",
        ),
    ],
)
def test_requests_that_are_wrong(small: Server, body: Any, status: int, said: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = problem(small.client.post(PLAIN, content=content), status)
    assert said in found["detail"]
    assert found["error"] == found["detail"]


def test_what_the_model_takes_is_told(small: Server) -> None:
    told = problem(small.client.post(FACES, json=plain()), 422)
    assert told["inputs"][1] == {"name": "condition", "datatype": "FP32", "shape": [-1, 2]}
    assert told["outputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}]


def test_as_many_conditions_as_latents(small: Server) -> None:
    for latents_, labels in ((2, 3), (1, 0), (0, 0)):
        body, head = binary_body(latent=rows(3, 8)[:latents_], condition=conditions(3)[:labels])
        answer = small.client.post(FACES, content=body, headers=head)
        assert "one row for each image" in problem(answer, 422)["detail"]


@pytest.mark.parametrize(
    ("length", "status", "said"),
    [
        ("0", 422, f"{LENGTH}: is 0, and must be the length of the JSON"),
        ("-1", 422, f"{LENGTH}: is -1, and must be"),
        ("many", 422, f"{LENGTH}: is many, and must be"),
        ("1_0", 422, f"{LENGTH}: is 1_0, and must be"),
        ("1.5", 422, f"{LENGTH}: is 1.5, and must be"),
        ("", 422, f"{LENGTH}: is , and must be"),
        ("9" * 5000, 422, f"{LENGTH}: is 99999999999999999999, and must be"),
        ("99999", 422, f"{LENGTH} is 99999, and the body has "),
        ("5", 400, "the first 5 bytes of the body are not JSON"),
        (None, 400, "the body is not JSON"),
    ],
)
def test_lengths_that_are_wrong(small: Server, length: str | None, status: int, said: str) -> None:
    body, _ = binary_body(latent=rows(2, 8))
    head = {} if length is None else {LENGTH: length}
    answer = small.client.post(PLAIN, content=body, headers=head)
    assert said in problem(answer, status)["detail"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body + b"\0", "65 bytes follow the JSON, which declares 64"),
        (lambda body: body[:-1], "binary_data_size is 64, and 63 bytes are left"),
        (lambda body: body.replace(b": 64}", b": 63}"), "63 bytes are not a whole number of FP32"),
        (lambda body: body.replace(b": 64}", b": 60}"), "its data has 15 numbers"),
        (lambda body: body[:-4] + b"\0\0\xc0\x7f", "must be finite"),
        (lambda body: body[:-4] + b"\0\0\x80\xff", "must be finite"),
    ],
)
def test_bytes_that_are_wrong(small: Server, change: Any, said: str) -> None:
    body, head = binary_body(latent=rows(2, 8))
    answer = small.client.post(PLAIN, content=change(body), headers=head)
    assert said in problem(answer, 422)["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 422),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 422),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_bodies_that_are_none_of_ours(small: Server, headers: dict[str, str], status: int) -> None:
    answer = small.client.post(PLAIN, content=json.dumps(plain()), headers=headers)
    problem(answer, status)
    assert answer.headers.get("Accept-Encoding") == ("identity" if status == 415 else None)


def test_a_body_that_is_too_large(small: Server) -> None:
    for content in (b" " * (MAX_BODY + 1), iter([b" " * MAX_BODY, b" "])):
        answer = small.client.post(PLAIN, content=content)
        assert problem(answer, 413)["error"] == f"the body may have at most {MAX_BODY} bytes"


def test_as_many_rows_as_images_in_an_answer_fit_into_a_body(server: Server) -> None:
    """1,024 rows of the shipped models, as JSON has them at their longest."""
    latent = np.full((1024, 100), -1.2345679e-10, np.float32)
    condition = np.full((1024, 22), 0.33333334, np.float32)
    inputs = [tensor("latent", latent, binary=False), tensor("condition", condition, binary=False)]
    body, _ = triton.InferenceServerClient.generate_request_body(inputs)
    assert len(body) < MAX_BODY
    in_json = tensor("latent", np.full((1024, 170), -1.2345679e-10, np.float32), binary=False)
    body, _ = triton.InferenceServerClient.generate_request_body([in_json])
    assert len(body) < MAX_BODY
    binary = tensor("latent", np.zeros((1024, 1024), np.float32))
    body, _ = triton.InferenceServerClient.generate_request_body([binary])
    assert len(body) < MAX_BODY


def many(before: bytes, item: bytes, after: bytes) -> bytes:
    """As long a body as may be."""
    count = (MAX_BODY - len(before) - len(after)) // (len(item) + 1)
    return before + b",".join([item] * count) + after


@pytest.mark.parametrize(
    "body",
    [
        many(b'{"inputs":[', b"{}", b"]}"),
        many(b'{"inputs":[', b"0", b"]}"),
        many(b'{"inputs":[],"outputs":[', b"0", b"]}"),
        many(b'{"inputs":[],"outputs":[{"name":"image","parameters":{', b'"%d":0', b"}}]}").replace(
            b"%d", b"x"
        ),
        many(b"[", b"[]", b"]"),
        many(
            b'{"inputs":[{"name":"latent","datatype":"FP32","shape":[1,8],"data":[', b"[]", b"]}]}"
        ),
    ],
    ids=["mappings", "numbers", "outputs", "parameters", "lists", "rows"],
)
def test_a_body_of_many_faults_is_refused_soon(body: bytes) -> None:
    """The event loop reads it: others wait. Seconds are generous; each fault told took minutes."""
    before = time.process_time()
    with pytest.raises(RequestError):
        parse_body(body, None)
    assert time.process_time() - before < 2


def test_an_answer_too_long_for_json_is_refused(server: Server) -> None:
    latent = np.zeros((86, 100), np.float32)
    condition = np.zeros((86, 22), np.float32)
    asked: dict[str, Any] = {
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": rows.tolist()}
            for name, rows in (("latent", latent), ("condition", condition))
        ]
    }
    path = "/v2/models/anime-faces/infer"
    assert "set binary_data" in problem(server.client.post(path, json=asked), 422)["error"]
    binary = [{"name": "image", "parameters": {"binary_data": True}}]
    assert server.client.post(path, json=asked | {"outputs": binary}).status_code == 200


def test_a_version_by_its_alias(small: Server) -> None:
    answer = small.client.get("/v2/models/faces/versions/latest")
    assert answer.json()["name"] == "faces"


def test_busy(models: Path) -> None:
    """Rows wait in the same queue as all images, and are refused in the same way."""
    options = ("--max-queue", "256", "--max-images", "256", "--max-wait", "0.000001")
    with serve("--models", str(models), *options) as server:
        body, head = binary_body(latent=rows(256, 8))
        ended = threading.Event()

        def ask() -> set[int]:
            with httpx.Client(base_url=server.url) as mine:
                found = set()
                while not ended.is_set():
                    answer = mine.post(PLAIN, content=body, headers=head)
                    found.add(answer.status_code)
                    if answer.status_code == 429:
                        ended.set()
                        assert int(answer.headers["Retry-After"]) >= 1
                        told = problem(answer, 429)
                        assert told["error"].startswith("no room for 256 images")
                return found

        with ThreadPoolExecutor(8) as pool:
            timer = threading.Timer(30, ended.set)
            timer.start()
            seen = set().union(*(each.result() for each in [pool.submit(ask) for _ in range(8)]))
            timer.cancel()
        assert seen == {200, 429}


def test_it_is_counted(small: Server) -> None:
    made = {"model": "plain", "version": "1", "format": "tensor"}
    before = metric(small, "figment_images_total", **made)
    assert small.client.post(PLAIN, json=plain()).status_code == 200
    assert metric(small, "figment_images_total", **made) == before + 2
    route = {"method": "POST", "route": "/v2/models/{name}/infer", "status": "200"}
    assert metric(small, "figment_http_requests_total", **route) >= 1


# Any bytes at all.

bodies = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda head, size, data: (
            json.dumps(
                {
                    "inputs": [
                        head | {"name": "latent", "parameters": {"binary_data_size": size}},
                        {"name": "condition", "shape": [1, 2], "datatype": "FP32", "data": [0, 1]},
                    ]
                }
            ).encode()
            + data
        ),
        st.fixed_dictionaries(
            {
                "shape": st.lists(st.sampled_from([0, 1, 2, 8, 2**40]), min_size=1, max_size=3),
                "datatype": st.sampled_from(["FP32", "FP64"]),
            }
        ),
        st.integers(0, 100),
        st.binary(max_size=100),
    ),
)


@settings(max_examples=300, deadline=None)
@given(body=bodies, head=st.none() | st.integers(1, 400))
def test_any_bytes_are_rows_or_refused(model: Model, body: bytes, head: int | None) -> None:
    try:
        found = tensor_images(parse_body(body, head), model)
    except RequestError as error:
        assert 400 <= error.status < 500
        assert len(str(error)) < 3000
    else:
        assert found.latent.shape == (1, 8) and found.condition.shape == (1, 2)


@settings(max_examples=100, deadline=None)
@given(
    latent=st.lists(
        st.lists(st.floats(-10, 10, width=32), min_size=8, max_size=8), min_size=1, max_size=4
    ),
    blanks=st.integers(0, 3),
)
def test_rows_come_through_at_any_offset(
    model: Model, latent: list[list[float]], blanks: int
) -> None:
    given_ = np.array(latent, np.float32)
    body, head = binary_body(latent=given_, condition=conditions(len(latent)))
    length = int(head[LENGTH])
    shifted = body[:length] + b" " * blanks + body[length:]
    found = tensor_images(parse_body(shifted, length + blanks), model)
    assert np.array_equal(found.latent, given_)
    assert np.array_equal(found.condition, conditions(len(latent)))


# The page.

PAGE = (ROOT / "docs" / "protocol.md").read_text()


def test_the_page_runs(server: Server, tmp_path: Path) -> None:
    address = server.url.removeprefix("http://")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    run = [sys.executable, "-c", program.replace("localhost:8000", address)]
    done = subprocess.run(
        run,
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == re.findall(r"# prints (.*)", PAGE)[0]
    with Image.open(tmp_path / "red-eyes.png") as image:
        assert image.size == (64, 64)
    (command,) = (command for command in commands if command.startswith("curl"))
    bash = ["bash", "-ec", command.replace("localhost:8000", address)]
    answer = json.loads(subprocess.run(bash, check=True, capture_output=True).stdout)
    assert answer["outputs"][0]["shape"] == [1, 28, 28, 1]
