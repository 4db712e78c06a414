"""HTTP: checks requests, hands them to the engine, and writes the answers.

Routes, middleware, authentication and rate limits, the Open Inference Protocol, errors as problem
documents. It computes no image and owns no socket (`server` does).
"""

__all__ = [
    "auth",
    "body",
    "fast_path",
    "http_constants",
    "middleware",
    "openapi",
    "problems",
    "routes",
    "state",
]
