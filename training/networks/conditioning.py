"""Labels as condition rows, and wrong labels for the matching-aware loss."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def condition_rows(labels: Tensor, sizes: Sequence[int], known: Tensor | None = None) -> Tensor:
    """Convert value indices ``[N, A]`` to concatenated one-hot rows ``[N, C]``, C = sum(sizes).

    Returns float32. ``sizes`` holds the number of values of each attribute; C is 0 without
    attributes. Attributes that are not ``known`` (bool ``[N, A]``) are zeros.
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
    """Copies of ``labels`` and ``known`` (both ``[N, A]``) with one wrong attribute per row.

    The attribute, one of the known ones, and its wrong value are drawn uniformly. In a row without
    known attributes, one becomes known, or the row would not be wrong.
    """
    device = labels.device
    rows = torch.arange(len(labels), device=device)
    scores = torch.rand(labels.shape, generator=generator, device=device)
    attribute = (scores + known).argmax(dim=1)
    size = _sizes(tuple(sizes), device)[attribute]
    # A shift by 1 to size-1, modulo size, gives every value but the right one.
    uniform = torch.rand(len(labels), generator=generator, device=device)
    shift = 1 + (uniform * (size - 1)).long().clamp(max=size - 2)
    wrong, known = labels.clone(), known.clone()
    wrong[rows, attribute] = (labels[rows, attribute] + shift) % size
    known[rows, attribute] = True
    return wrong, known


@functools.cache  # a copy to the GPU in every step would synchronise with it
def _sizes(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(sizes, device=device)
