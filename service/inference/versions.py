"""Versions of the software that may change the bytes of an image or of a set."""

from __future__ import annotations

from importlib import metadata

import deflate
import onnxruntime
import PIL

from service import __version__


def software_of(provider: str) -> str:
    """Versions on one line, ending with ONNX Runtime's ``provider``: ``CPUExecutionProvider``."""
    libraries = {
        "figment": __version__,
        "onnxruntime": onnxruntime.__version__,
        "pillow": PIL.__version__,
        "deflate": deflate.__version__,
        "pyarrow": metadata.version("pyarrow"),  # imported only when used
    }
    versions = [f"{name} {version}" for name, version in libraries.items()]
    return ", ".join([*versions, provider])
