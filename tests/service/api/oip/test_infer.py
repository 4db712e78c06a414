"""Answers of `/v2/models/{name}/infer` to valid requests, over a real socket."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from service.api.routes.oip import MAX_BODY_BYTES
from service.formats.oip_schemas import LENGTH
from service.formats.oip_tensors import encode_json
from service.inference.model import Model
from tests.helpers.responses import metric, problem
from tests.helpers.server import Server, serve
from tests.helpers.tensors import (
    PLAIN,
    binary_body,
    plain,
    rows,
    tensor,
)

pytestmark = pytest.mark.server


def test_image_does_not_depend_on_the_rest_of_its_batch(server: Server) -> None:
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


@pytest.mark.parametrize(
    "data",
    [
        [0.5] * 16,
        [[0.5] * 8, [0.5] * 8],
        [0, 1, -2, 1e-50, 3.25, 1e38, *[0] * 10],
        [[1, 2, 3, 4, 5, 6, 7, 8], [0.5] * 8],
    ],
)
def test_json_and_binary_outputs_are_equal(small: Server, model: Model, data: list[Any]) -> None:
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


def test_other_members_of_requests_are_ignored(small: Server) -> None:
    """MLServer's sends all its members, and a content type; Triton's a priority."""
    given_ = {"content_type": "np", "binary_data_size": None}
    asked = plain(parameters=given_) | {"id": None, "outputs": None, "parameters": None}
    answers = [
        asked,
        asked | {"parameters": {"priority": 1}, "model_name": "plain"},
        plain(),
    ]
    first, *others = (small.client.post(PLAIN, json=each).json() for each in answers)
    assert "outputs" in first and "id" not in first
    assert all(each == first for each in others)


def test_every_level_is_encoded_in_json() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert json.loads(b"[%b]" % encode_json(None, levels)) == list(range(256))  # type: ignore[arg-type]


def test_max_images_rows_fit_into_a_body(server: Server) -> None:
    """1,024 rows of the shipped models, as JSON has them at their longest."""
    latent = np.full((1024, 100), -1.2345679e-10, np.float32)
    condition = np.full((1024, 22), 0.33333334, np.float32)
    inputs = [tensor("latent", latent, binary=False), tensor("condition", condition, binary=False)]
    body, _ = triton.InferenceServerClient.generate_request_body(inputs)
    assert len(body) < MAX_BODY_BYTES
    in_json = tensor("latent", np.full((1024, 170), -1.2345679e-10, np.float32), binary=False)
    body, _ = triton.InferenceServerClient.generate_request_body([in_json])
    assert len(body) < MAX_BODY_BYTES
    binary = tensor("latent", np.zeros((1024, 1024), np.float32))
    body, _ = triton.InferenceServerClient.generate_request_body([binary])
    assert len(body) < MAX_BODY_BYTES


def test_answer_too_long_for_json_is_rejected(server: Server) -> None:
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


def test_full_queue_rejects_tensors(models: Path) -> None:
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
                        assert told["error"].startswith("queue full: ")
                return found

        with ThreadPoolExecutor(8) as pool:
            timer = threading.Timer(30, ended.set)
            timer.start()
            seen = set().union(*(each.result() for each in [pool.submit(ask) for _ in range(8)]))
            timer.cancel()
        assert seen == {200, 429}


def test_tensor_images_are_counted(small: Server) -> None:
    made = {"model": "plain", "version": "1", "format": "tensor"}
    before = metric(small.client, "figment_images_total", **made)
    assert small.client.post(PLAIN, json=plain()).status_code == 200
    assert metric(small.client, "figment_images_total", **made) == before + 2
    route = {"method": "POST", "route": "/v2/models/{name}/infer", "status": "200"}
    assert metric(small.client, "figment_http_requests_total", **route) >= 1
