"""Baseline of throughput: the naive endpoint's work behind LitServe, with dynamic batching.

    PYTHON -m benchmarks.litserve_endpoint MODEL_FILE PORT

Needs an unconditional model file, and a Python that has litserve, onnxruntime and pillow; runs
until it is stopped. ``serve --litserve PYTHON`` starts it. Configured as LitServe's documentation
recommends for throughput: a worker process per core with one thread, and batches of 16 requests.
"""

# No deferred annotations: LitServe reads the type of the request from them.

import base64
import io
import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort
from PIL import Image

REQUESTS_PER_BATCH = 16
BATCH_TIMEOUT_SECONDS = 0.005


# LitServe is not installed with the other tools, so it has no types here.
class GenerateAPI(litserve.LitAPI):  # type: ignore[misc]
    """Takes ``{"n", "seed"}``; returns base64 PNG files."""

    def __init__(self, model: str) -> None:
        super().__init__(
            max_batch_size=REQUESTS_PER_BATCH,
            batch_timeout=BATCH_TIMEOUT_SECONDS,
            api_path="/generate",
        )
        self._model = model

    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(self._model, options)
        self._size = self._session.get_inputs()[0].shape[1]

    def decode_request(self, request: dict[str, Any]) -> Any:
        random = np.random.default_rng(request.get("seed", 0))
        return random.standard_normal((request.get("n", 1), self._size)).astype(np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def predict(self, latents: list[Any]) -> list[Any]:
        (images,) = self._session.run(None, {"latent": np.concatenate(latents)})
        ends = np.cumsum([len(part) for part in latents])
        return np.split(images, ends[:-1])

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, list[str]]:
        files = []
        for pixels in output:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            files.append(base64.b64encode(buffer.getvalue()).decode())
        return {"images": files}


if __name__ == "__main__":
    server = litserve.LitServer(
        GenerateAPI(sys.argv[1]),
        accelerator="cpu",
        workers_per_device=len(os.sched_getaffinity(0)),
    )
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
