from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from service.core.manifest import Attribute
from tests.conftest import attribute
from training.core.pixels import to_networks
from training.data import avatars
from training.networks.augment import DRAWS, OPERATIONS, augment, conflicts_with_labels, grey_share

ALL = list(OPERATIONS)
ALWAYS = 1 - 1e-6


def uniform(count: int, operations: Sequence[str], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, len(operations), DRAWS, generator=generator)


def draws(*how: float) -> Tensor:
    """Draws of one image and one operation, which is applied."""
    return torch.tensor([0.0, *how, *[0.5] * (DRAWS - 1 - len(how))])[None, None]


def noise(count: int, channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, channels, height, width, generator=generator) * 2 - 1


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """128 avatars of 64x64, in [-1, 1]."""
    return to_networks(torch.from_numpy(avatars.draw(128).images))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (3, 16, 32)])
def test_images_keep_their_shape(name: str, shape: tuple[int, int, int]) -> None:
    images = noise(20, *shape)
    changed = augment(images, [name], ALWAYS, uniform(20, [name]))
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    if (name, shape[0]) != ("colour", 1):
        assert (changed != images).flatten(1).any(dim=1).float().mean() > 0.8


@pytest.mark.parametrize("name", ALL)
def test_images_that_are_not_chosen_keep_their_bits(name: str) -> None:
    images, chance = noise(100), uniform(100, [name])
    changed = augment(images, [name], 0.3, chance)
    is_chosen = chance[:, 0, 0] < 0.3
    assert 15 < is_chosen.sum() < 45
    assert torch.equal(changed[~is_chosen], images[~is_chosen])
    # Those that are, are changed as if they were alone.
    alone = augment(images[is_chosen], [name], 0.3, chance[is_chosen])
    assert torch.allclose(changed[is_chosen], alone, atol=1e-6)
    assert (alone != images[is_chosen]).flatten(1).any(dim=1).float().mean() > 0.8


def test_probability_near_0_or_1_changes_none_or_all() -> None:
    images, chance = noise(50), uniform(50, ALL)
    assert torch.equal(augment(images, ALL, 1e-9, chance), images)
    assert (augment(images, ALL, ALWAYS, chance) != images).flatten(1).any(dim=1).all()
    assert torch.equal(augment(images, [], 0.5, uniform(50, [])), images)


def test_operations_are_chosen_independently() -> None:
    """Two operations with probability 1/2 leave one image in four unchanged."""
    images, chance = noise(400), uniform(400, ["cutout", "colour"])
    changed = augment(images, ["cutout", "colour"], 0.5, chance)
    untouched = (changed == images).flatten(1).all(dim=1)
    assert 0.17 < untouched.float().mean() < 0.33


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 32), (28, 28)])
def test_translation_moves_by_whole_pixels_and_fills_with_grey(height: int, width: int) -> None:
    images, count = noise(1, 3, height, width), 300
    changed = augment(
        images.expand(count, -1, -1, -1), ["translation"], ALWAYS, uniform(count, ["translation"])
    )
    down, right = round(height / 8), round(width / 8)
    framed = torch.nn.functional.pad(images[0], (right, right, down, down))
    possible = {
        (y, x): framed[:, y : y + height, x : x + width]
        for y in range(2 * down + 1)
        for x in range(2 * right + 1)
    }
    found = [
        [place for place, shifted in possible.items() if torch.equal(shifted, one)]
        for one in changed
    ]
    assert all(len(places) == 1 for places in found)
    # Each shift is as likely as any other, up and down, left and right.
    for axis, furthest in ((0, down), (1, right)):
        counts = torch.tensor([places[0][axis] for places in found]).bincount()
        assert len(counts) == 2 * furthest + 1
        assert counts.min() > 0.4 * count / len(counts)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 32), (28, 28)])
def test_cutout_leaves_a_grey_hole_of_half_of_each_side(height: int, width: int) -> None:
    images = torch.ones(1, 3, height, width)
    hole = augment(images, ["cutout"], ALWAYS, draws(0.5, 0.5))[0] == 0
    rows, columns = hole[0].any(dim=1).nonzero()[:, 0], hole[0].any(dim=0).nonzero()[:, 0]
    assert torch.equal(rows, torch.arange(height // 4, height * 3 // 4))
    assert torch.equal(columns, torch.arange(width // 4, width * 3 // 4))
    assert hole.sum() == 3 * (height // 2) * (width // 2)  # one rectangle, in all colours
    # Centred in a corner, a quarter of it is seen.
    hole = augment(images, ["cutout"], ALWAYS, draws(0, 0))[0] == 0
    assert hole[:, : height // 4, : width // 4].all()
    assert hole.sum() == 3 * (height // 4) * (width // 4)


def test_colour_applies_brightness_saturation_and_contrast() -> None:
    image = torch.tensor([0.5, 0.0, -0.2])[None, :, None, None].expand(-1, -1, 16, 16)

    def changed(*how: float) -> Tensor:
        return augment(image, ["colour"], ALWAYS, draws(*how))[0, :, 0, 0]

    still, grey = 0.5, 0.1  # grey is the mean of the three
    assert torch.allclose(changed(still, still, still), image[0, :, 0, 0])
    assert torch.allclose(changed(0.8, still, still), image[0, :, 0, 0] + 0.3)
    assert torch.allclose(changed(still, 0.0, still), torch.tensor(grey))
    assert torch.allclose(changed(still, 0.75, still), torch.tensor([0.7, -0.05, -0.35]))
    assert torch.allclose(changed(still, still, 0.0), torch.tensor([0.3, 0.05, -0.05]))


def test_colour_keeps_positions() -> None:
    image = noise(1)
    changed = augment(image, ["colour"], ALWAYS, draws(0.9, 0.3, 0.8))
    brighter = image.mean(dim=1).flatten(), changed.mean(dim=1).flatten()
    assert torch.equal(brighter[0].argsort(), brighter[1].argsort())


@pytest.mark.parametrize("operations", [*([name] for name in ALL), ALL], ids="-".join)
def test_gradients_equal_finite_differences(operations: list[str]) -> None:
    images = noise(2, 3, 8, 8).double().requires_grad_(True)
    chance = uniform(2, operations, seed=1).double()
    chance[:, :, 0] = 0
    function = lambda x: augment(x, operations, ALWAYS, chance)  # noqa: E731
    assert torch.autograd.gradcheck(function, (images,))
    function(images).sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any(dim=(1, 2, 3)).all()


def test_equal_draws_change_real_and_generated_images_alike() -> None:
    """Changes depend on the draws alone.

    All operations are linear but for the brightness of ``colour``, which is added to both images.
    """
    real, fake, chance = noise(30), -noise(30).flip(0), uniform(30, ALL)
    for name in ALL:
        apart = augment(real, [name], 0.7, chance) - augment(fake, [name], 0.7, chance)
        brightness = augment(torch.zeros_like(real), [name], 0.7, chance)
        expected = augment(real - fake, [name], 0.7, chance) - brightness
        assert torch.allclose(apart, expected, atol=1e-5)


HAIR = attribute("hair", "black", "Blond", "red")
DIGITS = attribute("digit", *"0123456789")
GLASSES = attribute("glasses", "no", "yes")


@pytest.mark.parametrize(
    "coloured",
    [
        HAIR,
        attribute("Black_Hair", "no", "yes"),
        attribute("coat", "dark-brown", "light_brown"),
        attribute("colour", "warm", "cold"),
    ],
    ids=lambda a: a.name,
)
def test_colour_is_rejected_if_labels_are_colours(coloured: Attribute) -> None:
    (problem,) = conflicts_with_labels(["translation", "colour"], True, [GLASSES, coloured])
    assert f"'colour' would change what {coloured.name!r} describes" in problem
    assert conflicts_with_labels(["translation", "cutout"], True, [GLASSES, coloured]) == []


@pytest.mark.parametrize(
    "lettered", [DIGITS, attribute("letter", *"abcdefgh")], ids=lambda a: a.name
)
def test_mirror_is_rejected_if_labels_are_digits_or_letters(lettered: Attribute) -> None:
    (problem,) = conflicts_with_labels([], True, [GLASSES, lettered])
    assert problem.startswith(f"mirror: {lettered.name!r} is digits or letters")
    assert conflicts_with_labels(["colour", "translation", "cutout"], False, [lettered]) == []


def test_mirror_is_rejected_if_labels_name_a_side() -> None:
    for sided in (attribute("gaze", "Left", "right"), attribute("left_eye", "open", "closed")):
        (problem,) = conflicts_with_labels([], True, [sided])
        assert f"{sided.name!r} names a side" in problem
        assert conflicts_with_labels([], False, [sided]) == []


@pytest.mark.parametrize(
    "coded",
    [
        attribute("smiling", "0", "1"),
        attribute("sex", "f", "m"),
        attribute("shirt", "S", "M", "L", "XL", "XXL", "3XL"),
    ],
    ids=lambda a: a.name,
)
def test_all_operations_are_accepted_if_labels_allow_them(coded: Attribute) -> None:
    assert conflicts_with_labels(ALL, True, [GLASSES, coded]) == []
    assert conflicts_with_labels(ALL, True, []) == []


def test_each_problem_has_a_sentence() -> None:
    assert len(conflicts_with_labels(ALL, True, [HAIR, DIGITS, GLASSES])) == 2


@pytest.mark.parametrize(("name", "least"), [("cutout", 0.95), ("translation", 0.9)])
def test_augmented_images_are_detected(faces: Tensor, name: str, least: float) -> None:
    # A shift by less than two pixels is not seen: that is 3 in 17, on both axes at once 3 in 100.
    changed = augment(faces, [name], ALWAYS, uniform(len(faces), [name]))
    assert grey_share(faces, [name]) <= 0.02
    assert grey_share(changed, [name]) >= least
    # Only marks of the given operations are counted.
    assert grey_share(changed, []) == 0
    assert grey_share(changed, ["colour"]) == 0


def test_grey_share_counts_images(faces: Tensor) -> None:
    mixed = faces.clone()
    mixed[:32] = augment(faces[:32], ["cutout"], ALWAYS, uniform(32, ["cutout"]))
    assert grey_share(mixed, ["cutout", "translation"]) == pytest.approx(32 / 128, abs=0.03)


def test_flat_colour_is_not_grey() -> None:
    red = torch.zeros(4, 3, 16, 16)
    assert grey_share(red, ["cutout"]) == grey_share(red, ["translation"]) == 1
    red[:, 0] = 0.5
    assert grey_share(red, ["cutout", "translation"]) == 0


def test_geometric_scales_rotates_and_shifts_in_one_sampling() -> None:
    rows, columns = (torch.linspace(-1, 1, 33)[:, None], torch.linspace(-1, 1, 33)[None])
    # A slope to the right, and one downwards: their values say where a pixel comes from.
    images = torch.stack([columns.expand(33, 33), rows.expand(33, 33)])[None] / 2
    centre = (slice(None), slice(None), 16, 16)
    right = augment(images, ["geometric"], ALWAYS, draws(0.5, 0.5, 0.75, 0.5))
    assert right[centre].flatten().tolist() == pytest.approx([1 / 16, 0], abs=0.01)
    half = augment(images, ["geometric"], ALWAYS, draws(0.1587, 0.5, 0.5, 0.5))  # one deviation
    slope = (half[0, 0, 16, 20] - half[0, 0, 16, 12]) / (
        images[0, 0, 16, 20] - images[0, 0, 16, 12]
    )
    assert slope.item() == pytest.approx(2**0.2, rel=0.01)
    turned = augment(images, ["geometric"], ALWAYS, draws(0.5, 1.0, 0.5, 0.5))
    across = turned[0, :, 16, 20] - turned[0, :, 16, 12]
    assert torch.atan2(across[1], across[0]).rad2deg().item() == pytest.approx(10, abs=0.2)


def test_geometric_leaves_no_grey(faces: Tensor) -> None:
    changed = augment(faces, ["geometric"], ALWAYS, uniform(len(faces), ["geometric"]))
    plain = grey_share(faces, ["translation", "cutout"])
    assert grey_share(changed, ["translation", "cutout"]) < plain + 0.05


def test_noise_fills_the_rectangle_that_cutout_would_leave_grey() -> None:
    images, chance, grain = noise(20), uniform(20, ["noise"]), noise(20).flip(0)
    changed = augment(images, ["noise"], 0.5, chance, grain)
    cut = augment(images, ["cutout"], 0.5, chance)
    assert torch.equal(changed, torch.where(cut == images, images, grain))
    assert 0 < (cut != images).float().mean() < 0.3
