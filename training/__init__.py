"""Figment's training: conditional and unconditional DCGANs, from images to model files."""

import service  # noqa: F401  # turns off ONNX Runtime's reports before anything here loads it
