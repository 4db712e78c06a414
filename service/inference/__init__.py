"""One model on one device: ONNX Runtime sessions, exact batching, and the inputs of each image.

The only room that imports ONNX Runtime. It does not decide which models are served (`models`) or
which request comes next (`engine`).
"""

__all__ = [
    "execution",
    "graph_check",
    "interpolation",
    "model",
    "runtime_check",
    "seeds",
    "session",
    "source",
    "tensors",
    "variations",
    "verifier",
    "versions",
]
