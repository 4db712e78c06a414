"""Checkpoints: the state of a run as one safetensors file with JSON in its header, no pickle.

Writes are atomic, so a run killed at any moment keeps its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from service.core.atomic_write import write_atomically
from training.errors import CheckpointError

FORMAT_VERSION = 1
UNREADABLE = (SafetensorError, OSError, LookupError, ValueError, RuntimeError)
"""Errors of files that are damaged or belong to other networks."""


def collect(
    modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Tensors of networks and optimizers, named as ``read`` needs them."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        tensors |= dict(_optimizer_tensors(name, optimizer))
    return tensors


def write(path: Path, shown: int, tensors: dict[str, Tensor]) -> None:
    """Write the tensors of ``collect`` and the number of images shown."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    header = {"figment": json.dumps({"format_version": FORMAT_VERSION, "shown": shown})}
    write_atomically(path, save(tensors, header))


def shown(path: Path) -> int:
    """Number of images shown before the file was written. Raises ``CheckpointError``."""
    try:
        with safe_open(path, framework="pt") as file:
            return _shown(file, path)
    except UNREADABLE as error:
        raise _not_of_this_run(path, error) from error


def read(
    path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> int:
    """Load a file into networks and optimizers; return the number of images shown.

    Raises ``CheckpointError`` if the file is damaged or belongs to other networks.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = _shown(file, path)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(_with_prefix(tensors, name))
        for name, optimizer in optimizers.items():
            _restore_optimizer(optimizer, _with_prefix(tensors, name))
        return position
    except UNREADABLE as error:
        raise _not_of_this_run(path, error) from error


def _shown(file: Any, path: Path) -> int:
    state = json.loads((file.metadata() or {})["figment"])
    if state["format_version"] != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format {state['format_version']} is not supported")
    return int(state["shown"])


def _not_of_this_run(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a checkpoint of this run: {error}")


def _optimizer_tensors(name: str, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            yield f"{name}.{index}.{key}", value


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, moment = key.split(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # Fused steps need moments with the memory format of their parameter.
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{prefix}."): value
        for key, value in tensors.items()
        if key.startswith(f"{prefix}.")
    }
