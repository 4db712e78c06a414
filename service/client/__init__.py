"""Python client of the service: images as arrays, streams that survive cuts, sets in folders.

It needs neither the server nor ONNX Runtime, and computes no image.
"""

from service.client.figment import Batch, Figment, Sample
from service.errors import ClientError, FetchFailed, ModelChanged, RequestRejected, Unreachable

__all__ = [
    "Batch",
    "ClientError",
    "FetchFailed",
    "Figment",
    "ModelChanged",
    "RequestRejected",
    "Sample",
    "Unreachable",
    "fetch",
    "http",
    "stream",
]
