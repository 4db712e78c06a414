"""Reservations for rejected requests, and how their retries are recognised."""

from __future__ import annotations

import itertools
from typing import Annotated, NamedTuple

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query, Request, Response
from pydantic import BaseModel

from service.api.auth.access import AccessControl
from service.api.fast_path import FastPath, FastRoute, FormatQuery
from service.api.middleware.gateway import Gateway
from service.engine.admission import (
    GRACE_SECONDS,
    HOLD_SECONDS,
    MAX_RETRY_AFTER,
    REQUEST_KEY,
    RetryReservations,
)
from service.settings import Settings


def test_reservation_is_redeemed_once_when_due_by_the_same_request() -> None:
    reservations = RetryReservations()
    assert reservations.add(1, images=16, now=0, wait=5) == 5
    assert not reservations.redeem(1, now=4.9)
    assert not reservations.redeem(2, now=5)
    assert reservations.redeem(1, now=5)
    assert not reservations.redeem(1, now=5)
    assert not reservations.any_due(5)
    assert reservations.images == 0


def test_reservation_expires_after_its_grace() -> None:
    reservations = RetryReservations()
    for request in (1, 2):
        reservations.add(request, images=1, now=0, wait=5)
    assert reservations.redeem(1, now=5 + GRACE_SECONDS - 0.1)
    assert not reservations.redeem(2, now=5 + GRACE_SECONDS)
    assert not reservations.any_due(5 + GRACE_SECONDS)


def test_retrying_early_adds_no_reservation() -> None:
    reservations = RetryReservations()
    waits = [reservations.add(1, images=16, now=now, wait=8) for now in (0, 1, 2, 7.5)]
    assert waits == [8, 7, 6, 0.5]
    assert reservations.images == 16
    assert reservations.redeem(1, now=8)
    assert not reservations.redeem(1, now=8.5)


def test_room_is_kept_only_for_reservations_due_soon() -> None:
    reservations = RetryReservations()
    assert reservations.add(1, images=16, now=0, wait=500) == MAX_RETRY_AFTER
    assert not reservations.any_due(MAX_RETRY_AFTER - HOLD_SECONDS - 0.1)
    assert reservations.any_due(MAX_RETRY_AFTER - HOLD_SECONDS)
    assert reservations.any_due(MAX_RETRY_AFTER + GRACE_SECONDS - 0.1)
    assert not reservations.any_due(MAX_RETRY_AFTER + GRACE_SECONDS)
    reservations.add(2, images=16, now=20, wait=5)
    reservations.cancel(2)  # admitted before it was due
    assert not reservations.any_due(25)


def test_reserved_images_are_scaled_by_the_return_rate() -> None:
    for share in (0, 0.25, 1):
        reservations = RetryReservations()
        for number in range(1000):
            now = number / 10
            reservations.add(number, images=16, now=now, wait=1)
            if number % 100 < 100 * share:
                assert reservations.redeem(number, now=now + 1)
        reservations.redeem(-1, now=200)
        # Result: ten more count by the share that is likely to return.
        for number in range(10):
            reservations.add(number, images=16, now=200, wait=5)
        assert abs(reservations.images - share * 160) < 40
        reservations.redeem(-1, now=300)
        assert reservations.images == 0


class Body(BaseModel):
    n: int


class Call(NamedTuple):
    host: str = "10.0.0.1"
    key: str = "one"
    path: str = "/ask"
    n: int = 3


router = APIRouter(route_class=FastRoute)


@router.post("/ask")
async def ask(body: Body, query: Annotated[FormatQuery, Query()], request: Request) -> Response:
    return Response(str(REQUEST_KEY.get()))


@pytest.mark.anyio
async def test_equal_requests_of_one_client_have_the_same_key() -> None:
    """The key depends on the client and on every field that determines the images."""
    app = FastAPI()
    app.include_router(router)
    settings = Settings()
    gate = Gateway(
        FastPath(app, router.routes), AccessControl(settings), origins=(), log_requests=False
    )
    ports = itertools.count(40_000)

    async def key_of(call: Call) -> str:
        transport = httpx.ASGITransport(gate, client=(call.host, next(ports)))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            headers = {"Authorization": f"Bearer {call.key}"}
            answer = await client.post(call.path, json={"n": call.n}, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.text

    first = await key_of(Call())
    assert first == await key_of(Call())
    others = [
        Call(host="10.0.0.2"),
        Call(key="two"),
        Call(path="/ask?format=npy"),
        Call(n=4),
    ]
    assert len({first, *[await key_of(other) for other in others]}) == 5
