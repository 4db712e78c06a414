"""Answers to invalid requests: a reason, allowed values, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.responses import problem

pytestmark = pytest.mark.server

JSON = {"Content-Type": "application/json"}
PATHS = ["/generate", "/generate/conditional", "/interpolate", "/variations"]
BODIES: dict[str, dict[str, Any]] = {
    "/interpolate": {"from": {"seed": 1}, "to": {"seed": 2}},
    "/variations": {"of": {"seed": 1}},
}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"n": 0}, 422, "n: Input should be greater than or equal to 1"),
        ({"n": -1}, 422, "n: "),
        ({"n": 1025}, 422, "at most 1024"),
        ({"n": 10**9}, 422, "at most 1024"),
        ({"n": 10**30}, 422, "at most 1024"),
        ({"n": 1.5}, 422, "n: Input should be a valid integer"),
        ({"n": "4"}, 422, "n: Input should be a valid integer"),
        ({"n": True}, 422, "n: Input should be a valid integer"),
        ({"n": None}, 422, "n: "),
        ({"n": [1, 2]}, 422, "n has 2 counts for 0 labels"),
        ({"n": [1, 2], "label": ["red eyes"]}, 422, "n has 2 counts for 1 labels"),
        (
            {"n": [0, 0], "label": ["red eyes", "blue eyes"]},
            422,
            "n: should request at least one",
        ),
        ({"n": [1, -1], "label": ["red eyes", "blue eyes"]}, 422, "n: Input should be greater"),
        ({"n": [1000, 25], "label": ["red eyes", "blue eyes"]}, 422, "at most 1024"),
        ({"n": []}, 422, "n: List should have at least 1 item"),
        ({"verify": 0}, 422, "verify: Input should be greater than 0"),
        ({"verify": 1}, 422, "verify: Input should be less than 1"),
        ({"verify": "much"}, 422, "verify: "),
        ({"verify": 0.5, "model": "anime-faces", "version": 1}, 422, "has no verifier"),
        ({"offset": 2**53 - 2, "n": [2, 0], "label": ["7", "8"], "model": "digits"}, 422, "offset"),
        ({"seed": -1}, 422, "seed: "),
        ({"seed": 2**53}, 422, "should be a whole number from 0 to 9007199254740991"),
        ({"seed": "three"}, 422, "seed: "),
        ({"offset": -1}, 422, "offset: "),
        ({"offset": 2**53 - 1, "n": 2}, 422, "offset: the last index may be at most"),
        ({"truncation": 0}, 422, "truncation: Input should be greater than 0"),
        ({"truncation": 1.01}, 422, "truncation: Input should be less than or equal to 1"),
        ({"truncation": "much"}, 422, "truncation: "),
        (
            {"model": "nope"},
            404,
            "no model 'nope'; there are: anime-faces, anime-faces-free, digits",
        ),
        ({"model": "../../etc/passwd"}, 404, "no model"),
        ({"model": 5}, 422, "model: "),
        ({"version": 99}, 404, "has no version 99; there are: 1"),
        ({"version": 0}, 422, "version: should be a number from 1 on, or an alias"),
        ({"version": "1"}, 422, "version: should be a number"),
        ({"version": "../1"}, 422, "version: should be a number"),
        ({"version": "stable"}, 404, "no version 'stable'; there are: 1, 2, latest"),
        ({"seeed": 3}, 422, "no field is called 'seeed'; there are: n, label, seed"),
        ({"label": "red eys"}, 422, "did you mean 'red eyes'"),
        ({"label": "purple elephant"}, 422, "unknown label"),
        ({"label": "red"}, 422, "ambiguous: say 'red hair' or 'red eyes'"),
        ({"label": "red eyes and blue eyes"}, 422, "two values of 'eyes'"),
        ({"label": ""}, 422, "the label is empty"),
        ({"label": {"nose": "big"}}, 422, "unknown attribute 'nose'; the model has: hair, eyes"),
        ({"label": {"eyes": "rad"}}, 422, "unknown value 'rad'"),
        ({"label": []}, 422, "label: should be a phrase such as 'red eyes'"),
        ({"label": 7}, 422, 'a mapping such as {"eyes": "red"}, or'),
        ({"label": {"eyes": ["red"]}}, 422, "label: should be a phrase"),
        ({"label": ["red eyes", "red eys"]}, 422, "did you mean 'red eyes'"),
        ({"label": "x" * 5000}, 422, "label: "),
        ({"label": "red eyes, " * 300}, 422, "more values than the model has attributes"),
        ({"label": ["red eyes"] * 2000}, 422, "label: "),
        ({"label": "\0\u202e<script>"}, 422, "unknown label"),
    ],
)
def test_fields(client: httpx.Client, body: dict[str, Any], status: int, said: str) -> None:
    answer = client.post("/generate/conditional", json=body)
    assert said in problem(answer, status)["detail"]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "the body is not JSON"),
        (b'{"n": 1,}', 400, "the body is not JSON"),
        (b"null", 422, "body: "),
        (b"[]", 422, "body: "),
        (b'"red eyes"', 422, "body: "),
        (b"\x80\x81", 400, "not UTF-8"),
        (b"[" * 100_000, 400, "cannot be read as JSON"),
        (b'{"n": ' + b"9" * 10_000 + b"}", 400, "cannot be read as JSON"),
        (b'{"truncation": NaN}', 422, ""),
        (b'{"truncation": Infinity}', 422, ""),
        (b'{"n": NaN}', 422, ""),
        (b'{"label": "\\ud800"}', 422, ""),
        (b'{"\\ud800": 1}', 422, ""),
        (b'{"n": 1, "n": 0}', 422, ""),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_bodies(client: httpx.Client, path: str, content: bytes, status: int, said: str) -> None:
    found = problem(client.post(path, content=content, headers=JSON), status)
    assert said in found["detail"]
    assert (found["type"] == "urn:figment:malformed-json") == (status == 400)


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/generate", {"n": 0}, "invalid-request"),
        ("/generate", {"n": 1025}, "answer-too-large"),
        ("/variations", {"of": {"seed": 1}, "n": 1025}, "answer-too-large"),
        ("/generate", {"n": [1, 2]}, "fields-disagree"),
        ("/generate", {"offset": 2**53 - 1, "n": 2}, "fields-disagree"),
        ("/generate", {"verify": 0.5, "model": "anime-faces-free"}, "model-unfit"),
        ("/generate/conditional", {"model": "anime-faces-free"}, "model-unfit"),
        ("/generate", {"label": "purple elephant"}, "unknown-or-ambiguous-label"),
    ],
)
def test_problem_types(client: httpx.Client, path: str, body: dict[str, Any], kind: str) -> None:
    assert problem(client.post(path, json=body), 422)["type"] == f"urn:figment:{kind}"


def test_a_body_that_is_not_declared_as_json(client: httpx.Client) -> None:
    """Content type that `curl -d` sends by default."""
    answer = client.post("/generate", data={"n": "1"})
    assert "Content-Type: application/json" in problem(answer, 422)["detail"]


def test_unknown_label_lists_closest_matches_and_link(
    client: httpx.Client,
) -> None:
    body = problem(client.post("/generate", json={"label": "red eys"}), 422)
    assert body["matches"][0] == "red eyes"
    assert client.get(body["labels"]).status_code == 200


def test_an_unconditional_model_takes_no_label(client: httpx.Client) -> None:
    free = {"model": "anime-faces-free"}
    body = free | {"label": "red eyes"}
    assert "takes no label" in problem(client.post("/generate", json=body), 422)["detail"]
    answer = problem(client.post("/generate/conditional", json=free), 422)
    assert "is unconditional" in answer["detail"]
    assert answer["models"] == ["anime-faces", "digits"]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"steps": 1}, 422, "steps: "),
        ({"steps": 257}, 422, "steps: "),
        ({"method": "magic"}, 422, "method: Input should be 'slerp' or 'lerp'"),
        ({"loop": "yes"}, 422, "loop: "),
        ({"from": {}}, 422, "from.seed: Field required"),
        ({"from": {"seed": 1, "label": ["red eyes"]}}, 422, "from.label: should be a phrase"),
        ({"from": {"seed": 1, "n": 2}}, 422, "from: no field is called 'n'"),
        ({"to": None}, 422, "to: "),
        ({"to": {"seed": 1, "index": -1}}, 422, "to.index: "),
        ({"to": {"seed": 1, "label": "red eys"}}, 422, "did you mean 'red eyes'"),
        ({"model": "nope"}, 404, "no model 'nope'"),
    ],
)
def test_interpolations(
    client: httpx.Client, change: dict[str, Any], status: int, said: str
) -> None:
    body = {"from": {"seed": 1}, "to": {"seed": 2}} | change
    assert said in problem(client.post("/interpolate", json=body), status)["detail"]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"strength": 0}, 422, "strength: Input should be greater than 0"),
        ({"strength": 1.1}, 422, "strength: Input should be less than or equal to 1"),
        ({"n": 0}, 422, "n: "),
        ({"n": 1025}, 422, "at most 1024"),
        ({"seed": -1}, 422, "seed: "),
        ({"of": {}}, 422, "of.seed: Field required"),
        ({"of": {"seed": 1, "label": "red eys"}}, 422, "did you mean 'red eyes'"),
        ({"model": "nope"}, 404, "no model 'nope'"),
    ],
)
def test_variations(client: httpx.Client, change: dict[str, Any], status: int, said: str) -> None:
    body = {"of": {"seed": 1}} | change
    assert said in problem(client.post("/variations", json=body), status)["detail"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/images/nope/1/3/0.png", 404, "no model 'nope'"),
        ("/images/digits/9/3/0.png", 404, "no version 9"),
        ("/images/digits/0/3/0.png", 422, "version: "),
        ("/images/digits/1/-1/0.png", 422, "seed: "),
        ("/images/digits/1/9007199254740992/0.png", 422, "seed: "),
        ("/images/digits/1/3/9007199254740992.png", 422, "index: Input should be less than"),
        ("/images/digits/1/3/0.gif", 422, "extension: Input should be 'png'"),
        ("/images/digits/1/3/x.png", 422, "index: should be a whole number"),
        ("/images/digits/1/3/007.png", 422, "index: should be a whole number"),
        ("/images/digits/1/3/1.0.png", 422, "index: should be a whole number"),
        ("/images/digits/1/3/.png", 404, "GET /images/digits/1/3/.png"),
        ("/images/digits/1/3/0", 404, "GET /images/digits/1/3/0"),
        ("/images/digits/01/3/0.png", 422, "version: "),
        ("/images/digits/1/1_0/0.png", 422, "seed: "),
        ("/images/digits/1/3.0/0.png", 422, "seed: "),
        ("/images/digits/1/3/0.png?label=7&label=8", 422, "label: appears twice in the query"),
        ("/images/digits/1/3/0.png?labl=7", 422, "labl: Extra inputs are not permitted"),
        ("/images/digits/1/3/0.png?label=eleven", 422, "unknown label 'eleven'"),
        ("/images/digits/1/3/0.png?label=", 422, "the label is empty"),
        ("/images/digits/1/3/0.png?truncation=nan", 422, "truncation: "),
        ("/images/digits/1/3/0.png?truncation=2", 422, "truncation: "),
        ("/images/anime-faces-free/1/3/0.png?label=red+eyes", 422, "takes no label"),
        ("/models/nope", 404, "no model 'nope'"),
        ("/models/nope/labels", 404, "no model 'nope'"),
        ("/models/digits/3", 404, "no version 3"),
        ("/models/digits/one", 404, "no version 'one'; there are: 1, 2, latest"),
        ("/models/digits/One", 422, "version: should be a number from 1 on, or an alias"),
        ("/models/digits/0", 422, "version: should be a number from 1 on, or an alias"),
        ("/models/digits/labels?version=3", 404, "no version 3"),
        ("/nowhere", 404, "GET /nowhere"),
        ("/models/", 404, "GET /models/"),
        ("/images/digits/1/3/0.png/", 404, "GET /images"),
        ("/generate", 405, "GET /generate"),
    ],
)
def test_addresses(client: httpx.Client, path: str, status: int, said: str) -> None:
    assert said in problem(client.get(path), status)["detail"]


@pytest.mark.parametrize("path", PATHS)
def test_formats(client: httpx.Client, path: str) -> None:
    body = BODIES.get(path, {})
    answer = problem(client.post(f"{path}?format=bmp", json=body), 406)
    twice = client.post(f"{path}?format=png&format=json", json=body)
    assert "format: appears twice" in problem(twice, 422)["detail"]
    assert answer["formats"][:2] == ["json", "png"]
    assert "fromat: Extra" in problem(client.post(f"{path}?fromat=png", json=body), 422)["detail"]
    headers = {"Accept": "text/csv"}
    assert "text/csv" in problem(client.post(path, json=body, headers=headers), 406)["detail"]


def test_a_body_that_is_too_large(client: httpx.Client) -> None:
    large = b'{"label": "' + b"x" * 2_000_000 + b'"}'
    assert (
        "at most" in problem(client.post("/generate", content=large, headers=JSON), 413)["detail"]
    )

    def in_pieces() -> Iterator[bytes]:  # without a declared length
        for at in range(0, len(large), 100_000):
            yield large[at : at + 100_000]

    problem(client.post("/generate", content=in_pieces(), headers=JSON), 413)


def test_service_works_after_invalid_requests(client: httpx.Client) -> None:
    assert client.post("/generate", json={"n": 4}).status_code == 200
