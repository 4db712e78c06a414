"""Answers to valid requests, over a real socket."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers.responses import pixels

pytestmark = pytest.mark.server

Body = dict[str, Any]


def ask(client: httpx.Client, path: str, body: Body, **options: Any) -> httpx.Response:
    answer = client.post(path, json=body, **options)
    assert answer.status_code == 200, answer.text
    return answer


def images(client: httpx.Client, path: str, body: Body) -> list[Body]:
    found: list[Body] = ask(client, path, body).json()["images"]
    return found


def files(client: httpx.Client, path: str, body: Body) -> list[bytes]:
    return [base64.b64decode(image["data"]) for image in images(client, path, body)]


def test_generate(client: httpx.Client) -> None:
    answer = ask(client, "/generate", {"n": 3, "seed": 3}).json()
    assert (answer["model"], answer["version"], answer["seed"]) == ("anime-faces-free", 2, 3)
    assert answer["latent_recipe"] == 1
    assert [image["index"] for image in answer["images"]] == [0, 1, 2]
    assert {image["labels"] for image in answer["images"]} == {None}
    assert answer["images"][2]["url"] == "/images/anime-faces-free/2/3/2.png"
    assert pixels(base64.b64decode(answer["images"][0]["data"])).shape == (64, 64, 3)


def test_generate_conditional(client: httpx.Client) -> None:
    found = images(client, "/generate/conditional", {"label": "red eyes", "n": 20, "seed": 3})
    assert {image["labels"]["eyes"] for image in found} == {"red"}
    assert len({image["labels"]["hair"] for image in found}) > 3
    assert found[0]["url"] == "/images/anime-faces/2/3/0.png?label=red+eyes"


def test_digits(client: httpx.Client) -> None:
    body = {"model": "digits", "label": "7", "seed": 1}
    (found,) = images(client, "/generate/conditional", body)
    assert found["labels"] == {"digit": "7"}
    assert pixels(base64.b64decode(found["data"])).shape == (28, 28)


def test_missing_seed_is_drawn_and_returned(client: httpx.Client) -> None:
    first, second = (ask(client, "/generate", {}).json() for _ in range(2))
    assert first["seed"] != second["seed"]
    again = ask(client, "/generate", {"seed": first["seed"]}).json()
    assert again == first


def test_label_selects_the_conditional_model(client: httpx.Client) -> None:
    assert ask(client, "/generate", {"label": "red eyes"}).json()["model"] == "anime-faces"
    named = {"model": "anime-faces", "label": {"eyes": "red"}}
    assert ask(client, "/generate", named).json()["images"][0]["labels"]["eyes"] == "red"


def test_list_of_labels_gives_a_balanced_set(
    client: httpx.Client,
) -> None:
    labels = ["red eyes", {"eyes": "blue", "hair": "black"}, "green eyes"]
    body = {"label": labels, "n": 6, "seed": 1, "offset": 100}
    found = images(client, "/generate/conditional", body)
    # Index 100 takes entry 100 mod 3.
    assert [image["labels"]["eyes"] for image in found] == ["blue", "green", "red"] * 2
    for image in found:
        assert client.get(image["url"]).content == base64.b64decode(image["data"])


def test_naming_one_attribute_does_not_change_the_others(client: httpx.Client) -> None:
    drawn = images(client, "/generate/conditional", {"n": 30, "seed": 8})
    named = images(client, "/generate/conditional", {"n": 30, "seed": 8, "label": "red eyes"})
    hair = [[image["labels"]["hair"] for image in found] for found in (drawn, named)]
    assert hair[0] == hair[1]


@pytest.mark.parametrize("path", ["/generate", "/generate/conditional"])
def test_image_is_the_same_in_any_request(client: httpx.Client, path: str) -> None:
    together = files(client, path, {"n": 40, "seed": 5})
    assert len(set(together)) == 40
    assert files(client, path, {"n": 7, "seed": 5, "offset": 33}) == together[33:]
    assert files(client, path, {"n": 1, "seed": 5, "offset": 17}) == together[17:18]
    with ThreadPoolExecutor(16) as pool:
        alone = pool.map(lambda i: files(client, path, {"seed": 5, "offset": i})[0], range(40))
        for index, (one, another) in enumerate(zip(alone, together, strict=True)):
            differ = np.count_nonzero(pixels(one) != pixels(another))
            assert one == another, f"image {index}: {differ} levels differ"


def test_truncation_draws_images_together(client: httpx.Client) -> None:
    def spread(truncation: float) -> float:
        found = files(client, "/generate", {"n": 32, "seed": 2, "truncation": truncation})
        return float(np.std([pixels(content) for content in found], axis=0).mean())

    assert spread(1) > spread(0.5) > spread(0.05)


@pytest.mark.parametrize(
    ("extension", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")]
)
def test_one_image_as_a_file(client: httpx.Client, extension: str, kind: str) -> None:
    body = {"seed": 3, "offset": 4, "label": "red eyes"}
    by_query = ask(client, f"/generate/conditional?format={extension}", body)
    by_header = ask(client, "/generate/conditional", body, headers={"Accept": f"image/{extension}"})
    assert by_query.content == by_header.content
    assert by_query.headers["content-type"] == f"image/{extension}"
    assert by_query.headers["figment-seed"] == "3"
    place = f"/images/anime-faces/2/3/4.{extension}?label=red+eyes"
    assert by_query.headers["content-location"] == place
    assert client.get(place).content == by_query.content
    with Image.open(io.BytesIO(by_query.content)) as image:
        assert (image.format, image.size) == (kind, (64, 64))
        if extension != "jpeg":
            exact = pixels(files(client, "/generate/conditional", body)[0])
            assert np.array_equal(np.asarray(image.convert("RGB")), exact)


def test_several_images_as_a_contact_sheet(client: httpx.Client) -> None:
    body = {"n": 7, "seed": 3}
    sheet = pixels(ask(client, "/generate?format=png", body).content)
    assert sheet.shape == (3 * 64, 3 * 64, 3)
    for place, content in enumerate(files(client, "/generate", body)):
        row, column = divmod(place, 3)
        part = sheet[row * 64 : (row + 1) * 64, column * 64 : (column + 1) * 64]
        assert np.array_equal(part, pixels(content))


def test_image_caching_headers(client: httpx.Client) -> None:
    address = "/images/anime-faces/2/3/0.png?label=red+eyes"
    first = client.get(address)
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    etag = first.headers["etag"]
    assert etag.startswith('"')
    # The same image by other words is the same resource; another image is not.
    assert client.get("/images/anime-faces/2/3/0.png?label=EYES:red").headers["etag"] == etag
    others = ["/images/anime-faces/2/3/1.png?label=red+eyes", "/images/anime-faces/2/3/0.png"]
    assert etag not in {client.get(other).headers["etag"] for other in others}

    for header in (etag, f'"other", W/{etag}', "*"):
        cached = client.get(address, headers={"If-None-Match": header})
        assert (cached.status_code, cached.content) == (304, b"")
        assert cached.headers["etag"] == etag
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200

    assert first.headers["figment-model"] == "anime-faces"
    assert first.headers["figment-latent-recipe"] == "1"
    head = client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == etag
    assert head.headers["content-length"] == str(len(first.content))


WAY: Body = {
    "from": {"seed": 1, "label": "red eyes, black hair"},
    "to": {"seed": 2, "index": 5, "label": "blue eyes, black hair"},
}


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_interpolation_begins_and_ends_at_its_addresses(client: httpx.Client, method: str) -> None:
    found = images(client, "/interpolate", WAY | {"steps": 5, "method": method})
    assert [frame["t"] for frame in found] == [0, 0.25, 0.5, 0.75, 1]
    for frame in (found[0], found[-1]):
        assert client.get(frame["url"]).content == base64.b64decode(frame["data"])
    assert found[0]["labels"] == {"hair": "black", "eyes": "red"}
    assert found[1]["url"] is None
    assert found[1]["labels"] == {"hair": "black", "eyes": {"red": 0.75, "blue": 0.25}}
    frames = np.stack([pixels(base64.b64decode(frame["data"])).astype(int) for frame in found])
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert steps.min() > 0
    assert steps.max() < np.abs(frames[-1] - frames[0]).mean()


def test_interpolation_loops_without_repeating_the_first_frame(client: httpx.Client) -> None:
    for steps in (2, 3, 8, 9):
        found = images(client, "/interpolate", WAY | {"steps": steps, "loop": True})
        t = [frame["t"] for frame in found]
        assert len(t) == steps
        assert (t[0], max(t)) == (0, 1)
        assert t.count(0) == t.count(1) == 1


def test_interpolation_as_a_film_strip(client: httpx.Client) -> None:
    strip = pixels(ask(client, "/interpolate?format=png", WAY | {"steps": 20}).content)
    assert strip.shape == (64, 20 * 64, 3)


def test_interpolation_from_the_mean(client: httpx.Client) -> None:
    """A truncation so small that the latent is zero leaves no direction to turn from."""
    ends = {"from": {"seed": 1, "truncation": 1e-300}, "to": {"seed": 2}, "steps": 3}
    found = images(client, "/interpolate", ends)
    assert len({frame["data"] for frame in found}) == 3


def test_interpolation_of_an_unconditional_model(client: httpx.Client) -> None:
    body = {"from": {"seed": 1}, "to": {"seed": 2}, "steps": 2}
    answer = ask(client, "/interpolate", body).json()
    assert answer["model"] == "anime-faces-free"
    assert [frame["labels"] for frame in answer["images"]] == [None, None]


def test_models_are_listed_with_their_manifests(client: httpx.Client) -> None:
    answer = client.get("/models").json()
    kinds = {model["name"]: (model["kind"], model["default"]) for model in answer["models"]}
    assert kinds == {
        "anime-faces": ("conditional", True),
        "anime-faces-free": ("unconditional", True),
        "digits": ("conditional", False),
    }
    assert answer["refused"] == []
    for model in answer["models"]:
        versions = client.get(model["url"]).json()["versions"]
        assert {version["version"] for version in versions} == {1, 2}
        for version in versions:
            assert client.get(version["url"]).json() == version
            assert version["manifest"]["provenance"]["dataset"]["licence"]


def test_integers_may_be_written_as_floats(client: httpx.Client) -> None:
    written = '{"n": 2.0, "seed": 3e0, "offset": 0.0, "truncation": 1.0, "version": 1.0}'
    answer = client.post("/generate", content=written, headers={"Content-Type": "application/json"})
    body = {"n": 2, "seed": 3, "offset": 0, "truncation": 1, "version": 1}
    assert answer.json() == ask(client, "/generate", body).json()


def test_labels_are_listed_with_phrases_that_work(client: httpx.Client) -> None:
    answer = client.get("/models/anime-faces/labels").json()
    sizes = {attribute["name"]: len(attribute["values"]) for attribute in answer["attributes"]}
    assert sizes == {"hair": 12, "eyes": 10}
    phrases = [phrase for attribute in answer["attributes"] for phrase in attribute["labels"]]
    found = images(client, "/generate/conditional", {"label": phrases, "n": len(phrases)})
    named = [
        f"{image['labels'][name]} {name}"
        for image, name in zip(found, ["hair"] * 12 + ["eyes"] * 10, strict=True)
    ]
    assert named == phrases
    assert client.get("/models/anime-faces-free/labels").json()["attributes"] == []


def test_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert ready["device"] in ("cpu", "cuda")
    assert ready["models"]["anime-faces"] == [1, 2]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/models", "/docs", "/openapi.json"])
def test_head_is_answered_wherever_get_is(client: httpx.Client, path: str) -> None:
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == client.get(path).headers["content-type"]


def test_documented_examples_work(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    posts = {
        path: item["post"]
        for path, item in document["paths"].items()
        if "application/json" in item.get("post", {}).get("requestBody", {}).get("content", {})
    }
    assert len(posts) == 7
    for path, post in posts.items():
        reference = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        for example in schema["examples"]:
            ask(client, path.format(name="anime-faces", version=2), example)


def test_documentation_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "http://" not in page.text and "https://" not in page.text
    document = client.get("/openapi.json").json()
    assert {"/generate", "/generate/conditional", "/interpolate"} <= document["paths"].keys()
    assert (
        "application/problem+json"
        in document["paths"]["/generate"]["post"]["responses"]["422"]["content"]
    )
