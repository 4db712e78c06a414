from __future__ import annotations

import re
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from service.core import latents
from tests.conftest import attribute
from tests.helpers.server import ROOT

GOLDEN = [-0.5613760352134705, 1.5256013870239258, -1.25130033493042, 1.3591312170028687]
RECIPE = ROOT / "docs" / "determinism.md"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The functions of the documented recipe."""
    code = re.search(r"```python\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    assert code
    functions: dict[str, Any] = {}
    exec(code[1], functions)
    return functions


def test_golden_values() -> None:
    """Recipe 1 never changes: these numbers are in docs/determinism.md."""
    drawn = latents.latents(seed=3, first=5, count=1, size=100)[0]
    assert drawn.dtype == np.float32
    assert drawn[:4].tolist() == GOLDEN


def test_documented_golden_values(recipe: dict[str, Any]) -> None:
    text = RECIPE.read_text()
    assert ", ".join(map(str, GOLDEN)) in text
    labels = recipe["labels"](3, 5, [[0.25] * 4, [0.1] * 10])
    assert f"is `{labels}`" in text


@pytest.mark.parametrize(
    ("seed", "index", "size"), [(3, 5, 100), (0, 0, 7), (2**53 - 1, 2**53 - 1, 128)]
)
def test_documented_recipe_gives_the_same_bits(
    recipe: dict[str, Any], seed: int, index: int, size: int
) -> None:
    assert np.array_equal(
        recipe["latent"](seed, index, size), latents.latents(seed, index, 1, size)[0]
    )
    attributes = [attribute("x", *"abc"), attribute("y", *"abcdefghij")]
    labels = recipe["labels"](seed, index, [x.frequencies for x in attributes])
    assert labels == latents.draw_labels(seed, index, 1, attributes)[0].tolist()


def test_latents_of_a_range_equal_those_of_the_whole() -> None:
    together = latents.latents(7, 0, 200, 100)
    assert np.array_equal(latents.latents(7, 100, 100, 100), together[100:])
    assert np.array_equal(latents.latents(7, 199, 1, 100), together[199:])


def test_several_ranges_equal_each_range_alone() -> None:
    stretches = [latents.IndexRange(3, 5, 2), latents.IndexRange(2**53 - 1, 2**53 - 1, 1)]
    stretches.append(latents.IndexRange(3, 0, 7))
    attributes = [attribute("x", *"abc"), attribute("y", *"abcdefghij")]
    alone = [latents.latents(s.seed, s.first, s.count, 100) for s in stretches]
    labels = [latents.draw_labels(s.seed, s.first, s.count, attributes) for s in stretches]
    assert np.array_equal(latents.latents_of(stretches, 100), np.concatenate(alone))
    assert np.array_equal(latents.draw_labels_of(stretches, attributes), np.concatenate(labels))


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100, 128])
def test_images_share_no_randomness(size: int) -> None:
    drawn = latents._uniform([latents.IndexRange(0, 0, 50)], latents._LATENTS, size)
    assert len(np.unique(drawn)) == drawn.size


def test_highest_seed_and_index() -> None:
    drawn = latents.latents(latents.MAX_SEED, latents.MAX_INDEX, 1, 100)
    assert np.isfinite(drawn).all()
    assert not np.array_equal(
        drawn, latents.latents(latents.MAX_SEED - 1, latents.MAX_INDEX, 1, 100)
    )


def test_standard_normal() -> None:
    drawn = latents.latents(11, 0, 10_000, 100).astype(np.float64)
    assert abs(drawn.mean()) < 0.005
    assert abs(drawn.std() - 1) < 0.005
    assert abs((drawn**3).mean()) < 0.02
    assert abs((drawn**4).mean() - 3) < 0.05
    share_beyond_3 = (np.abs(drawn) > 3).mean()
    assert share_beyond_3 == pytest.approx(0.0027, rel=0.1)


def test_normal_quantile_is_accurate() -> None:
    p = np.concatenate([np.linspace(0.001, 0.999, 999), 2.0 ** -np.arange(2.0, 54.0)])
    exact = np.array([NormalDist().inv_cdf(float(x)) for x in p])
    assert latents._normal(p) == pytest.approx(exact, rel=2e-7, abs=1e-9)
    assert latents._normal(1 - p[:999]) == pytest.approx(-exact[:999], rel=2e-6, abs=1e-9)


def test_labels_follow_the_frequencies() -> None:
    hair = attribute("hair", "a", "b", "c").model_copy(update={"frequencies": (0.7, 0.1, 0.2)})
    drawn = latents.draw_labels(0, 0, 20_000, [hair])
    assert np.bincount(drawn[:, 0]) / 20_000 == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


def test_labels_are_independent_of_each_other_and_of_latents() -> None:
    hair, eyes = attribute("hair", "a", "b"), attribute("eyes", *"abcdefgh")
    both = latents.draw_labels(5, 0, 4000, [hair, eyes])
    assert np.array_equal(both[:, :1], latents.draw_labels(5, 0, 4000, [hair]))
    together = np.histogram2d(both[:, 0], both[:, 1], bins=(2, 8))[0] / 4000
    assert together == pytest.approx(np.full((2, 8), 1 / 16), abs=0.02)
    sign = latents.latents(5, 0, 4000, 1)[:, 0] > 0
    assert (sign == both[:, 0]).mean() == pytest.approx(0.5, abs=0.05)


def test_value_with_frequency_zero_is_never_drawn() -> None:
    values = attribute("x", "a", "b", "c").model_copy(update={"frequencies": (0.0, 1.0, 0.0)})
    assert set(latents.draw_labels(0, 0, 1000, [values])[:, 0]) == {1}
