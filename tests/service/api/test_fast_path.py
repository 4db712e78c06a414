"""Requests on the fast path while the queue is full."""

from __future__ import annotations

from typing import NoReturn

import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.api.fast_path import FastPath
from service.api.routes import generate
from service.errors import QueueFull


def full() -> NoReturn:
    raise QueueFull("queue full", retry_after=3)


@pytest.mark.anyio
async def test_request_is_rejected_before_its_body_is_read_if_the_queue_is_full() -> None:
    sent: list[Message] = []

    async def receive() -> NoReturn:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": []}
    await FastPath(FastAPI(), generate.router.routes, full)(scope, receive, send)
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"3") in sent[0]["headers"]
