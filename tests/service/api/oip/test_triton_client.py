"""Open Inference Protocol with Triton's own client, and the example of its documentation page."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from service.core import latents
from service.inference.model import Model, load_model
from service.inference.session import SessionFactory
from tests.helpers.server import MODELS, ROOT, Server, environment, serve
from tests.helpers.tensors import (
    conditions,
    rows,
    tensor,
    triton_client,
)

pytestmark = pytest.mark.server


def test_metadata_and_readiness(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("faces") and client.is_model_ready("faces", "1")
    assert not client.is_model_ready("faces", "3") and not client.is_model_ready("nobody")
    latent = {"name": "latent", "datatype": "FP32", "shape": [-1, 8]}
    condition = {"name": "condition", "datatype": "FP32", "shape": [-1, 2]}
    image = {"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}
    faces = {
        "name": "faces",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [latent, condition],
        "outputs": [image],
    }
    assert client.get_model_metadata("faces") == faces
    assert client.get_model_metadata("faces", "1") == faces
    assert client.get_model_metadata("plain")["inputs"] == [latent]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_infer_returns_the_images_of_its_rows(
    client: triton.InferenceServerClient, model: Model, sent: bool, taken: bool
) -> None:
    latent, condition = rows(3, 8), conditions(3)
    inputs = [tensor("condition", condition, binary=sent), tensor("latent", latent, binary=sent)]
    output = triton.InferRequestedOutput("image", binary_data=taken)
    answer = client.infer("faces", inputs, outputs=[output], request_id="mine")
    assert np.array_equal(answer.as_numpy("image"), model.generate(latent, condition))
    told = answer.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("mine", "faces", "2")
    assert ("data" in told["outputs"][0]) == (not taken)


def test_outputs_are_binary_by_default(client: triton.InferenceServerClient, model: Model) -> None:
    latent, condition = rows(2, 8), conditions(2)
    mixed = [tensor("latent", latent), tensor("condition", condition, binary=False)]
    answer = client.infer("faces", mixed, model_version="1", priority=1, timeout=1000)
    assert np.array_equal(answer.as_numpy("image"), model.generate(latent, condition))
    assert "id" not in answer.get_response()
    assert answer.get_response()["model_version"] == "1"


def test_an_unconditional_model(client: triton.InferenceServerClient) -> None:
    answer = client.infer("plain", [tensor("latent", rows(64, 8))])
    assert answer.as_numpy("image").shape == (64, 16, 16, 3)
    with pytest.raises(InferenceServerException, match="the request names latent, condition"):
        client.infer("plain", [tensor("latent", rows(1, 8)), tensor("condition", conditions(1))])


def test_errors_reach_the_client(client: triton.InferenceServerClient) -> None:
    latent = tensor("latent", rows(2, 8))
    with pytest.raises(InferenceServerException, match=r"no model 'nobody'; there are") as raised:
        client.infer("nobody", [latent])
    assert raised.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"no version 3; there are: 1, 2") as raised:
        client.infer("faces", [latent], model_version="3")
    with pytest.raises(InferenceServerException, match="65 images do not fit") as raised:
        client.infer("plain", [tensor("latent", rows(65, 8))])
    assert raised.value.status() == "422"
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="send it uncompressed") as raised:
            client.infer("plain", [latent], request_compression_algorithm=algorithm)
        assert raised.value.status() == "415"
    latent.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="there is no shared memory"):
        client.infer("plain", [latent])
    with pytest.raises(InferenceServerException, match="GET /v2/models/plain/config: Not Found"):
        client.get_model_config("plain")


def test_a_key_is_sent_as_a_header(models: Path) -> None:
    keys = ("--api-keys", "me:figment_for-triton")
    with serve("--models", str(models), *keys) as guarded, triton_client(guarded) as client:
        assert client.is_server_live() and client.is_server_ready()
        inputs = [tensor("latent", rows(1, 8))]
        with pytest.raises(InferenceServerException, match="key") as raised:
            client.infer("plain", inputs)
        assert raised.value.status() == "401"
        key = {"Authorization": "Bearer figment_for-triton"}
        assert client.infer("plain", inputs, headers=key).as_numpy("image") is not None
        assert client.is_model_ready("plain", headers=key)


def test_tensors_of_an_address_give_its_pixels(server: Server) -> None:
    """From what ``docs/determinism.md`` promises, with the shipped model of faces."""
    asked = {"label": "red eyes, black hair", "n": 20, "seed": 5, "offset": 7, "version": 2}
    told = server.client.post("/generate/conditional", json={"model": "anime-faces", **asked})
    expected = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["data"]))))
        for image in told.json()["images"]
    ]
    faces = load_model(MODELS / "anime-faces" / "2" / "model.onnx", SessionFactory("cpu"))
    latent = latents.latents(5, 7, 20, faces.manifest.latent_size)
    choice = faces.vocabulary.parse("red eyes, black hair")
    values = np.array([[choice[0], choice[1]]] * 20)
    condition = faces.vocabulary.condition(values)
    inputs = [tensor("latent", latent), tensor("condition", condition)]
    with triton_client(server) as client:
        images = client.infer("anime-faces", inputs, "2").as_numpy("image")
    assert np.array_equal(images, expected)


def test_a_version_by_its_alias(small: Server) -> None:
    answer = small.client.get("/v2/models/faces/versions/latest")
    assert answer.json()["name"] == "faces"


PAGE = (ROOT / "docs" / "protocol.md").read_text()


def test_example_of_the_documentation_runs(server: Server, tmp_path: Path) -> None:
    address = server.url.removeprefix("http://")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    run = [sys.executable, "-c", program.replace("localhost:8000", address)]
    done = subprocess.run(
        run,
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == re.findall(r"# prints (.*)", PAGE)[0]
    with Image.open(tmp_path / "red-eyes.png") as image:
        assert image.size == (64, 64)
    (command,) = (command for command in commands if command.startswith("curl"))
    bash = ["bash", "-ec", command.replace("localhost:8000", address)]
    answer = json.loads(subprocess.run(bash, check=True, capture_output=True).stdout)
    assert answer["outputs"][0]["shape"] == [1, 28, 28, 1]
