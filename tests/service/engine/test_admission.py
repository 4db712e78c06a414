"""Who was told to come back, and comes or does not."""

from __future__ import annotations

import asyncio
import itertools
from typing import Annotated, NamedTuple

import httpx
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


def test_a_place_is_taken_once_at_its_time_by_the_same_request() -> None:
    line = RetryReservations()
    assert line.add(1, images=16, now=0, wait=5) == 5
    assert not line.take(1, now=4.9)
    assert not line.take(2, now=5)
    assert line.take(1, now=5)
    assert not line.take(1, now=5)
    assert not line.expects(5)
    assert line.images == 0


def test_a_place_is_kept_for_a_while() -> None:
    line = RetryReservations()
    for request in (1, 2):
        line.add(request, images=1, now=0, wait=5)
    assert line.take(1, now=5 + GRACE_SECONDS - 0.1)
    assert not line.take(2, now=5 + GRACE_SECONDS)
    assert not line.expects(5 + GRACE_SECONDS)


def test_to_ask_more_often_gives_no_more_places() -> None:
    line = RetryReservations()
    told = [line.add(1, images=16, now=now, wait=8) for now in (0, 1, 2, 7.5)]
    assert told == [8, 7, 6, 0.5]
    assert line.images == 16
    assert line.take(1, now=8)
    assert not line.take(1, now=8.5)


def test_room_is_kept_only_for_those_who_come_soon() -> None:
    line = RetryReservations()
    assert line.add(1, images=16, now=0, wait=500) == MAX_RETRY_AFTER
    assert not line.expects(MAX_RETRY_AFTER - HOLD_SECONDS - 0.1)
    assert line.expects(MAX_RETRY_AFTER - HOLD_SECONDS)
    assert line.expects(MAX_RETRY_AFTER + GRACE_SECONDS - 0.1)
    assert not line.expects(MAX_RETRY_AFTER + GRACE_SECONDS)
    line.add(2, images=16, now=20, wait=5)
    line.leave(2)  # it came before its time, and found room
    assert not line.expects(25)


def test_the_line_is_as_long_as_those_who_come_back_make_it() -> None:
    for share in (0, 0.25, 1):
        line = RetryReservations()
        for number in range(1000):
            now = number / 10
            line.add(number, images=16, now=now, wait=1)
            if number % 100 < 100 * share:
                assert line.take(number, now=now + 1)
        line.take(-1, now=200)
        # Result: ten more count for as many as are likely to come.
        for number in range(10):
            line.add(number, images=16, now=200, wait=5)
        assert abs(line.images - share * 160) < 40
        line.take(-1, now=300)
        assert line.images == 0


class Body(BaseModel):
    n: int


class Asked(NamedTuple):
    host: str = "10.0.0.1"
    key: str = "one"
    path: str = "/ask"
    n: int = 3


router = APIRouter(route_class=FastRoute)


@router.post("/ask")
async def ask(body: Body, query: Annotated[FormatQuery, Query()], request: Request) -> Response:
    return Response(str(REQUEST_KEY.get()))


def test_the_same_request_is_known_again() -> None:
    """By who makes it, and by all that decides on its images."""
    app = FastAPI()
    app.include_router(router)
    settings = Settings()
    gate = Gateway(
        FastPath(app, router.routes), AccessControl(settings), origins=(), log_requests=False
    )
    ports = itertools.count(40_000)

    async def known_by(asked: Asked) -> str:
        transport = httpx.ASGITransport(gate, client=(asked.host, next(ports)))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            headers = {"Authorization": f"Bearer {asked.key}"}
            answer = await client.post(asked.path, json={"n": asked.n}, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.text

    async def scenario() -> None:
        first = await known_by(Asked())
        assert first == await known_by(Asked())
        others = [
            Asked(host="10.0.0.2"),
            Asked(key="two"),
            Asked(path="/ask?format=npy"),
            Asked(n=4),
        ]
        assert len({first, *[await known_by(other) for other in others]}) == 5

    asyncio.run(scenario())
