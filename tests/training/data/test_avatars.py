from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from training.data import avatars
from training.data.dataset import Dataset

IMAGES = 300


@pytest.fixture(scope="module")
def faces() -> Dataset:
    return avatars.draw(IMAGES, seed=5)


def repaint(index: int, **labels: str) -> npt.NDArray[np.int64]:
    """Image ``index`` of ``faces``, with some labels changed and nothing else."""
    dice = avatars.Dice(5, index)
    chosen = avatars.choose_labels(dice)
    drawn = avatars.render({**chosen, **labels}, dice).reduce(avatars.SUPERSAMPLING)
    return np.asarray(drawn, dtype=np.int64)


def test_images_labels_and_licence(faces: Dataset) -> None:
    assert faces.name == "avatars"
    assert faces.licence == "MIT (drawn by Figment)"
    assert faces.images.shape == (IMAGES, 64, 64, 3)
    assert faces.images.dtype == np.uint8
    assert {a.name: a.values for a in faces.attributes} == avatars.VALUES


def test_frequencies_are_those_of_the_labels(faces: Dataset) -> None:
    for attribute, column in zip(faces.attributes, faces.labels.T, strict=True):
        counts = np.bincount(column, minlength=len(attribute.values))
        assert counts.min() > 0
        assert attribute.frequencies == pytest.approx(counts / IMAGES)


def test_one_image_has_the_whole_vocabulary() -> None:
    single = avatars.draw(1)
    assert {a.name: a.values for a in single.attributes} == avatars.VALUES
    assert all(sorted(a.frequencies)[-2:] == [0, 1] for a in single.attributes)


def test_image_depends_on_seed_and_index_alone(faces: Dataset) -> None:
    fewer = avatars.draw(20, seed=5)
    assert np.array_equal(fewer.images, faces.images[:20])
    assert np.array_equal(fewer.labels, faces.labels[:20])


def test_other_seed_gives_other_images(faces: Dataset) -> None:
    other = avatars.draw(20, seed=6)
    assert not any(np.array_equal(a, b) for a, b in zip(other.images, faces.images, strict=False))


@pytest.mark.parametrize("attribute", ["hair", "eyes"])
def test_drawn_colour_is_the_labelled_one(faces: Dataset, attribute: str) -> None:
    names = avatars.VALUES[attribute]
    table = np.array([avatars.COLOURS[name] for name in names])
    labels = faces.labels[:, list(avatars.VALUES).index(attribute)]
    for index, (image, label) in enumerate(zip(faces.images, labels, strict=True)):
        # The pixels that follow the label are those that change with it.
        repainted = repaint(index, **{attribute: names[(label + 1) % len(names)]})
        change = np.abs(repainted - image).max(axis=-1)
        pixels = image[change > change.max() / 2]
        distances = ((pixels[:, None] - table) ** 2).sum(axis=-1)
        nearest = np.bincount(distances.argmin(axis=1), minlength=len(names))
        assert len(pixels) > 40
        assert nearest[label] > len(pixels) / 2, f"image {index} is not {names[label]}"


@pytest.mark.parametrize("attribute", ["style", "expression", "glasses"])
def test_each_value_changes_the_picture(attribute: str) -> None:
    pictures = [repaint(0, **{attribute: value}) for value in avatars.VALUES[attribute]]
    for index, picture in enumerate(pictures):
        for other in pictures[:index]:
            clearly_different = np.abs(picture - other).max(axis=-1) > 48
            assert clearly_different.sum() >= 10


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_invalid_count_or_seed_is_rejected(count: int, seed: int) -> None:
    with pytest.raises(ValueError):
        avatars.draw(count, seed)


def test_larger_avatars_show_the_same_faces(faces: Dataset) -> None:
    large = avatars.draw(5, seed=5, side=128)
    assert large.images.shape == (5, 128, 128, 3)
    assert np.array_equal(large.labels, faces.labels[:5])
    means = large.images.reshape(5, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(means - faces.images[:5]).max() <= 1
    with pytest.raises(ValueError, match="side must be one of"):
        avatars.draw(1, side=100)
