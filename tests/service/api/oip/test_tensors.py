"""Parsing of bodies into tensors, without a server: costs, and any bytes at all."""

from __future__ import annotations

import codecs
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.routes.oip import MAX_BODY_BYTES
from service.errors import MalformedJson, RequestError
from service.formats.oip_schemas import LENGTH
from service.formats.oip_tensors import parse_body, read_inputs
from service.inference.model import Model
from tests.helpers.tensors import (
    binary_body,
    conditions,
)


def many(before: bytes, item: bytes, after: bytes) -> bytes:
    """As long a body as may be."""
    count = (MAX_BODY_BYTES - len(before) - len(after)) // (len(item) + 1)
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
def test_body_with_many_faults_is_rejected_quickly(body: bytes) -> None:
    """The event loop reads it: others wait. Seconds are generous; each fault told took minutes."""
    before = time.process_time()
    with pytest.raises(RequestError):
        parse_body(body, None)
    assert time.process_time() - before < 2


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
def test_any_bytes_are_parsed_or_rejected(model: Model, body: bytes, head: int | None) -> None:
    try:
        found = read_inputs(parse_body(body, head), model.manifest, model.version)
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
def test_binary_rows_are_read_at_any_offset(
    model: Model, latent: list[list[float]], blanks: int
) -> None:
    given_ = np.array(latent, np.float32)
    body, head = binary_body(latent=given_, condition=conditions(len(latent)))
    length = int(head[LENGTH])
    shifted = body[:length] + b" " * blanks + body[length:]
    found = read_inputs(parse_body(shifted, length + blanks), model.manifest, model.version)
    assert np.array_equal(found.latent, given_)
    assert np.array_equal(found.condition, conditions(len(latent)))


def test_byte_order_mark_is_ignored() -> None:
    body, head = binary_body(latent=np.zeros((1, 8), np.float32))
    marked = parse_body(codecs.BOM_UTF8 + body, int(head[LENGTH]) + len(codecs.BOM_UTF8))
    assert marked == parse_body(body, int(head[LENGTH]))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encoding_is_named(encoding: str) -> None:
    with pytest.raises(MalformedJson, match="UTF-8"):
        parse_body('{"inputs": [], "id": "é"}'.encode(encoding), None)
