"""Requests made to keep the event loop busy: each takes little processor time."""

from __future__ import annotations

import json

import psutil
import pytest

from tests.helpers.server import Server

pytestmark = pytest.mark.server

JSON = {"Content-Type": "application/json"}
TIMES = 3
MAX_SECONDS = 0.1
"""Processor time of one request, on a slow machine. The worst of these took a minute."""
NAMES = [f"{number:x}" for number in range(100_000)]


def members(value: str, count: int = len(NAMES), end: str = "}") -> str:
    return "{" + ",".join(f'"{name}":{value}' for name in NAMES[:count]) + end


@pytest.mark.parametrize(
    ("query", "headers", "body", "status"),
    [
        pytest.param("", {"Accept": "," * 60_000}, "{}", 406, id="Accept"),
        pytest.param("&".join(NAMES[:10_000]) + "&x&x", {}, "{}", 422, id="query"),
        pytest.param("", {}, members("1"), 400, id="names"),
        pytest.param("", {}, members("1", 45_000, ',"x":1,"x":1}'), 422, id="repeated name"),
        pytest.param("", {}, '{"label":' + members("[]", 20_000) + "}", 422, id="label"),
        pytest.param("", {}, '{"label":[' + "[]," * 300_000 + "[]]}", 400, id="lists"),
        pytest.param("", {}, '{"n":[' + "0.5," * 200_000 + "1]}", 400, id="numbers"),
        pytest.param("", {}, json.dumps({"label": "ab" * 2000}), 422, id="phrase"),
    ],
)
def test_hostile_request_takes_little_time(
    server: Server, query: str, headers: dict[str, str], body: str, status: int
) -> None:
    def used() -> float:
        times = psutil.Process(server.process.pid).cpu_times()
        return times.user + times.system

    before = used()
    for _ in range(TIMES):
        answer = server.client.post(f"/generate?{query}", content=body, headers=JSON | headers)
        assert answer.status_code == status, answer.text
    assert used() - before < TIMES * MAX_SECONDS
