"""Data-parallel training on the processes started by ``torchrun``.

Each process draws the random numbers of the whole batch and computes its share of the rows; batch
norm statistics and gradients are averaged over all processes. So a run on one process and on eight
gives the same images, except for rounding. Only rank 0 reads and writes the run's folder, and it
broadcasts its contents: hosts need no shared storage, only a copy of the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from training.errors import RunError


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group that ``torchrun`` describes in the environment, if any.

    Raises ``RunError`` if the processes could not find each other after a restart.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if restarts() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise RunError(
            "with --max-restarts on several hosts, start torchrun with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1; otherwise restarted processes may get the "
            "addresses of dead ones (pytorch/pytorch#135712)"
        )
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(rows: Tensor) -> Tensor:
    """Rows of this process, out of those of the whole batch."""
    return rows if world_size() == 1 else rows.chunk(world_size())[rank()]


def mean(value: Tensor) -> Tensor:
    """Mean of ``value`` over the processes; differentiable. Collective."""
    return value if world_size() == 1 else _Mean.apply(value)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(context, gradient)  # each process's loss depends on the mean


def average_gradients(network: nn.Module) -> None:
    """Replace each gradient by its mean over the processes, in one all-reduce. Collective."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view(gradient.shape))


def any_rank(flag: bool) -> bool:
    """True if ``flag`` is set on any rank. Collective: every rank must call it."""
    if world_size() == 1:
        return flag
    total = torch.tensor(float(flag), device=_device())
    dist.all_reduce(total)
    return bool(total > 0)


def broadcast_bytes(content: bytes) -> bytes:
    """Broadcast bytes from rank 0. Collective: every rank must call it."""
    if world_size() == 1:
        return content
    length = torch.tensor(len(content), device=_device())
    dist.broadcast(length, src=0)
    own = content if rank() == 0 else bytes(int(length))
    sent = torch.tensor(np.frombuffer(own, np.uint8), device=_device())
    dist.broadcast(sent, src=0)
    return sent.cpu().numpy().tobytes()


def restarts() -> bool:
    """True if ``torchrun`` restarts all processes when one fails (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def _device() -> torch.device:
    """Device of the tensors that the backend sends."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
