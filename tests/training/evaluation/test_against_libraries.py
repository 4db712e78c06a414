"""Distances against those of torch-fidelity, on the same features; skipped without it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.evaluation.metrics import manifold
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.metrics.kernel import kernel_distance

pytest.importorskip("torch_fidelity")
fidelity = pytest.importorskip("torch_fidelity.metric_fid")
kid = pytest.importorskip("torch_fidelity.metric_kid")
prc = pytest.importorskip("torch_fidelity.metric_prc")


def features(count: int, seed: int, shift: float) -> Tensor:
    mixing = torch.randn(24, 24, generator=torch.Generator().manual_seed(0)).double()
    rows = torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)).double()
    return (rows + shift) @ mixing


REAL, SAMPLES = features(700, 1, 0), features(700, 2, 0.3)


def test_frechet_distance_is_that_of_torch_fidelity() -> None:
    statistics = [fidelity.fid_features_to_statistics(rows) for rows in (REAL, SAMPLES)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)
    assert frechet_distance(REAL, SAMPLES) == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-6
    )


def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    theirs = kid.kid_features_to_metric(
        REAL, SAMPLES, kid_subsets=1, kid_subset_size=len(REAL), verbose=False
    )
    assert kernel_distance(REAL, SAMPLES).value == pytest.approx(
        theirs["kernel_inception_distance_mean"], rel=1e-6
    )


@pytest.mark.parametrize("neighbours", [3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(neighbours: int) -> None:
    theirs = prc.prc_features_to_metric(
        SAMPLES, REAL, prc_neighborhood=neighbours, save_cpu_ram=False, verbose=False
    )
    ours = manifold.compare(REAL, SAMPLES, neighbours)
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-6)
    assert 0 < ours.recall < 1 and 0 < ours.precision < 1
