from __future__ import annotations

import torch

from training.core.pixels import to_networks, to_uint8
from training.core.randomness import batch_indices, stream
from training.networks.conditioning import condition_rows, mismatch

CPU = torch.device("cpu")


def test_condition_rows_are_concatenated_one_hot_vectors() -> None:
    rows = condition_rows(torch.tensor([[1, 0], [2, 1]]), [3, 2])
    assert rows.tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 0, 1]]
    assert condition_rows(torch.zeros(4, 0, dtype=torch.long), []).shape == (4, 0)


def test_mismatched_labels_are_wrong_in_exactly_one_attribute() -> None:
    sizes = [2, 3, 10]
    labels = torch.stack([torch.arange(6000) % size for size in sizes], dim=1)
    everything = torch.ones_like(labels, dtype=torch.bool)
    wrong, known = mismatch(labels, everything, sizes, stream(0, "test", 0, CPU))
    assert known.all()
    changed = wrong != labels
    assert (changed.sum(dim=1) == 1).all()
    assert (wrong >= 0).all() and (wrong < torch.tensor(sizes)).all()
    # Every attribute, and every wrong value of it, about equally often.
    assert torch.allclose(changed.float().mean(dim=0), torch.full((3,), 1 / 3), atol=0.03)
    shifts = ((wrong - labels) % 10)[changed[:, 2], 2]
    assert torch.bincount(shifts, minlength=10)[1:].min() > 150


def test_unknown_labels_are_zeros_and_wrong_labels_are_known() -> None:
    sizes = [2, 3]
    labels = torch.tensor([[1, 2]]).expand(1000, 2)
    known = torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1]], dtype=torch.bool).repeat(250, 1)
    assert condition_rows(labels[:3], sizes, known[:3]).tolist() == [
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    wrong, now_known = mismatch(labels, known, sizes, stream(0, "test", 0, CPU))
    changed = wrong != labels
    assert (changed.sum(dim=1) == 1).all()
    assert now_known[changed].all()  # or the row would be right after all
    some = known.any(dim=1)
    assert torch.equal(now_known[some], known[some])


def test_pixels_survive_conversion_to_the_networks_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    networks = to_networks(every)
    assert networks.shape == (1, 3, 16, 16)
    assert networks.min() == -1 and networks.max() == 1
    assert torch.equal(to_uint8(networks), every)
    assert to_uint8(torch.full((1, 1, 2, 2), 1.5)).max() == 255


def test_every_image_is_shown_once_in_every_epoch() -> None:
    drawn = torch.cat([batch_indices(3, 10, shown, 4, CPU) for shown in range(0, 40, 4)])
    epochs = drawn.reshape(4, 10)
    assert (epochs.sort(dim=1).values == torch.arange(10)).all()
    assert not torch.equal(epochs[0], epochs[1])


def test_batch_may_be_larger_than_the_data() -> None:
    assert batch_indices(0, 3, 2, 8, CPU).bincount(minlength=3).sum() == 8


def test_streams_differ_by_seed_purpose_and_position() -> None:
    drawn = {
        torch.rand(1, generator=stream(*place, CPU)).item()
        for place in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    }
    assert len(drawn) == 4
