from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.data import avatars
from training.memorisation import memorisation, pixels
from training.metrics.nearest import nearest


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(avatars.draw(600).images[:, ::4, ::4].copy())


def test_the_nearest_of_several_parts_is_the_nearest_of_all() -> None:
    rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.cdist(queries, rows).min(dim=1)
    for size in (1, 7, 100):
        found = nearest(queries, rows.split(size))
        assert found.indices.tolist() == expected.indices.tolist()
        assert found.distances.tolist() == pytest.approx(expected.values.tolist(), rel=1e-4)


def test_a_copy_is_at_no_distance_however_far_from_the_origin() -> None:
    rows = 1000 + torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    found = nearest(rows[[7, 3]], rows.split(16))
    assert found.indices.tolist() == [7, 3]
    assert found.distances.tolist() == [0, 0]


def test_pixels_are_compared_by_the_root_mean_square_of_their_differences() -> None:
    one = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    other = one.clone()
    other[0, :2] = 100  # half of them
    assert float((pixels(one) - pixels(other)).norm()) == pytest.approx(100 / 2**0.5)


def test_copies_and_mirrored_copies_are_found(images: Tensor) -> None:
    trained, held_out = images[:400], images[400:500]
    samples = images[500:].clone()
    samples[3], samples[8] = trained[11], trained[22].flip(1)
    found = memorisation("pixels", pixels, trained, held_out, samples)
    assert found.samples.worst(2).tolist() == [3, 8]
    assert found.samples.distances[[3, 8]].tolist() == [0, 0]
    assert found.samples.indices[[3, 8]].tolist() == [11, 22]
    assert found.samples.mirrored[[3, 8]].tolist() == [False, True]
    assert found.samples.minimum == 0 < found.held_out.minimum


def test_samples_like_the_held_out_images_come_no_nearer_than_these(images: Tensor) -> None:
    found = memorisation("pixels", pixels, images[:200], images[200:400], images[400:])
    assert found.nearer < 0.05
    assert found.samples.median == pytest.approx(found.held_out.median, rel=0.1)
    assert found.samples.minimum < found.samples.low < found.samples.median


def test_slightly_changed_copies_are_nearer_than_held_out_images(images: Tensor) -> None:
    samples = (images[:200].int() + 2).clamp(max=255).to(torch.uint8)
    found = memorisation("pixels", pixels, images[:200], images[200:400], samples)
    assert found.nearer > 0.9
    assert found.samples.low < found.held_out.low
