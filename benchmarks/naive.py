"""Baseline of throughput: a tutorial's endpoint with FastAPI, ONNX Runtime and Pillow.

    python -m benchmarks.naive MODEL_FILE PORT

Needs an unconditional model file; runs until it is stopped. ``serve`` starts it.
"""

from __future__ import annotations

import base64
import io
import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel


class Request(BaseModel):
    n: int = 1
    seed: int = 0


def create_app(model: str) -> FastAPI:
    app = FastAPI()
    session = ort.InferenceSession(model)
    size = session.get_inputs()[0].shape[1]

    @app.post("/generate")
    def generate(request: Request) -> dict[str, list[str]]:
        latent = np.random.default_rng(request.seed).standard_normal((request.n, size))
        (images,) = session.run(None, {"latent": latent.astype(np.float32)})
        files = []
        for pixels in images:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            files.append(base64.b64encode(buffer.getvalue()).decode())
        return {"images": files}

    @app.get("/readyz")
    def ready() -> str:
        return "ready"

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
