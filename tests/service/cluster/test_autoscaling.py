"""Number of replicas from queue and utilisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from service.cluster.autoscaling import QUEUE, RATE, WORK, ImageQueuePolicy, desired_replicas


@pytest.mark.parametrize(
    ("queue", "work", "rates", "number"),
    [
        (0, 0, [300, 300], 1),  # idle: Ray keeps the least that was configured
        (60, 0, [300, 300], 1),  # 0.2 s of one
        (61, 0, [300, 300], 2),
        (600, 0, [300, 300], 10),
        (10, 470, [300, 300], 2),  # hardly a queue, but one alone would not keep up
        (10, 490, [300, 300], 3),
        (0, 230, [300, 0], 1),  # one has not measured anything yet
        (600, 0, [1500, 1500], 2),  # the same queue before faster ones
        (5000, 900, [0, 0], None),
        (5000, 900, [], None),
    ],
)
def test_replicas_follow_queue_and_utilisation(
    queue: float, work: float, rates: list[float], number: int | None
) -> None:
    assert desired_replicas(queue, work, rates, seconds=0.2, share=0.8) == number


@dataclass
class AutoscalingContext:
    """Context that Ray passes to a policy."""

    target_num_replicas: int = 3
    aggregated_metrics: dict[str, dict[Any, float]] | None = field(default_factory=dict)


def test_policy_sums_metrics_of_replicas() -> None:
    metrics = {
        QUEUE: {"a": 100.0, "b": 140.0},
        RATE: {"a": 300.0, "b": 300.0},
        WORK: {"a": 10.0, "b": 10.0},
    }
    assert ImageQueuePolicy()(AutoscalingContext(aggregated_metrics=metrics)) == (4, {})
    assert ImageQueuePolicy(seconds=0.4)(AutoscalingContext(aggregated_metrics=metrics)) == (2, {})
    assert ImageQueuePolicy(share=0.01)(AutoscalingContext(aggregated_metrics=metrics)) == (7, {})


def test_policy_without_metrics_changes_nothing() -> None:
    assert ImageQueuePolicy()(AutoscalingContext(aggregated_metrics=None)) == (3, {})
    assert ImageQueuePolicy()(AutoscalingContext()) == (3, {})
