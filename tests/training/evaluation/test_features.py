from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.small_runs import CPU, some
from training.data import Dataset
from training.errors import DataError
from training.evaluation.features import QUICK, train_network


@pytest.fixture(scope="module")
def faces(portraits: Dataset) -> Dataset:
    """600 avatars of 16x16, labelled with hair and glasses, and named."""
    names = tuple(f"{index}.png" for index in range(len(portraits)))
    return replace(some(portraits, len(portraits), "hair", "glasses"), names=names)


def part(dataset: Dataset, first: int, last: int) -> Dataset:
    rows = np.zeros(len(dataset), dtype=np.bool_)
    rows[first:last] = True
    return dataset.take(rows)


def unlabelled(dataset: Dataset) -> Dataset:
    return replace(dataset, labels=dataset.labels[:, :0], attributes=())


def turns_read(trained: Dataset, held_out: Dataset, turns: int) -> float:
    """Share of the held-out images, each turned, of which the turn is read."""
    network = train_network(unlabelled(trained), mirror=True, device=CPU)
    asked = np.arange(len(held_out)) % turns
    turned = [
        np.rot90(image, int(turn) * 4 // turns)
        for image, turn in zip(held_out.images, asked, strict=True)
    ]
    features = network.features(torch.from_numpy(np.stack(turned)))
    return float((network.read(features)[:, 0].numpy() == asked).mean())


def test_training_is_deterministic_given_its_arguments(faces: Dataset) -> None:
    few = part(faces, 0, 256)
    torch.manual_seed(1)
    first = train_network(few, mirror=True, device=CPU).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = train_network(few, mirror=True, device=CPU).state_dict()
    assert torch.equal(torch.get_rng_state(), before)  # nor does it touch what others draw from
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    for other in (
        train_network(few, mirror=False, device=CPU),
        train_network(few, mirror=True, device=CPU, seed=1),
        train_network(part(faces, 1, 257), mirror=True, device=CPU),
    ):
        assert not torch.equal(other.to_logits.weight, first["to_logits.weight"])


def test_it_reads_the_labels_of_images_that_it_never_saw(faces: Dataset) -> None:
    schedule = replace(QUICK, epochs=10)
    network = train_network(part(faces, 0, 440), mirror=True, device=CPU, schedule=schedule)
    held_out = part(faces, 440, 600)
    features = network.features(torch.from_numpy(held_out.images))
    assert features.shape == (160, 128)
    hair, glasses = (network.read(features).numpy() == held_out.labels).mean(axis=0)
    assert hair > 0.6  # by chance 1/12
    assert glasses > 0.65  # by chance 1/2; a few pixels
    # Ready for inference: an image's features do not depend on its batch.
    alone = network.features(torch.from_numpy(held_out.images[3:4]))
    assert torch.allclose(alone, features[3:4], atol=1e-5)


def test_network_without_labels_learns_rotations(faces: Dataset) -> None:
    assert turns_read(part(faces, 0, 256), part(faces, 440, 600), 4) > 0.7  # by chance 1/4


def test_images_that_are_not_square_are_rotated_by_halves(faces: Dataset) -> None:
    # Faces beside their mirror images.
    wide = replace(faces, images=np.concatenate([faces.images, faces.images[:, :, ::-1]], axis=2))
    assert turns_read(part(wide, 0, 256), part(wide, 440, 600), 2) > 0.9


def test_small_grey_images(faces: Dataset) -> None:
    larger = faces.images[:384].repeat(2, axis=1).repeat(2, axis=2)[:, 2:30, 2:30]
    images = larger.mean(axis=3, keepdims=True).astype(np.uint8)
    grey = Dataset("grey", images, faces.labels[:384], faces.attributes)
    assert images.shape == (384, 28, 28, 1)
    network = train_network(part(grey, 0, 256), mirror=False, device=CPU)
    features = network.features(torch.from_numpy(images[256:]))
    right = (network.read(features).numpy() == grey.labels[256:]).mean(axis=0)
    assert right[0] > 0.25  # hair, by chance 1/12


def test_a_copy_and_a_mirrored_copy_stay_on_one_side(faces: Dataset) -> None:
    few = part(faces, 0, 201)
    doubled = replace(
        few,
        images=np.concatenate([few.images, few.images, few.images[:, :, ::-1]]),
        labels=np.concatenate([few.labels] * 3),
        names=tuple(f"{index}-{kind}" for kind in "abc" for index in range(201)),
    )
    for side in doubled.split(0.3):
        assert side.names is not None
        kinds: dict[str, str] = {}
        for name in side.names:
            index, kind = name.split("-")
            kinds[index] = kinds.get(index, "") + kind
        assert len(kinds) > 30
        assert set(kinds.values()) == {"abc"}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_about_the_configured_share_is_held_out(faces: Dataset, share: float) -> None:
    trained, held_out = faces.split(share)
    assert len(trained) + len(held_out) == len(faces)
    assert len(held_out) / len(faces) == pytest.approx(share, abs=0.05)
    # Every label is in both.
    for side in (trained, held_out):
        assert (np.bincount(side.labels[:, 0], minlength=12) > 0).all()


@pytest.mark.parametrize(("images", "held_out"), [(90, 30), (99, 32), (300, 75), (600, 100)])
def test_of_small_sets_enough_images_are_held_out(
    faces: Dataset, images: int, held_out: int
) -> None:
    few = part(faces, 0, images)
    assert len(few.split(None)[1]) == pytest.approx(held_out, abs=1)


def test_of_large_sets_a_tenth_is_held_out(faces: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.dataset.HELD_OUT_IMAGES", 10)
    assert (faces.held_out(None) == faces.held_out(0.1)).all()


def test_share_of_zero_holds_out_nothing(faces: Dataset) -> None:
    trained, held_out = faces.split(0)
    assert trained.sha256 == faces.sha256
    assert len(held_out) == 0


def test_a_set_that_grows_keeps_its_split(faces: Dataset) -> None:
    before, after = part(faces, 101, 413).split(0.2), faces.split(0.2)
    for small, large in zip(before, after, strict=True):
        assert set(small.names or ()) < set(large.names or ())
    # And a larger share holds out the same images, and more.
    assert set(after[1].names or ()) < set(faces.split(0.4)[1].names or ())


def test_part_of_the_training_images_is_measured_with_the_same_images(faces: Dataset) -> None:
    trained, held_out = faces.split(0.3)
    few, more = (faces.split(0.3, count) for count in (50, 200))
    assert held_out.sha256 == few[1].sha256 == more[1].sha256
    assert (len(few[0]), len(more[0])) == (50, 200)
    assert few[0].among(more[0]).all() and more[0].among(trained).all()
    assert (np.bincount(more[0].labels[:, 0], minlength=12) > 0).all()
    with pytest.raises(DataError, match=f"has {len(trained)} images to train on, and 9,999 are"):
        faces.split(0.3, 9999)


def test_names_and_labels_follow_their_images(faces: Dataset) -> None:
    for side in faces.split(0.3):
        assert side.names is not None
        rows = [int(name.removesuffix(".png")) for name in side.names]
        assert np.array_equal(side.images, faces.images[rows])
        assert np.array_equal(side.labels, faces.labels[rows])
        assert side.attributes == faces.attributes
