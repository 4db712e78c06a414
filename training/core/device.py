"""Choice of device and precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from training.errors import RunError

CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu`` or ``cuda``; ``auto`` prefers CUDA.

    Raises ``RunError`` if ``cuda`` is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("device is cuda, but PyTorch finds no CUDA device here")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto`` to ``bfloat16`` if the hardware multiplies in it, else to ``float32``."""
    if name == "auto":
        return "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return name


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def convolutions_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context in which networks compute in ``float32`` or ``bfloat16``."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return nullcontext()
