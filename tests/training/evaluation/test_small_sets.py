"""Measures of sets of a few hundred images: uncertain ones are left out, or have an error bar."""

from __future__ import annotations

from statistics import fmean

import pytest

from tests.helpers.small_runs import CPU, small_config, some
from training.data import Dataset
from training.evaluation.features import train_network
from training.evaluation.images import limits
from training.evaluation.report import COMPARED, stated
from training.evaluation.snapshot_scores import Scorer
from training.networks.networks import Generator


def test_limits_of_few_held_out_images_are_a_sentence() -> None:
    assert "no evaluation and no verifier" in (limits(31) or "")
    assert "is uncertain by up to 12 points" in (limits(64) or "")
    assert limits(100) is None


def test_shares_of_few_images_are_not_stated() -> None:
    assert set(stated(99)) == {"frechet", "kernel"}
    assert stated(100) == COMPARED


def test_scores_are_means_over_several_sets_of_samples(portraits: Dataset) -> None:
    trained, held_out = some(portraits, 200, "glasses").split(0.3)
    network = train_network(trained, mirror=False, device=CPU)
    scorer = Scorer(held_out, network, (), trained)
    sizes = sum(len(attribute.values) for attribute in held_out.attributes)
    generator = Generator(small_config(), condition_size=sizes, image_shape=(16, 16, 3)).eval()
    line = scorer.line(generator)
    sets = [scorer.measure(generator, seed).line() for seed in scorer.seeds]
    assert len(sets) == 512 // len(held_out) > 1
    assert line["images"] == len(held_out)
    assert line["frechet"] == pytest.approx(fmean(each["frechet"] for each in sets), abs=1e-4)
    assert 0 < line["faults_error"] < 1
