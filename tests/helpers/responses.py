"""Answers of the service: problems, pixels and metrics."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an error, whose shape is the same for all of them (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    assert body["type"].startswith("urn:figment:")
    assert "Traceback" not in answer.text
    assert len(answer.text) < 10_000
    return body


def pixels(content: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """Sum of all samples of a metric with these labels."""
    exposition = client.get("/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
