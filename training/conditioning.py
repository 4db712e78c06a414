"""Labels as condition rows, and labels that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def condition_rows(labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Value indices ``[N, A]`` to float32 one-hot vectors side by side ``[N, C]``, C = sum(sizes).

    ``sizes`` holds the number of values of each attribute. With no attributes C is 0.
    """
    if not sizes:
        return torch.zeros(len(labels), 0, device=labels.device)
    columns = [one_hot(labels[:, a], size) for a, size in enumerate(sizes)]
    return torch.cat(columns, dim=1).float()


def mismatch(labels: Tensor, sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """A copy of ``labels [N, A]`` in which exactly one attribute of every row is wrong.

    Which one, and what it becomes, is drawn uniformly.
    """
    rows = torch.arange(len(labels), device=labels.device)
    attribute = torch.randint(len(sizes), (len(labels),), generator=generator, device=labels.device)
    size = torch.tensor(sizes, device=labels.device)[attribute]
    # A shift of 1 to size-1, modulo size, reaches every other value and never the right one.
    uniform = torch.rand(len(labels), generator=generator, device=labels.device)
    shift = 1 + (uniform * (size - 1)).long().clamp(max=size - 2)
    wrong = labels.clone()
    wrong[rows, attribute] = (labels[rows, attribute] + shift) % size
    return wrong
