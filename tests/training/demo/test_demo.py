from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.small_runs import training
from training.demo import gaussian
from training.demo.drawing import density
from training.demo.gaussian import AXIS, MEAN, STATES, STDDEV, shown_steps, train


@pytest.fixture
def _only_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the states between the first and the last, which take a third of the time."""
    monkeypatch.setattr(gaussian, "STATES", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("_only_ends")
def test_with_minibatch_discrimination_the_distribution_is_learnt() -> None:
    *_, end = train(minibatch=True)
    assert end.mean == pytest.approx(MEAN, abs=0.2)
    assert end.stddev == pytest.approx(STDDEV, rel=0.3)


@pytest.mark.slow
@pytest.mark.usefixtures("_only_ends")
def test_without_it_the_generator_collapses() -> None:
    *_, end = train(minibatch=False)
    assert end.mean == pytest.approx(MEAN, abs=0.2)  # what it draws is good, and all the same
    assert end.stddev < STDDEV / 2


def test_the_same_seed_gives_the_same_run() -> None:
    one, same, other = (list(train(minibatch=True, seed=s, steps=5))[-1] for s in (0, 0, 1))
    assert np.array_equal(one.generated, same.generated)
    assert np.array_equal(one.verdict, same.verdict)
    assert not np.array_equal(one.generated, other.generated)


def test_states_are_shown_from_the_first_to_the_last() -> None:
    states = list(train(minibatch=False, steps=20))
    steps = [state.step for state in states]
    assert steps == shown_steps(20)
    assert (steps[0], steps[-1]) == (0, 20)
    assert STATES / 2 < len(shown_steps(2000)) <= STATES + 1
    assert shown_steps(1) == [0, 1]
    verdicts = np.array([state.verdict for state in states])
    assert verdicts.shape == (len(steps), len(AXIS))
    assert verdicts.min() >= 0 and verdicts.max() <= 1


def test_density_of_known_samples() -> None:
    samples = np.random.default_rng(0).normal(MEAN, STDDEV, 4000)
    found = density(samples)
    assert np.trapezoid(found, AXIS) == pytest.approx(1, abs=0.01)
    bell = np.exp(-(((AXIS - MEAN) / STDDEV) ** 2) / 2) / (STDDEV * np.sqrt(2 * np.pi))
    assert np.abs(found - bell).max() < 0.1


def test_the_command_leaves_an_animation_and_its_stills(tmp_path: Path) -> None:
    done = training("demo", "gaussian", "--steps", 10, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    without, discriminating = done.stdout.splitlines()
    assert without.startswith("without minibatch discrimination: mean ")
    assert discriminating.startswith("with minibatch discrimination: mean ")
    with Image.open(tmp_path / "gaussian.webp") as moving:
        assert getattr(moving, "n_frames", 1) == len(shown_steps(10)) > 5
        size = moving.size
    for still in ("gaussian.png", "curves.png"):
        with Image.open(tmp_path / still) as image:
            assert (image.format, image.size) == ("PNG", size)
            colours = image.getcolors(image.width * image.height)
            assert colours is not None and len(colours) > 50
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "'--steps': 0 is not in the range x>=1"),
        (["--seed", "-1"], "'--seed': -1 is not in the range"),
        (["--out", __file__], "is a file"),
    ],
)
def test_bad_options_are_rejected_in_a_sentence(options: list[str], message: str) -> None:
    done = training("demo", "gaussian", *options)
    assert done.exit_code == 2
    assert message in done.stderr
