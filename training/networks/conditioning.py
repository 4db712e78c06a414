"""Labels as condition rows, and labels that are wrong on purpose."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def condition_rows(labels: Tensor, sizes: Sequence[int], known: Tensor | None = None) -> Tensor:
    """Value indices ``[N, A]`` to float32 one-hot vectors side by side ``[N, C]``, C = sum(sizes).

    ``sizes`` holds the number of values of each attribute. With no attributes C is 0. Attributes
    that are not ``known`` (bool ``[N, A]``) are left open: zeros.
    """
    if not sizes:
        return torch.zeros(len(labels), 0, device=labels.device)
    columns = [one_hot(labels[:, a], size) for a, size in enumerate(sizes)]
    if known is not None:
        columns = [column * known[:, a, None] for a, column in enumerate(columns)]
    return torch.cat(columns, dim=1).float()


def mismatch(
    labels: Tensor, known: Tensor, sizes: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Copies of ``labels`` and ``known`` (both ``[N, A]``) where one known attribute is wrong.

    Which one, and what it becomes, is drawn uniformly. Where no attribute is known one becomes so,
    lest the row be right after all.
    """
    device = labels.device
    rows = torch.arange(len(labels), device=device)
    scores = torch.rand(labels.shape, generator=generator, device=device)
    attribute = (scores + known).argmax(dim=1)
    size = _sizes(tuple(sizes), device)[attribute]
    # A shift of 1 to size-1, modulo size, reaches every other value and never the right one.
    uniform = torch.rand(len(labels), generator=generator, device=device)
    shift = 1 + (uniform * (size - 1)).long().clamp(max=size - 2)
    wrong, known = labels.clone(), known.clone()
    wrong[rows, attribute] = (labels[rows, attribute] + shift) % size
    known[rows, attribute] = True
    return wrong, known


@functools.cache  # to copy them to a GPU in every step would make it wait
def _sizes(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(sizes, device=device)
