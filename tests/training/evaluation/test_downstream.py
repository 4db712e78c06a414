from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from service.core.manifest import Attribute
from training.data import Dataset
from training.evaluation import downstream
from training.evaluation.classifiers import ClassifierTraining
from training.evaluation.confidence import estimate
from training.evaluation.downstream import (
    ARMS,
    CLASSIC,
    REAL,
    SYNTHETIC,
    Experiment,
    Plan,
    Trial,
    planned,
)
from training.evaluation.downstream_report import (
    COLOURS,
    as_json,
    as_markdown,
    as_picture,
    summarise,
    verdict,
)
from training.evaluation.features import FeatureNetwork
from training.evaluation.samples import Labelled, Samples

MIXED, BOTH, FINE_TUNED = "real + synthetic", "real + classic + synthetic", "pretrained, real"
CPU = torch.device("cpu")
COLOUR = Attribute(name="colour", values=("red", "blue"), frequencies=(0.5, 0.5))
SHAPE = Attribute(name="shape", values=("round", "square", "flat"), frequencies=(0.8, 0.2, 0))


def noise(count: int, seed: int) -> Dataset:
    """Noise of 16x16 with a little more red or a little more blue, labelled with which."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 1))
    images = rng.integers(0, 226, (count, 16, 16, 3))
    images[np.arange(count), :, :, 2 * labels[:, 0]] += 30
    return Dataset("noise", images.astype(np.uint8), labels, (COLOUR,))


def samples_of(data: Dataset) -> Samples:
    def make(first: int, count: int) -> Labelled:
        rows = slice(first, first + count)
        return Labelled(data.images[rows], data.labels[rows])

    return Samples(make, len(data))


def experiment(synthetic: Dataset, steps: int) -> Experiment:
    training = ClassifierTraining(mirror=True, device=CPU, min_passes=0.1, min_steps=steps)
    return Experiment(noise(200, 1), samples_of(synthetic), noise(200, 3), training)


def trials_of(arm: str, accuracies: Sequence[float], budget: int | None = 5) -> list[Trial]:
    return [
        Trial(
            arm,
            budget,
            seed,
            0 if arm == SYNTHETIC else 10 + seed,
            accuracy,
            {"colour": accuracy},
            {"colour": {"red": accuracy / 2, "blue": accuracy}},
            0.05,
        )
        for seed, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize("budget", [1, 7, 90])
def test_budget_contains_images_of_every_value(budget: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 2, 300), rng.choice(2, 300, p=[0.8, 0.2])], axis=1)
    both = replace(noise(300, 0), labels=labels, attributes=(COLOUR, SHAPE))
    counts = [np.bincount(column, minlength=3) for column in labels.T]
    enough = np.minimum(counts, budget)  # nothing is flat
    rows = downstream.subset(both, budget, 0)
    bought = np.array([np.bincount(column, minlength=3) for column in labels[rows].T])
    assert (bought >= enough).all()
    assert rows.sum() <= enough.sum()
    one = replace(both, labels=labels[:, 1:], attributes=(SHAPE,))
    assert (
        np.bincount(labels[downstream.subset(one, budget, 0), 1]).tolist() == enough[1][:2].tolist()
    )


def test_budget_depends_on_its_seed_and_larger_ones_contain_it() -> None:
    data = noise(100, 0)
    torch.manual_seed(1)
    rows = downstream.subset(data, 7, 0)
    torch.manual_seed(2)
    assert np.array_equal(downstream.subset(data, 7, 0), rows)
    assert not np.array_equal(downstream.subset(data, 7, 1), rows)
    assert (downstream.subset(data, 9, 0) >= rows).all()
    assert downstream.subset(data, 1000, 0).all()
    with pytest.raises(ValueError, match="a budget of 0 has no images"):
        downstream.subset(data, 0, 0)


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [
        ((0.5, 0.7), 0.6, 1.2706),  # 12.706 * 0.14142 / sqrt(2)
        ((1, 2, 3, 4), 2.5, 2.05397),  # 3.182 * 1.29099 / sqrt(4)
        ((1, 3) * 16, 2, 0.36675),  # 2.042 * 1.01600 / sqrt(32), the t of 31 values
        ((0.25, 0.25, 0.25), 0.25, 0),
    ],
)
def test_intervals_are_those_of_student(values: Sequence[float], mean: float, half: float) -> None:
    found = estimate(values)
    numbers = (found.mean, found.low, found.high, found.seeds)
    assert numbers == pytest.approx((mean, mean - half, mean + half, len(values)), abs=1e-5)


@pytest.mark.parametrize(
    ("gains", "low", "high", "word"),
    [
        ((0.04, 0.05, 0.06), 0.025157, 0.074843, "helps"),  # 0.05 -+ 4.303 * 0.01 / sqrt(3)
        ((-0.04, -0.05, -0.06), -0.074843, -0.025157, "hurts"),
        ((0.01, 0.02, 0.03), -0.004843, 0.044843, "no difference"),
        ((-0.01, -0.02, -0.03), -0.044843, 0.004843, "no difference"),
    ],
)
def test_gains_are_paired_by_seed(
    gains: Sequence[float], low: float, high: float, word: str
) -> None:
    # The seeds differ far more than the arms: unpaired, no gain would show. The fourth has no pair.
    real = trials_of(REAL, (0.2, 0.5, 0.8, 0.99))
    mixed = trials_of(MIXED, [r.accuracy + g for r, g in zip(real, gains, strict=False)])
    other = trials_of(REAL, (0.9, 0.9, 0.9), budget=50)
    first, second, third = summarise([*mixed[::-1], *other, *real])
    assert [(x.budget, x.arm) for x in (first, second, third)] == [
        (5, REAL),
        (5, MIXED),
        (50, REAL),
    ]
    assert (first.gain, first.gain_over_classic, first.images) == (None, None, (10, 13))
    assert second.gain is not None
    assert (second.gain.low, second.gain.high) == pytest.approx((low, high), abs=1e-6)
    assert verdict(second.gain) == word
    assert second.gain_over_classic is None  # nothing to compare with


@pytest.mark.parametrize("arm", [MIXED, FINE_TUNED])
@pytest.mark.parametrize("true", [True, False])
def test_true_labels_help_and_shuffled_labels_do_not(arm: str, true: bool) -> None:
    synthetic = noise(2000, 2)
    if not true:
        shuffled = np.random.default_rng(4).permutation(synthetic.labels)
        synthetic = replace(synthetic, labels=shuffled)
    plans = [plan for plan in planned([5], range(3)) if plan.arm in (REAL, arm)]
    real, other = summarise(experiment(synthetic, steps=40).trials(plans))
    assert real.images == (10, 10)
    assert other.gain is not None and other.gain.low is not None
    assert other.gain.low > 0 if true else other.gain.low <= 0


def test_interrupted_trials_resume_to_the_same_numbers() -> None:
    few = experiment(noise(100, 2), steps=6)
    plans = planned([4, None], [0, 1])
    torch.manual_seed(1)
    whole = list(few.trials(plans))
    assert [(x.arm, x.budget, x.seed) for x in whole] == plans
    assert len(plans) == 2 * (1 + 2 * len(ARMS)) and len({trial.accuracy for trial in whole}) > 4
    done = [Trial(**json.loads(json.dumps(asdict(trial)))) for trial in whole[::2]]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert list(few.trials(planned([4, None], [0, 1], done))) == whole[1::2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mirror", [False, True])
def test_every_arm_takes_equal_passes_over_the_real_images(
    mirror: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real images are dark at the left, synthetic ones white."""
    synthetic = replace(noise(5000, 0), images=np.full((5000, 16, 16, 3), 255, dtype=np.uint8))
    real = replace(noise(200, 0), images=np.full((200, 16, 16, 3), 255, dtype=np.uint8))
    real.images[:, :, :8] = 0
    white = torch.ones(3, 16, 16)
    dark_left = torch.cat([-white[..., :8], white[..., 8:]], dim=2)
    seen: list[Tensor] = []
    forward = FeatureNetwork.forward

    def watched(network: FeatureNetwork, images: Tensor) -> Tensor:
        seen.append(images)
        return forward(network, images)

    def counts(arm: str, budget: int | None = 30) -> list[list[int]]:
        """For every step: dark at the left, dark at the right, white, and changed otherwise."""
        seen.clear()
        (trial,) = setting.trials([Plan(arm, budget, 0)])
        assert trial.images == (200 if budget is None else 2 * budget)
        kinds = (dark_left, dark_left.flip(2), white)
        known = [[int((x == kind).all(3).all(2).all(1).sum()) for kind in kinds] for x in seen]
        return [[*row, len(x) - sum(row)] for row, x in zip(known, seen, strict=True)]

    monkeypatch.setattr(FeatureNetwork, "forward", watched)
    training = ClassifierTraining(mirror=mirror, device=CPU, min_passes=3, min_steps=5)
    setting = Experiment(real, samples_of(synthetic), real, training)
    assert counts(REAL) == [[64, 0, 0, 0]] * 5
    assert counts(MIXED) == [[64, 0, 64, 0]] * 5
    assert counts(FINE_TUNED) == [[0, 0, 64, 0]] * 5 + [[64, 0, 0, 0]] * 5
    assert counts(REAL, None) == [[64, 0, 0, 0]] * 9  # 3 passes over 90 % of 200
    assert counts(SYNTHETIC, 0) == [[0, 0, 64, 0]] * 10
    left, right, none, changed = np.sum(counts(CLASSIC), axis=0)
    assert left + right + none + changed == 5 * 64 and none == 0
    assert 0.8 < changed / (5 * 64) < 0.95  # 1 - 0.3 ** 2, but for moves by 0
    assert (right > 5) == mirror and left > 5
    left, right, none, changed = np.sum(counts(BOTH), axis=0)
    assert left + right + none + changed == 5 * 128 and none > 5 and left > 5


def test_samples_are_new_in_every_pass_up_to_the_limit() -> None:
    calls: list[tuple[int, int]] = []

    def make(first: int, count: int) -> Labelled:
        calls.append((first, count))
        numbers = np.arange(first, first + count)
        return Labelled(numbers.astype(np.uint8)[:, None, None, None], numbers[:, None])

    samples = Samples(make, 1100)
    assert samples.take(0, 3).labels[:, 0].tolist() == [0, 1, 2]
    assert calls == [(0, 512)]
    assert samples.take(510, 4).labels[:, 0].tolist() == [510, 511, 512, 513]
    assert samples.take(1098, 4).labels[:, 0].tolist() == [1098, 1099, 0, 1]
    assert calls == [(0, 512), (512, 512), (1024, 76)]


def test_validation_images_choose_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state of the training is worse than the one before: the first is kept."""
    scores = iter(range(0, -1000, -1))
    states: list[dict[str, Tensor]] = []

    def falling(training: ClassifierTraining, network: FeatureNetwork, data: Labelled) -> float:
        assert len(data.images) == 4
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(ClassifierTraining, "_confidence", falling)
    setting = experiment(noise(100, 2), steps=40)
    chosen = setting.real.take(downstream.subset(setting.real, 20, 0))
    network = setting.training.fit(chosen, setting.samples, ARMS[REAL], 0)
    assert len(states) == 20
    assert all(torch.equal(x, states[0][name]) for name, x in network.state_dict().items())


def test_accuracy_is_told_for_every_attribute_and_value() -> None:
    # All are round, which is soon learnt.
    labels = np.pad(noise(100, 0).labels, ((0, 0), (0, 1)))
    data = replace(noise(100, 0), labels=labels, attributes=(COLOUR, SHAPE))
    training = ClassifierTraining(mirror=False, device=CPU, min_passes=0.1, min_steps=12)
    (trial,) = Experiment(data, samples_of(data), data, training).trials([Plan(REAL, 20, 0)])
    assert trial.attributes == {"colour": pytest.approx(0.7, abs=0.3), "shape": 1}
    assert trial.accuracy == pytest.approx((trial.attributes["colour"] + 1) / 2)
    assert trial.values["shape"] == {"round": 1}  # no image is square
    shares = [(labels[:, 0] == value).mean() for value in range(2)]
    mean = sum(a * b for a, b in zip(trial.values["colour"].values(), shares, strict=True))
    assert trial.attributes["colour"] == pytest.approx(mean)
    assert 0 <= trial.calibration_error <= 1


def test_datasets_that_do_not_match_are_rejected() -> None:
    data = noise(20, 0)
    training = ClassifierTraining(mirror=True, device=CPU)
    unlabelled = replace(data, labels=data.labels[:, :0], attributes=())
    for odd, said in (
        (replace(data, attributes=(SHAPE,)), "what their labels mean"),
        (replace(data, images=data.images[:, :8]), "differ in their shape"),
        (data.take(np.zeros(20, dtype=np.bool_)), "needs images with labels"),
    ):
        with pytest.raises(ValueError, match=said):
            Experiment(data, samples_of(data), odd, training)
    with pytest.raises(ValueError, match="needs images with labels"):
        Experiment(unlabelled, samples_of(data), unlabelled, training)


REPORTED = [
    *trials_of(SYNTHETIC, (0.61, 0.62, 0.63), 0),
    *trials_of(REAL, (0.5, 0.6, 0.7)),
    *trials_of(CLASSIC, (0.5, 0.6, 0.7)),
    *trials_of(MIXED, (0.46, 0.55, 0.64)),
    *(trial for arm in list(ARMS)[3:] for trial in trials_of(arm, (0.5, 0.56, 0.64))),
    *trials_of(REAL, (0.7, 0.71, 0.72), None),
    *trials_of(MIXED, (0.75, 0.76, 0.78), None),
]
ONE_SEED = [trial for trial in REPORTED if trial.seed == 0 and trial.budget in (0, 5)]


def test_markdown_states_gains_and_verdicts() -> None:
    about = experiment(noise(300, 2), steps=1230)
    text = as_markdown(about, REPORTED)
    for row in (
        "| 5 | real | 10 to 12 | 60.0 [35.2, 84.8] | 60.0 | colour red: 30.0 | 5.0 |  |  |",
        "| 5 | real + classic | 10 to 12 | 60.0 [35.2, 84.8] | 60.0 | colour red: 30.0 | 5.0 "
        "| +0.0 [+0.0, +0.0] no difference |  |",
        "| 5 | real + synthetic | 10 to 12 | 55.0 [32.6, 77.4] | 55.0 | colour red: 27.5 | 5.0 "
        "| -5.0 [-7.5, -2.5] hurts | -5.0 [-7.5, -2.5] hurts |",
        "| all | real + synthetic | 10 to 12 | 76.3 [72.5, 80.1] | 76.3 | colour red: 38.2 | 5.0 "
        "| +5.3 [+3.9, +6.8] helps |  |",
        "|  | synthetic | 0 | 62.0 [59.5, 64.5] | 62.0 | colour red: 31.0 | 5.0 |  |  |",
    ):
        assert row in text.splitlines()
    for said in ("3 seeds", "1,230 batches", "200 held-out", "300 different", "not what a GAN"):
        assert said in text
    # One seed has no interval, and so no verdict.
    text = as_markdown(about, ONE_SEED)
    assert "| -4.0 unknown: only one seed | -4.0 unknown: only one seed |" in text


def test_json_contains_all_trials() -> None:
    read = json.loads(json.dumps(as_json(experiment(noise(300, 2), steps=9), REPORTED)))
    assert [Trial(**trial) for trial in read["trials"]] == REPORTED
    assert read["summaries"][2]["gain"]["mean"] == pytest.approx(-0.05)
    assert (read["samples"], read["held_out"]["images"]) == (300, 200)
    assert read["training"]["min_steps"] == 9


@pytest.mark.parametrize("trials", [REPORTED, ONE_SEED], ids=["intervals", "one-seed"])
def test_the_picture_shows_every_arm(trials: list[Trial]) -> None:
    picture = Image.open(io.BytesIO(as_picture(trials)))
    assert (picture.format, picture.size) == ("PNG", (1320, 480))
    plot = np.asarray(picture.crop((50, 53, 1300, 405)), dtype=int)  # without the legend
    for arm, colour in COLOURS.items():
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(plot - rgb).max(axis=2) < 30).sum() > 20, arm
    tint = 255 - (255 - rgb) * 0.2  # of the band, the interval of synthetic images alone
    assert ((np.abs(plot - tint).max(axis=2) < 3).sum() > 1000) == (trials is REPORTED)
    with pytest.raises(ValueError, match="nothing to draw"):
        as_picture(trials_of(SYNTHETIC, (0.5, 0.6), 0))
