"""Check of the installed ONNX Runtime wheels, before anything imports them."""

from __future__ import annotations

from importlib import metadata

from service.errors import StartupError

WHEELS = ("onnxruntime", "onnxruntime-gpu")


def check_installation() -> None:
    """Raise ``StartupError`` unless exactly one of the two runtime wheels is installed."""
    found = [name for name in WHEELS if _is_installed(name)]
    if not found:
        raise StartupError(
            "no ONNX Runtime is installed; install figment[cpu], or figment[gpu] for CUDA"
        )
    if len(found) > 1:
        raise StartupError(
            "both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's "
            "files. Uninstall both, then install figment[cpu] or figment[gpu], not both"
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
