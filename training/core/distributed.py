"""One run on several processes, started by ``torchrun``: each computes its share of every batch.

All draw what a single process would draw, for the whole batch, and take their rows of it; batch
norm and gradients are averaged over all. So a run gives the same images, but for rounding, on one
process and on eight. The process of rank 0 alone reads and writes the run's folder, and sends the
others what they need of it: hosts share nothing but a copy of the data.
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
    """Join the group that ``torchrun`` describes in the environment; alone, do nothing.

    Raises ``RunError`` where the processes could not find each other after a restart.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if restarts() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise RunError(
            "with --max-restarts on several hosts, start torchrun with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1: else processes that are started again may be "
            "told the addresses of those that died (pytorch/pytorch#135712)"
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
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def share(rows: Tensor) -> Tensor:
    """This process's rows of a whole batch."""
    return rows if world_size() == 1 else rows.chunk(world_size())[rank()]


def mean(value: Tensor) -> Tensor:
    """The mean of ``value`` over the processes; gradients pass through."""
    return value if world_size() == 1 else _Mean.apply(value)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(context, gradient)  # every process has used the mean


def average_gradients(network: nn.Module) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
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
    """Whether ``flag`` is set in any process. All must ask at the same time."""
    if world_size() == 1:
        return flag
    total = torch.tensor(float(flag), device=_device())
    dist.all_reduce(total)
    return bool(total > 0)


def broadcast_bytes(content: bytes) -> bytes:
    """What the process of rank 0 gives; what others give does not count. All must ask."""
    if world_size() == 1:
        return content
    length = torch.tensor(len(content), device=_device())
    dist.broadcast(length, src=0)
    own = content if rank() == 0 else bytes(int(length))
    sent = torch.tensor(np.frombuffer(own, np.uint8), device=_device())
    dist.broadcast(sent, src=0)
    return sent.cpu().numpy().tobytes()


def restarts() -> bool:
    """Whether ``torchrun`` starts all processes again when one fails (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def _device() -> torch.device:
    """Where messages lie."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
