from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.data import Dataset
from training.evaluation.memorisation import Memorisation, Neighbours, memorisation, pixels
from training.evaluation.metrics.nearest import nearest


@pytest.fixture(scope="module")
def images(portraits: Dataset) -> Tensor:
    return torch.from_numpy(portraits.images)


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
    assert found.samples.median == pytest.approx(found.held_out.median, rel=0.1)
    assert found.samples.minimum < found.samples.low < found.samples.median


def test_copies_are_suspicious_and_held_out_images_hardly_ever(images: Tensor) -> None:
    """Images that none was trained on, dealt out as samples and as held-out ones, many times."""
    unseen = memorisation("pixels", pixels, images[:200], images[200:400], images[400:])
    pooled = Neighbours(
        *(
            torch.cat([getattr(part, name) for part in (unseen.samples, unseen.held_out)])
            for name in ("distances", "indices", "mirrored")
        )
    )
    generator = torch.Generator().manual_seed(0)
    suspected = 0
    for _ in range(300):
        order = torch.randperm(400, generator=generator)
        ours, theirs = (
            Neighbours(pooled.distances[rows], pooled.indices[rows], pooled.mirrored[rows])
            for rows in order.split(200)
        )
        suspected += Memorisation("pixels", ours, theirs).suspicious
    assert suspected <= 9
    samples = images[400:].clone()
    samples[:20] = images[:20]  # one in ten is a copy
    found = memorisation("pixels", pixels, images[:200], images[200:400], samples)
    assert found.chance < 0.1
    samples[:60] = images[:60]
    assert memorisation("pixels", pixels, images[:200], images[200:400], samples).chance < 0.1


def test_the_chance_by_hand() -> None:
    """Two of 200 are taken as the nearest; that both are samples has odds of 100/200 x 99/199."""

    def neighbours(*near: float) -> Neighbours:
        distances = torch.cat([torch.tensor(near), torch.linspace(5, 6, 100 - len(near))])
        return Neighbours(distances, torch.zeros(100).long(), torch.zeros(100).bool())

    both = Memorisation("pixels", neighbours(1, 2), neighbours(3))
    assert both.chance == pytest.approx(100 / 200 * 99 / 199)
    one = Memorisation("pixels", neighbours(1), neighbours(2))
    assert one.chance == pytest.approx(1 - 100 / 200 * 99 / 199)
    assert Memorisation("pixels", neighbours(), neighbours(1, 2)).chance == pytest.approx(1)


def test_slightly_changed_copies_are_nearer_than_held_out_images(images: Tensor) -> None:
    samples = (images[:200].int() + 2).clamp(max=255).to(torch.uint8)
    found = memorisation("pixels", pixels, images[:200], images[200:400], samples)
    assert found.nearer > 0.9
    assert found.samples.low < found.held_out.low
