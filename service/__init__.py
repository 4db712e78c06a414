"""Figment's service: generators in ONNX Runtime behind HTTP. Never imports torch."""

import os

# From 1.29 on, ONNX Runtime writes a device identifier and reports to Microsoft unless this is set
# before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
