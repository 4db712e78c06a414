from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from training.evaluation.metrics.pyramid import project, pyramid, pyramid_distances
from training.evaluation.metrics.spectrum import decibels
from training.evaluation.texture import Texture, compare


def scenes(count: int, seed: int) -> Tensor:
    """Images with details of every size, float ``[N, 3, 64, 64]`` in [0, 1]."""
    random = torch.Generator().manual_seed(seed)
    images = torch.full((count, 3, 64, 64), 0.5)
    for side in (4, 8, 16, 32, 64):
        noise = torch.randn(count, 3, side, side, generator=random)
        images += 0.06 * noise.repeat_interleave(64 // side, 2).repeat_interleave(64 // side, 3)
    return images.clamp(0, 1)


def as_bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def real() -> Texture:
    return Texture.of(as_bytes(scenes(200, 0)))


def test_levels_of_a_pyramid_add_up_to_the_image() -> None:
    images = scenes(2, 0)
    bands = pyramid(images)
    assert [band.shape[2] for band in bands] == [64, 32, 16]
    rebuilt = bands[-1]
    for band in reversed(bands[:-1]):
        rebuilt = band + interpolate(rebuilt, scale_factor=2)
    assert torch.allclose(rebuilt, images, atol=1e-5)


@pytest.mark.parametrize(("side", "levels"), [(28, [28, 14]), (20, [20]), (128, [128, 64, 32, 16])])
def test_levels_of_other_sizes(side: int, levels: list[int]) -> None:
    images = torch.zeros(2, side, side, 1, dtype=torch.uint8)
    assert list(project(images)) == levels


def test_a_set_has_no_distance_from_itself() -> None:
    images = as_bytes(scenes(50, 0))
    assert set(pyramid_distances(project(images), project(images)).values()) == {0}
    scores = compare(Texture.of(images), Texture.of(images))
    assert scores.line() == dict.fromkeys(
        ("pyramid_64", "pyramid_32", "pyramid_16", "fine", "hatch"), 0
    )


def test_another_set_of_the_same_kind_is_near(real: Texture) -> None:
    scores = compare(real, Texture.of(as_bytes(scenes(200, 1))))
    assert all(0 < distance < 60 for distance in scores.pyramid.values())
    assert abs(scores.fine) < 0.2
    assert abs(scores.hatch) < 0.2


def test_checkerboard_is_seen_at_the_finest_level_and_as_hatch(real: Texture) -> None:
    corners = torch.arange(64)
    board = 0.05 * (1 - 2 * ((corners[:, None] + corners) % 2))
    scores = compare(real, Texture.of(as_bytes(scenes(200, 1) + board)))
    assert scores.hatch > 6
    assert abs(scores.fine) < scores.hatch / 2
    assert scores.pyramid[64] > 3 * max(scores.pyramid[32], scores.pyramid[16])


def test_blur_takes_fine_details_away(real: Texture) -> None:
    blurred = avg_pool2d(scenes(200, 1), 3, stride=1, padding=1, count_include_pad=False)
    scores = compare(real, Texture.of(as_bytes(blurred)))
    assert scores.fine < -3
    assert scores.pyramid[64] > scores.pyramid[16]


def test_images_without_any_detail_have_finite_scores(real: Texture) -> None:
    scores = compare(real, Texture.of(torch.full((200, 64, 64, 3), 128, dtype=torch.uint8)))
    assert scores.hatch == decibels(0, real.hatch) < -40
    assert all(distance < 10_000 for distance in scores.pyramid.values())
