"""Interpolations and variations, over a real socket."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageSequence

from service.core.latents import latents
from service.inference.model import load_model
from service.inference.session import SessionFactory
from tests.helpers.server import MODELS

pytestmark = pytest.mark.server

Body = dict[str, Any]

WAY: Body = {
    "from": {"seed": 1, "label": "red eyes"},
    "to": {"seed": 2, "label": "blue eyes"},
    "steps": 9,
    "loop": True,
}
AROUND: Body = {"of": {"seed": 3, "index": 4, "label": "red eyes"}, "n": 5, "seed": 9}


def post(client: httpx.Client, path: str, body: Body) -> httpx.Response:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def pixels(row: Body) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(row["data"]))) as image:
        return np.asarray(image)


def frames(film: Image.Image) -> list[npt.NDArray[np.uint8]]:
    return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]


@pytest.mark.parametrize(("format_", "lost"), [("webp", 0), ("gif", 5)])
def test_animation_has_the_images_of_the_json_answer(
    client: httpx.Client, format_: str, lost: int
) -> None:
    """GIF has 256 colours a frame, and is off by ``lost`` levels on average; WebP loses nothing."""
    rows = post(client, "/interpolate", WAY).json()["images"]
    answer = post(client, f"/interpolate?format={format_}", WAY)
    assert answer.headers["content-type"] == f"image/{format_}"
    with Image.open(io.BytesIO(answer.content)) as film:
        shown = frames(film)
        assert film.info["loop"] == 0
    assert len(shown) == WAY["steps"]
    for frame, row in zip(shown, rows, strict=True):
        assert np.abs(frame.astype(int) - pixels(row)).mean() <= lost
    assert b"synthetic" in answer.content
    assert rows[0]["url"].encode() in answer.content


def test_grey_animation(client: httpx.Client) -> None:
    way = {"from": {"seed": 1, "label": "3"}, "to": {"seed": 2, "label": "8"}, "steps": 4}
    for format_ in ("gif", "webp"):
        body = way | {"model": "digits"}
        answer = post(client, f"/interpolate?format={format_}", body)
        with Image.open(io.BytesIO(answer.content)) as film:
            assert len(frames(film)) == 4
            assert film.size == (28, 28)


def test_variations_mix_two_latents_with_the_labels_of_the_image(
    client: httpx.Client,
) -> None:
    answer = post(client, "/variations", AROUND | {"strength": 0.6}).json()
    assert (answer["model"], answer["seed"]) == ("anime-faces", 9)
    assert answer["of"] == "/images/anime-faces/2/3/4.png?label=red+eyes"
    (centre,) = client.post("/generate", json={"seed": 3, "offset": 4, "label": "red eyes"}).json()[
        "images"
    ]
    model = load_model(MODELS / "anime-faces" / "2" / "model.onnx", SessionFactory("cpu"))
    size = model.manifest.latent_size
    choice = model.vocabulary.parse(centre["labels"])
    condition = model.vocabulary.condition(np.array([[choice[0], choice[1]]]))
    for row in answer["images"]:
        assert row["labels"] == centre["labels"]
        assert row["url"] is None
        other = latents(9, row["index"], 1, size)
        latent = math.sqrt(1 - 0.6**2) * latents(3, 4, 1, size) + 0.6 * other
        (expected,) = model.generate(latent.astype(np.float32), condition)
        assert np.abs(expected.astype(int) - pixels(row)).max() <= 1


def test_variations_differ_more_with_strength(client: httpx.Client) -> None:
    address = "/images/anime-faces/2/3/4.png?label=red+eyes"
    with Image.open(io.BytesIO(client.get(address).content)) as image:
        centre = np.asarray(image).astype(int)
    distances = []
    for strength in (0.01, 0.2, 0.5, 1):
        rows = post(client, "/variations", AROUND | {"strength": strength}).json()["images"]
        distances.append(np.mean([np.abs(pixels(row) - centre).mean() for row in rows]))
    assert distances == sorted(distances)
    assert distances[0] < 2 < distances[-1]


def test_variations_do_not_depend_on_their_number(client: httpx.Client) -> None:
    few = post(client, "/variations", AROUND).json()["images"]
    assert post(client, "/variations", AROUND | {"n": 40}).json()["images"][:5] == few
    sheet = post(client, "/variations?format=webp", AROUND)
    with Image.open(io.BytesIO(sheet.content)) as image:
        assert np.array_equal(np.asarray(image)[:64, 64:128], pixels(few[1]))


def test_seed_of_variations_is_drawn_if_missing(client: httpx.Client) -> None:
    body = {"of": {"seed": 3}, "n": 1}
    first, second = (post(client, "/variations", body).json() for _ in range(2))
    assert first["model"] == "anime-faces-free"
    assert first["seed"] != second["seed"]
    assert first == post(client, "/variations", body | {"seed": first["seed"]}).json()


def test_variations_of_a_truncated_image_are_truncated(client: httpx.Client) -> None:
    of = {"seed": 3, "label": "red eyes", "truncation": 0.01}
    near = {"of": of, "strength": 1, "n": 2, "seed": 1}
    one, other = post(client, "/variations", near).json()["images"]
    assert np.abs(pixels(one).astype(int) - pixels(other)).mean() < 3
