"""Randomness of a run: a pure function of its seed and the number of images shown so far.

Nothing draws from global state and no generator outlives a step, so a resumed run draws the same
numbers as an uninterrupted one.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def stream(seed: int, purpose: str, position: int, device: torch.device) -> torch.Generator:
    """Generator for one purpose at one position of the run (images shown, or an epoch)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{position}".encode()).digest()
    generator = torch.Generator(device=device)
    generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return generator


@contextmanager
def scoped_seed(seed: int, purpose: str, position: int, device: torch.device) -> Iterator[None]:
    """Seed the global state within the context, for initialisation and dropout.

    They cannot draw from a generator that is passed in. The previous state is restored.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(stream(seed, purpose, position, device).initial_seed())
        yield


def batch_indices(seed: int, size: int, shown: int, batch: int, device: torch.device) -> Tensor:
    """Indices ``[batch]`` of the images at positions ``shown .. shown+batch-1`` of the run.

    Each epoch is a permutation of all ``size`` images.
    """
    pieces = []
    while batch > 0:
        epoch, position = divmod(shown, size)
        piece = _order(seed, epoch, size, device)[position : position + batch]
        pieces.append(piece)
        shown, batch = shown + len(piece), batch - len(piece)
    return torch.cat(pieces)


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def _order(seed: int, epoch: int, size: int, device: torch.device) -> Tensor:
    return torch.randperm(size, generator=stream(seed, "epoch", epoch, device), device=device)
