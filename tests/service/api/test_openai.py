"""OpenAI's images API, as its own SDK speaks it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.documents import DOCS, blocks
from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server

KEY, SLOW = "figment_for-openai", "figment_for-openai-slow"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def openai() -> Any:
    """The SDK; importing it takes a second."""
    return pytest.importorskip("openai")


@pytest.fixture(scope="module")
def sdk(openai: Any, server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    eyes = attribute("eyes", "red", "blue")
    onnx_files.put(folder, "eyes", 1, onnx_files.model(manifest(eyes, name="eyes")))
    with serve("--models", str(folder), "--api-keys", f"a:{KEY},slow@1:{SLOW}") as running:
        yield running


def test_images_are_those_of_generate(sdk: Any, client: httpx.Client) -> None:
    answer = sdk.images.generate(prompt="red eyes", n=2, extra_body={"seed": 3})
    expected = client.post("/generate", json={"label": "red eyes", "n": 2, "seed": 3}).json()
    assert (answer.seed, answer.size, answer.output_format) == (3, "64x64", "png")
    assert [image.b64_json for image in answer.data] == [
        image["data"] for image in expected["images"]
    ]
    assert [image.url for image in answer.data] == [
        f"{str(client.base_url).rstrip('/')}{image['url']}" for image in expected["images"]
    ]


def test_example_of_the_reference(server: Server) -> None:
    (code,) = (code for kind, code in blocks(DOCS / "http.md", "python") if "openai" in code)
    exec(code.replace("http://localhost:8000", server.url), {})


def test_default_is_the_conditional_model_and_a_random_seed(sdk: Any) -> None:
    first, second = (sdk.images.generate(prompt="red eyes") for _ in range(2))
    assert first.seed != second.seed
    assert "/images/anime-faces/" in first.data[0].url


@pytest.mark.parametrize("format_", ["png", "webp", "jpeg"])
def test_url_is_the_address_of_the_image(sdk: Any, format_: str) -> None:
    options = {"prompt": "7", "model": "digits", "size": "28x28", "output_format": format_}
    (image,) = sdk.images.generate(
        **options, response_format="b64_json", extra_body={"seed": 5}
    ).data
    assert image.url is None
    (address,) = sdk.images.generate(**options, response_format="url", extra_body={"seed": 5}).data
    assert address.b64_json is None
    found = httpx.get(address.url)
    assert found.content == base64.b64decode(image.b64_json)
    with Image.open(io.BytesIO(found.content)) as picture:
        assert (picture.format, picture.size) == (format_.upper(), (28, 28))


def test_urls_compute_no_image(sdk: Any, client: httpx.Client) -> None:
    def computed() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith("figment_images_total")
        )

    before = computed()
    answer = sdk.images.generate(prompt="red eyes", n=1024, response_format="url")
    assert len({image.url for image in answer.data}) == 1024
    assert computed() == before
    sdk.images.generate(prompt="red eyes", n=2)
    assert computed() == before + 2


def test_unconditional_model_takes_an_empty_prompt(sdk: Any) -> None:
    answer = sdk.images.generate(prompt="", model="anime-faces-free", response_format="url")
    assert answer.data[0].url.endswith(f"/images/anime-faces-free/2/{answer.seed}/0.png")


def test_values_that_every_image_meets_are_accepted(sdk: Any) -> None:
    answer = sdk.images.generate(
        prompt="red eyes",
        model=None,
        n=None,
        size="auto",
        quality="auto",
        background="opaque",
        moderation="auto",
        user="me",
        safety_identifier="me",
        response_format="url",
        output_format=None,
    )
    assert len(answer.data) == 1


def test_models(sdk: Any, client: httpx.Client) -> None:
    models = sdk.models.list().data
    assert [model.id for model in models] == [
        model["name"] for model in client.get("/models").json()["models"]
    ]
    digits = sdk.models.retrieve("digits")
    assert digits in models
    assert (digits.object, digits.owned_by) == ("model", "figment")
    assert digits.created > 1_700_000_000


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"prompt": "red eys"}, "prompt", "unknown_or_ambiguous_label", "'red eyes'"),
        ({"prompt": "red"}, "prompt", "unknown_or_ambiguous_label", "'red hair' or 'red eyes'"),
        ({"prompt": "a cat, oil on canvas"}, "prompt", "unknown_or_ambiguous_label", "labels"),
        ({"prompt": ""}, "prompt", "unknown_or_ambiguous_label", "empty"),
        ({"prompt": "red eyes", "model": "anime-faces-free"}, "prompt", None, "unconditional"),
        ({"prompt": "red eyes", "size": "1024x1024"}, "size", "model_unfit", "64x64"),
        ({"prompt": "red eyes", "size": "large"}, "size", "invalid_request", "size"),
        ({"prompt": "red eyes", "n": 0}, "n", "invalid_request", "1"),
        ({"prompt": "red eyes", "n": 1025}, "n", "answer_too_large", "1024"),
        ({"prompt": "red eyes", "quality": "hd"}, "quality", "invalid_request", "'standard'"),
        ({"prompt": "red eyes", "output_format": "gif"}, "output_format", None, "'webp'"),
        ({"prompt": "red eyes", "style": "vivid"}, None, "invalid_request", "'style'"),
        ({"prompt": "red eyes", "extra_body": {"seed": -1}}, "seed", None, "0 to"),
    ],
)
def test_bad_fields_are_refused(
    openai: Any, sdk: Any, fields: dict[str, Any], param: str | None, code: str | None, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.images.generate(**fields)
    error = caught.value.body
    assert isinstance(error, dict) and error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] == (code or error["code"])
    assert words in error["message"]


@pytest.mark.parametrize("call", ["generate", "retrieve", "chat"])
def test_unknown_models_and_paths(openai: Any, sdk: Any, call: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        if call == "generate":
            sdk.images.generate(prompt="red eyes", model="gpt-image-2")
        elif call == "retrieve":
            sdk.models.retrieve("gpt-image-2")
        else:
            sdk.chat.completions.create(model="anime-faces", messages=[])
    assert caught.value.code == ("not_found" if call == "chat" else "model_not_found")
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "malformed_json"),
        (b"", JSON, 400, "invalid_request"),
        (b'{"prompt": "7", "prompt": "8"}', JSON, 400, "invalid_request"),
        (b'{"prompt": "\\ud800"}', JSON, 400, None),
        (b"{}", {"Content-Type": "text/plain"}, 400, "invalid_request"),
        (b" " * (1 << 21), JSON, 413, "body_too_large"),
        (b"{}", JSON | {"Content-Encoding": "gzip"}, 415, "body_encoded"),
    ],
)
def test_bodies_without_the_sdk(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = client.post("/v1/images/generations", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    error = json.loads(answer.content)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == (code or error["code"])


def test_keys_and_rate_limits(openai: Any, guarded: Server) -> None:
    def sdk_with(key: str) -> Any:
        return openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0)

    with sdk_with("wrong") as wrong, pytest.raises(openai.AuthenticationError) as refused:
        wrong.models.list()
    assert refused.value.code == "invalid_api_key"
    with sdk_with(KEY) as right:
        assert right.images.generate(prompt="red eyes").data[0].b64_json
    with sdk_with(SLOW) as slow, pytest.raises(openai.RateLimitError) as limited:
        for _ in range(2):
            slow.images.generate(prompt="red eyes", n=1024, response_format="b64_json")
    assert (limited.value.type, limited.value.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert int(limited.value.response.headers["retry-after"]) >= 1


def test_sdk_retries_until_the_rate_allows_it(openai: Any, guarded: Server) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=SLOW, max_retries=5) as patient:
        for _ in range(2):
            assert len(patient.images.generate(prompt="blue eyes", n=1).data) == 1
