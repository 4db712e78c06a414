"""Differentiable augmentation of all images that the discriminator sees.

Real and generated images are augmented alike and gradients pass through, so the discriminator
cannot memorise a small data set, and the generator still learns images without augmentation (Zhao
et al. 2020, https://arxiv.org/abs/2006.10738). Each operation is applied to an image with a
probability below 1, or augmentations would leak into the samples (Karras et al. 2020,
https://arxiv.org/abs/2006.06676, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from service.core.manifest import Attribute, normalise

MAX_SHIFT = 1 / 8
CUTOUT_SIDE = 1 / 2
ZOOM = 0.2
"""Deviation of the scale, in doublings."""
MAX_ANGLE = math.radians(10)
DRAWS = 5
"""Uniform numbers per operation and image: one decides if it applies, four decide how."""

FLATNESS = 0.08
"""Largest distance from grey (0), in [-1, 1], of a pixel that counts as grey."""
FLAT_SHARE = 0.9
"""Share of grey pixels from which an area counts as grey."""

COLOURS = frozenset(
    {"aqua", "beige", "black", "blond", "blonde", "blue", "brown", "cyan", "gold", "golden"}
    | {"gray", "green", "grey", "magenta", "orange", "pink", "purple", "red", "silver", "tan"}
    | {"teal", "turquoise", "violet", "white", "yellow", "color", "colour", "coloured"}
)
MAX_CODES = 5
"""Up to this many single-character values are codes (0 and 1, f and m), not drawn characters."""


def augment(
    images: Tensor,
    operations: Sequence[str],
    probability: float | Tensor,
    uniform: Tensor,
    noise: Tensor | None = None,
) -> Tensor:
    """Apply ``operations`` in order to ``images [N, channels, H, W]`` in [-1, 1].

    ``uniform [N, len(operations), DRAWS]`` in [0, 1), and for ``noise`` also ``noise [N, channels,
    H, W]`` in [-1, 1), are the only randomness.
    """
    for position, name in enumerate(operations):
        draws = uniform[:, position]
        chosen = (draws[:, 0] < probability).to(images.dtype)
        if name == "noise":
            assert noise is not None
            images = torch.where(_holes(images, chosen, draws[:, 1:]), noise, images)
        else:
            images = OPERATIONS[name](images, chosen, draws[:, 1:])
    return images


def mirror(images: Tensor, coins: Tensor) -> Tensor:
    """Swap left and right of the ``images [N, channels, H, W]`` whose coin is below 0.5.

    ``coins [N]`` are uniform in [0, 1).
    """
    return torch.where(coins[:, None, None, None] < 0.5, images.flip(3), images)


def conflicts_with_labels(
    operations: Sequence[str], mirror: bool, attributes: Sequence[Attribute]
) -> list[str]:
    """Reasons why augmentation would contradict these labels, one sentence each."""
    problems = []
    for attribute in attributes:
        texts = (attribute.name, *attribute.values)
        words = {word for text in texts for word in normalise(text).split()}
        if "colour" in operations and len(words & COLOURS) > 0:
            problems.append(
                f"augment: 'colour' would change what {attribute.name!r} describes "
                f"({', '.join(sorted(words & COLOURS)[:3])} ...); use translation,cutout"
            )
        if mirror and "left" in words:
            problems.append(
                f"mirror: {attribute.name!r} names a side, and mirroring swaps sides; leave it out"
            )
        if mirror and len(attribute.values) > MAX_CODES and max(map(len, attribute.values)) == 1:
            problems.append(
                f"mirror: {attribute.name!r} is digits or letters ({attribute.values[0]} ... "
                f"{attribute.values[-1]}), which mirroring changes; leave it out"
            )
    return problems


def _translation(images: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
    """Shift by up to 1/8 of each side; uncovered areas are grey (0)."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for axis, side in enumerate((images.shape[3], images.shape[2])):  # x, then y
        furthest = round(side * MAX_SHIFT)
        pixels = ((2 * furthest + 1) * draws[:, axis]).floor() - furthest
        theta[:, axis, 2] = 2 * pixels * chosen / side  # in the units of affine_grid
    # Whole pixels, so "nearest" is exact.
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid.to(images.dtype), mode="nearest", align_corners=False)


def _cutout(images: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
    """Fill a rectangle of half of each side, centred anywhere, with grey (0)."""
    return images * ~_holes(images, chosen, draws)


def _holes(images: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
    """Bool ``[N, 1, H, W]``: the pixels of a rectangle in each chosen image."""
    inside = []
    for size, draw in zip(images.shape[2:], draws.T, strict=False):
        centre = (size * draw).floor()
        offset = torch.arange(size, device=images.device) - centre[:, None]
        half = size * CUTOUT_SIDE / 2
        inside.append((-half <= offset) & (offset < half))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return hole & chosen.bool()[:, None, None, None]


def _geometric(images: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
    """Scale by 2^N(0, 0.2), rotate by up to 10 degrees, shift by up to 1/8 of each side.

    After Karras et al. 2020 (https://arxiv.org/abs/2006.06676), appendix B; bilinear, and the image
    is reflected at its edges.
    """
    height, width = images.shape[2:]
    deviations = torch.special.ndtri(draws[:, 0].clamp(0.001, 0.999))
    zoom = torch.exp2(-ZOOM * deviations)  # of the sampled area
    angle = MAX_ANGLE * (2 * draws[:, 1] - 1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    shift = 2 * MAX_SHIFT * (2 * draws[:, 2:4] - 1)  # a side is 2 long
    theta = torch.stack(
        [cos, -sin * height / width, shift[:, 0], sin * width / height, cos, shift[:, 1]], dim=1
    ).view(-1, 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=False).to(images.dtype)
    moved = grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return torch.where(chosen.bool()[:, None, None, None], moved, images)


def _colour(images: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
    """Brightness +-0.5 in [-1, 1], saturation times 0 to 2, contrast times 0.5 to 1.5."""
    apply = chosen[:, None, None, None]
    draws = draws.to(images.dtype)[:, :, None, None, None]
    images = images + apply * (draws[:, 0] - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(images, grey + (images - grey) * 2 * draws[:, 1], apply)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(images, mean + (images - mean) * (0.5 + draws[:, 2]), apply)


OPERATIONS = {
    "translation": _translation,
    "cutout": _cutout,
    "colour": _colour,
    "geometric": _geometric,
}


def grey_share(images: Tensor, operations: Sequence[str]) -> float:
    """Share of ``images [N, channels, H, W]`` in [-1, 1] that look augmented.

    They hold a flat grey rectangle, as after a cutout, or a flat grey band at an edge, as after a
    translation. If samples have more of these than the data, the augmentation leaks.
    """
    flat = images.abs().amax(dim=1) < FLATNESS
    marks = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    if "cutout" in operations:
        # Half the size of a cutout, which may lie partly outside the image.
        height, width = (math.ceil(side * CUTOUT_SIDE / 2) for side in images.shape[2:])
        windows = flat.unfold(1, height, max(height // 4, 1)).unfold(2, width, max(width // 4, 1))
        marks |= (windows.float().mean(dim=(3, 4)) > FLAT_SHARE).flatten(1).any(dim=1)
    if "translation" in operations:
        bands = (flat[:, :2], flat[:, -2:], flat[:, :, :2], flat[:, :, -2:])
        edges = torch.stack([band.float().mean(dim=(1, 2)) for band in bands])
        marks |= (edges > FLAT_SHARE).any(dim=0)
    return float(marks.float().mean())
