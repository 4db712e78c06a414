"""Figment's service: generators in ONNX Runtime behind HTTP. Never imports torch."""

__version__ = "0.1.0"
