"""Answers of `/v2/models/{name}/infer` to invalid requests."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from service.api.routes.oip import MAX_BODY_BYTES
from service.formats.oip_schemas import LENGTH
from tests.helpers.responses import problem
from tests.helpers.server import Server
from tests.helpers.tensors import (
    FACES,
    PLAIN,
    binary_body,
    conditions,
    plain,
    rows,
)

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is not JSON"),
        (b"{", 400, "the body is not JSON"),
        (b"\x80", 400, "the body is not UTF-8"),
        (b"[" * 100_000, 400, "recursion limit"),
        (b'{"inputs": [{"shape": [%b]}]}' % (b"9" * 10_000), 400, "number out of range"),
        (b"[]", 422, "body: "),
        ({}, 422, "inputs: Field required"),
        ({"inputs": []}, 422, "inputs: List should have at least 1 item"),
        ({"inputs": [{}]}, 422, "inputs.0.name: Field required"),
        ({"inputs": plain()["inputs"] * 2}, 422, "the request names latent, latent"),
        (plain(name="z"), 422, "the request names z"),
        (plain(name="z" * 100_000), 422, "the request names zzz"),
        (
            plain() | {"outputs": [{"name": "picture"}]},
            422,
            "outputs: model 'plain' version 1 has",
        ),
        (plain() | {"outputs": [{"name": "image"}] * 2}, 422, "names image, image"),
        (
            plain() | {"outputs": [{"name": "image", "parameters": {"classification": 3}}]},
            422,
            "'classification' is not a known parameter",
        ),
        (plain() | {"id": 5}, 422, "id: "),
        (
            plain() | {"parameters": {"binary_data_output": "yes"}},
            422,
            "binary_data_output: ",
        ),
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
        (
            plain(parameters={"binary_data_size": 64}),
            422,
            "has both data and a binary_data_size",
        ),
        (plain(parameters={"binary_data_size": 64}, data=...), 422, "0 bytes are left"),
        (
            plain() | {"outputs": [{"name": "image", "parameters": {"shared_memory_region": "x"}}]},
            422,
            "'shared_memory_region' is not a known parameter",
        ),
    ],
)
def test_invalid_requests(small: Server, body: Any, status: int, said: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = problem(small.client.post(PLAIN, content=content), status)
    assert said in found["detail"]
    assert found["error"] == found["detail"]


def test_error_describes_the_tensors_of_the_model(small: Server) -> None:
    told = problem(small.client.post(FACES, json=plain()), 422)
    assert told["inputs"][1] == {"name": "condition", "datatype": "FP32", "shape": [-1, 2]}
    assert told["outputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}]


def test_row_counts_must_be_equal(small: Server) -> None:
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
        (None, 400, "the body is not UTF-8"),
    ],
)
def test_invalid_json_lengths(small: Server, length: str | None, status: int, said: str) -> None:
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
def test_invalid_binary_data(small: Server, change: Any, said: str) -> None:
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
def test_unsupported_media_types(small: Server, headers: dict[str, str], status: int) -> None:
    answer = small.client.post(PLAIN, content=json.dumps(plain()), headers=headers)
    problem(answer, status)
    assert answer.headers.get("Accept-Encoding") == ("identity" if status == 415 else None)


def test_a_body_that_is_too_large(small: Server) -> None:
    for content in (b" " * (MAX_BODY_BYTES + 1), iter([b" " * MAX_BODY_BYTES, b" "])):
        answer = small.client.post(PLAIN, content=content)
        assert problem(answer, 413)["error"] == f"the body may have at most {MAX_BODY_BYTES} bytes"
