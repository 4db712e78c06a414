from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.data import avatars
from training.evaluation.metrics import kernel
from training.evaluation.metrics.diversity import diversity
from training.evaluation.metrics.duplicates import duplicate_share, thumbnails
from training.evaluation.metrics.entropy import entropies
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.metrics.kernel import kernel_distance
from training.evaluation.metrics.manifold import Manifold, compare


def normal(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def by_eigenvalues_of_the_product(a: Tensor, b: Tensor) -> float:
    """The trace of the root of cov_a cov_b as the sum of the roots of its eigenvalues."""
    a, b = a.double(), b.double()
    product = a.T.cov() @ b.T.cov()
    cross = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()
    traces = a.var(dim=0).sum() + b.var(dim=0).sum()
    return float((a.mean(dim=0) - b.mean(dim=0)).square().sum() + traces - 2 * cross)


@pytest.mark.parametrize(("count", "size"), [(500, 8), (20, 64)])  # 64: no covariance of full rank
def test_frechet_distance_of_a_set_to_itself_is_zero(count: int, size: int) -> None:
    features = 10 + normal(count, size)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(features, features.flip(0)) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_of_known_gaussians_is_the_closed_form() -> None:
    """Diagonal covariances: squared difference of the means, and of the deviations."""
    size = 4
    shift, deviation = torch.tensor([3.0, 0, -1, 0]), torch.tensor([1.0, 2, 0.5, 3])
    a, b = normal(20_000, size), normal(20_000, size, seed=1) * deviation + shift
    expected = 3**2 + 1**2 + 1**2 + 0.5**2 + 2**2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(a, a + shift) == pytest.approx(10, rel=1e-4)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))
    # Turned together, they lie as far apart.
    turn = torch.linalg.qr(normal(size, size, seed=2)).Q
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-4)


def test_frechet_distance_is_what_another_way_gives() -> None:
    a = normal(300, 16) @ normal(16, 16, seed=1) + 2
    b = normal(200, 16, seed=2).relu() @ normal(16, 16, seed=3)
    assert frechet_distance(a, b) == pytest.approx(by_eigenvalues_of_the_product(a, b), rel=1e-6)


def test_frechet_distance_of_a_single_feature() -> None:
    # Means 2 and 5, deviations 1 and 3.
    assert frechet_distance(column(1, 2, 3), column(2, 5, 8)) == pytest.approx(9 + 4)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_gaussian_needs_two_rows(rows: int) -> None:
    for pair in ((normal(rows, 3), normal(9, 3)), (normal(9, 3), normal(rows, 3))):
        with pytest.raises(ValueError, match="fewer than two rows"):
            frechet_distance(*pair)


def test_manifold_by_hand() -> None:
    """With two neighbours, the balls of 0, 1, 3, 10 reach 3, 2, 3, 9; those of 0.5, 2, 20, 21
    reach 19.5, 18, 18, 19."""
    found = compare(column(0, 1, 3, 10), column(0.5, 2, 20, 21), neighbours=2)
    # 0.5 lies in the balls of 0, 1 and 3; 2 in all of them; 20 and 21 in none.
    assert found == Manifold(
        precision=2 / 4,
        recall=4 / 4,
        density=(3 + 4) / (2 * 4),
        coverage=4 / 4,
    )
    # The other way round: 0 and 1 lie in the balls of 0.5 and 2, 3 and 10 in all.
    found = compare(column(0.5, 2, 20, 21), column(0, 1, 3, 10), neighbours=2)
    assert found == Manifold(
        precision=4 / 4,
        recall=2 / 4,
        density=(2 + 2 + 4 + 4) / (2 * 4),
        coverage=4 / 4,
    )


def test_manifold_of_a_set_and_itself_is_perfect() -> None:
    features = normal(100, 8)
    found = compare(features, features)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(6 / 5)  # the five nearest, and itself


def test_manifold_of_a_collapsed_set_is_precise_and_covers_little() -> None:
    real = normal(200, 8)
    collapsed = real.mean(dim=0).expand(200, -1)
    found = compare(real, collapsed)
    assert found.precision == 1
    assert found.recall == 0
    assert found.coverage < 0.5
    # Where it is one of the outermost images, next to nothing is covered.
    outermost = real[real.norm(dim=1).argmax()].expand(200, -1)
    found = compare(real, outermost)
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 200)
    assert found.coverage < 0.05


def test_manifold_of_sets_far_apart_is_nothing() -> None:
    assert compare(normal(100, 8), normal(100, 8, seed=1) + 100) == (0, 0, 0, 0)


def test_manifold_does_not_depend_on_the_order_of_rows() -> None:
    real, samples = normal(80, 4), normal(90, 4, seed=1) + 1
    order = torch.randperm(80, generator=torch.Generator().manual_seed(2))
    assert 0 < compare(real, samples).recall < 1
    assert compare(real[order], samples.flip(0)) == compare(real, samples)


def test_manifold_sees_small_distances_far_from_the_origin() -> None:
    """Two clouds of 1e-3 that do not touch, at 100: products of such features lose the digits."""
    real = 100 + 1e-3 * normal(50, 8)
    assert compare(real, real + 0.02) == (0, 0, 0, 0)


def test_manifold_needs_more_images_than_neighbours() -> None:
    with pytest.raises(ValueError, match="more than 5 images"):
        compare(normal(5, 3), normal(50, 3))
    with pytest.raises(ValueError, match="more than 5 images"):
        compare(normal(50, 3), normal(5, 3))


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """Thumbnails of 300 avatars."""
    return thumbnails(torch.from_numpy(avatars.draw(300).images))


def test_thumbnails_are_means_of_areas() -> None:
    images = torch.zeros(2, 16, 32, 3, dtype=torch.uint8)
    images[1, 0, 4:8, 2] = 255  # in blue, half of the second area of 2x4 in the first row
    found = thumbnails(images).reshape(2, 3, 8, 8)
    assert found[1, 2, 0, 1] == 0.5
    assert found.sum() == 0.5


def test_varied_samples_are_no_duplicates(faces: Tensor) -> None:
    assert duplicate_share(faces[:150], faces[150:]) <= 0.05


def test_planted_copies_are_found(faces: Tensor) -> None:
    samples, real = faces[:150].clone(), faces[150:]
    samples[:30] = samples[30:60] + 1e-3  # so that 60 are nearly another one
    before = duplicate_share(faces[:150], real)
    assert 0.4 <= duplicate_share(samples, real) <= 0.4 + before
    assert duplicate_share(samples[:1].expand(150, -1), real) == 1


def test_copies_among_real_images_hide_no_collapse(faces: Tensor) -> None:
    """Data that was collected from the web has some; a generator may still not draw only one."""
    samples, real = faces[:150], faces[150:].clone()
    real[:20] = real[20:40]
    assert duplicate_share(samples[:1].expand(150, -1), real) == 1
    assert duplicate_share(samples, real) <= 0.05


def test_fewer_real_images_than_samples_are_compared_with_as_many(faces: Tensor) -> None:
    samples = faces.clone()
    samples[100:] = samples[:1]
    assert duplicate_share(samples, faces[:100]) <= 0.05


def cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() @ b.double().T / a.shape[1] + 1) ** 3


def test_kernel_distance_is_the_unbiased_discrepancy_under_a_cubic_kernel() -> None:
    """Binkowski et al. 2018, equations 3 and 4, where every subset is the whole set."""
    a, b = normal(60, 5), normal(60, 5, seed=1) * 1.5 + 0.5
    count = len(a)
    within = sum(float(x.sum() - x.trace()) for x in (cubic(a, a), cubic(b, b)))
    expected = within / (count * (count - 1)) - 2 * float(cubic(a, b).mean())
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.deviation is None


def test_kernel_distance_of_sets_of_one_kind_is_about_zero_whatever_their_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "SUBSET", 200)  # fast
    for count in (100, 300):
        found = kernel_distance(normal(count, 16), normal(count, 16, seed=1))
        assert abs(found.value) < 0.05
    assert kernel_distance(normal(100, 16), normal(100, 16, seed=1) + 1).value > 1


def test_kernel_distance_is_a_function_of_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "SUBSET", 100)  # fast
    a, b = normal(110, 4), normal(120, 4, seed=1)
    torch.manual_seed(5)
    first = kernel_distance(a, b)
    torch.manual_seed(6)
    assert kernel_distance(a, b) == first
    assert first.deviation is not None
    assert first.deviation > 0
    with pytest.raises(ValueError, match="two rows"):
        kernel_distance(a[:1], b)


def test_frechet_distance_is_what_torchmetrics_gives() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes 1 s

    identity = nn.Identity()
    identity.num_features = 8  # type: ignore[assignment]
    theirs = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    a, b = normal(300, 8).double(), normal(200, 8, seed=1).double() * 2 + 1
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_entropies_by_hand() -> None:
    sure = torch.eye(4)
    assert entropies(sure) == pytest.approx((0, math.log(4)))
    assert entropies(torch.full((5, 4), 0.25)) == pytest.approx((math.log(4), math.log(4)))
    assert entropies(sure[:1].repeat(9, 1)) == pytest.approx((0, 0))
    half = torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5]])
    expected = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert entropies(half) == pytest.approx((math.log(2), expected))


def test_diversity_by_hand() -> None:
    assert diversity(column(0, 3, 4)) == pytest.approx((3 + 4 + 1) / 3)
    assert diversity(column(2, 2)) == 0
    with pytest.raises(ValueError, match="fewer than two"):
        diversity(column(1))
