"""Requests of the Open Inference Protocol, by Triton's client and byte by byte."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.http as triton

from service.core import latents
from service.formats.oip_schemas import LENGTH
from tests.helpers.server import Server

Floats = npt.NDArray[np.float32]
FACES = "/v2/models/faces/infer"
PLAIN = "/v2/models/plain/infer"


def triton_client(server: Server) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(server.url.removeprefix("http://"))


def tensor(name: str, rows: Floats, *, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput(name, list(rows.shape), "FP32")
    found.set_data_from_numpy(rows, binary_data=binary)
    return found


def rows(count: int, size: int, seed: int = 0) -> Floats:
    return latents.latents(seed, 0, count, size)


def conditions(count: int) -> Floats:
    return np.eye(2, dtype=np.float32)[np.arange(count) % 2]


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
