from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.core.manifest import Attribute
from service.datasets.plan_file import read_plan
from tests.helpers.make_dataset import nothing
from tests.helpers.small_runs import CPU, training
from tests.training.conftest import pack
from training.data import Dataset, load
from training.errors import DataError
from training.evaluation import own_images, recommendation
from training.evaluation.classifiers import ClassifierTraining
from training.evaluation.features import new_network
from training.evaluation.mixes import MAX_SET, Mix, SampleSets, Weights, weak_samples, weak_weights
from training.evaluation.recommend import NONE, Gain, Result, Search, cross_validated, simplest
from training.evaluation.samples import Labelled, Samples
from training.runs.log import Log
from training.runs.run import Run

COLOUR = Attribute(name="colour", values=("red", "blue"), frequencies=(0.5, 0.5))
EYES = Attribute(name="eyes", values=("red", "blue", "gone"), frequencies=(0.5, 0.5, 0))
FAST = functools.partial(ClassifierTraining, min_passes=0.01)


def noise(count: int, seed: int, signal: int = 12) -> Dataset:
    """Noise of 16x16 with a little more red or a little more blue, labelled with which."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 1))
    images = rng.integers(0, 226, (count, 16, 16, 3))
    images[np.arange(count), :, :, 2 * labels[:, 0]] += signal
    return Dataset("noise", images.astype(np.uint8), labels, (COLOUR,))


def pool_of(data: Dataset) -> Samples:
    def make(first: int, count: int) -> Labelled:
        rows = (first + np.arange(count)) % len(data)
        return Labelled(data.images[rows], data.labels[rows])

    return Samples(make, 2 * MAX_SET)


def search(
    synthetic: Dataset,
    folder: Path,
    steps: int,
    signal: int = 12,
    clock: Callable[[], float] = lambda: 0,
) -> Search:
    pool = pool_of(synthetic)
    return Search(
        real=noise(120, 1, signal),
        testable=np.ones(120, dtype=np.bool_),
        sets=SampleSets(pool, lambda weights: pool, None),
        training=FAST(mirror=True, device=CPU, min_steps=steps),
        log=Log(folder / "recommend.jsonl"),
        told={"shown": 1},
        minutes=1000,
        clock=clock,
    )


@pytest.mark.slow
def test_samples_with_true_labels_are_recommended_and_wrong_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluation.recommend.RATIOS", (4,))
    synthetic = noise(3000, 2, 25)  # clearer than the real ones
    result = search(synthetic, tmp_path / "true", 60, 7).run()
    assert result.mix != NONE and result.gain.mean > 0.03
    assert result.tested == 120
    wrong = replace(synthetic, labels=1 - synthetic.labels)
    result = search(wrong, tmp_path / "wrong", 60, 7).run()
    assert result.mix == NONE


def test_interrupted_search_resumes_to_the_same_result(tmp_path: Path) -> None:
    synthetic = noise(500, 2)
    whole = search(synthetic, tmp_path / "whole", steps=3)
    expected = whole.run()
    stopped = search(synthetic, tmp_path / "stopped", steps=3)
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt

    stopped.progress = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again = search(synthetic, tmp_path / "stopped", steps=3)
    steps = []
    again.progress = lambda: steps.append(1)
    found = again.run()
    assert str(found) == str(expected)
    assert len(steps) == again.trials()
    assert again.log.path.read_bytes() == whole.log.path.read_bytes()


def test_a_search_for_other_images_starts_anew(tmp_path: Path) -> None:
    synthetic = noise(500, 2)
    search(synthetic, tmp_path, steps=2).run()
    other = search(synthetic, tmp_path, steps=2)
    other.told = {"shown": 2}
    before = len(other.log.lines())
    other.run()
    assert len(other.log.lines()) == 2 * before


def test_training_is_shortened_to_the_minutes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Search, "seconds", lambda self: 600.0)
    scales = [
        replace(
            search(noise(50, 2), tmp_path, 2), minutes=minutes, told={"minutes": minutes}
        )._scale()
        for minutes in (20, 6, 1)
    ]
    assert scales == [1, 0.6, 0.4]


def test_mixes_are_left_out_when_time_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial takes a minute; all would take 32, as there is no verifier."""
    monkeypatch.setattr(Search, "seconds", lambda self: 600.0)

    def limited(minutes: float, folder: Path) -> Search:
        ticks = itertools.count(0, 60)
        made = search(noise(500, 2), folder, 2, clock=lambda: float(next(ticks)))
        return replace(made, minutes=minutes, told={"shown": 1, "minutes": minutes})

    whole = limited(32, tmp_path / "whole")
    assert whole.trials() == 32
    assert whole.run().left_out == ()
    short = limited(20, tmp_path / "short")
    steps: list[int] = []
    short.progress = lambda: steps.append(1)
    found = short.run()
    assert len(steps) == short.trials()
    spent = [line["seconds"] for line in short.log.lines() if "seconds" in line]
    assert 15 * 60 <= sum(spent) <= 20 * 60
    tried = [gain.mix for gain in found.screened]
    assert tried[0] == Mix(0.25) and len(tried) + len(found.left_out) == 10
    assert not {*tried} & {*found.left_out}
    assert "16 for each real image, pretrained" in recommendation.named(found)
    # Resumed, it finds the same decisions, though its clock has another pace.
    again = replace(short, clock=itertools.count(0, 6000).__next__, progress=lambda: None)
    assert str(again.run()) == str(found)
    least = limited(1, tmp_path / "least").run()
    assert [gain.mix for gain in least.screened] == [Mix(0.25)] and len(least.left_out) == 9


def test_the_fewest_samples_within_one_error_of_the_best_are_chosen() -> None:
    gains = [
        Gain(Mix(0.25), 0.010, 0.004),
        Gain(Mix(1), 0.016, 0.004),
        Gain(Mix(1, pretrain=True), 0.018, 0.004),
        Gain(Mix(4), 0.019, 0.004),
        Gain(Mix(1, selection="hard"), 0.017, 0.004),
    ]
    assert simplest(gains).mix == Mix(1, pretrain=True)


def test_error_of_folds_is_corrected_for_shared_images() -> None:
    found = cross_validated(Mix(1), [0.01, 0.02, 0.03, 0.04, 0.05])
    assert found.mean == pytest.approx(0.03)
    assert found.error == pytest.approx((0.00025 * (1 / 5 + 1 / 4)) ** 0.5)


def test_hard_samples_are_those_read_right_with_the_least_confidence() -> None:
    data = noise(400, 0)
    network = FAST(mirror=False, device=CPU, min_steps=40).fit(data, pool_of(data), NONE.recipe, 0)
    pool = pool_of(noise(1000, 5))
    sets = SampleSets(pool, lambda weights: pool, None)
    hard = sets.of(Mix(1, selection="hard"), 100, network, ())
    (all_,) = network.probabilities(torch.from_numpy(pool.take(0, 200).images))
    labels = torch.from_numpy(pool.take(0, 200).labels)
    right = all_.argmax(dim=1) == labels[:, 0]
    assert 100 < right.sum() < 200 and hard.limit == right.sum() // 2
    chosen = hard.take(0, hard.limit)
    (sure,) = network.probabilities(torch.from_numpy(chosen.images))
    truth = sure.gather(1, torch.from_numpy(chosen.labels))
    assert bool((sure.argmax(dim=1) == torch.from_numpy(chosen.labels)[:, 0]).all())
    assert float(truth.max()) <= float(all_.gather(1, labels)[right].median()) + 1e-6


def test_confident_samples_are_those_that_the_verifier_confirms() -> None:
    pool = pool_of(noise(1000, 5))

    def verify(images: np.ndarray) -> list[np.ndarray]:
        sure = np.where(images[:, 0, 0, 0] % 2 == 0, 0.95, 0.5)
        labels = pool.take(0, 1000).labels[: len(images), 0]
        return [np.where(np.arange(2) == labels[:, None], sure[:, None], 1 - sure[:, None])]

    sets = SampleSets(pool, lambda weights: pool, verify)
    network = new_network(noise(10, 0), CPU)
    chosen = sets.of(Mix(1, selection="confident"), 60, network, ()).take(0, 60)
    even = pool.take(0, 256).images
    assert np.array_equal(chosen.images, even[even[:, 0, 0, 0] % 2 == 0][:60])


def test_weights_follow_the_errors_of_each_value() -> None:
    labels = np.array([[0], [0], [0], [0], [1], [1], [1], [1]])
    right = np.array([[1], [1], [1], [1], [1], [1], [0], [0]], dtype=np.bool_)
    (weights,) = weak_weights(right, labels, (EYES,))
    assert weights.tolist() == pytest.approx([0.25, 0.75, 0])


def test_weak_samples_have_the_values_of_their_weights(evaluated: Path) -> None:
    run = Run.open(evaluated)
    generator, _ = run.load_snapshot("last")
    attributes = run.dataset.attributes
    weights = tuple(np.eye(len(each.values))[0] for each in attributes)
    images, labels = weak_samples(generator, attributes, 4, weights).take(0, 40)
    assert images.shape[0] == 40
    assert (labels[0::2, 0] == 0).all() and (labels[1::2, 1] == 0).all()
    assert labels[1::2, 0].any() and labels[0::2, 1].any()


def result_of(mix: Mix, weights: Weights, mean: float = 0.009) -> Result:
    return Result((), Gain(mix, mean, 0.002), 0.9, 400, weights, 1)


@pytest.mark.parametrize(
    ("mix", "said", "n"),
    [
        (Mix(4), "add 1,600, with 1 for each real one in every batch", 1600),
        (Mix(0.25, pretrain=True), "add 100, pretrain on them, then fine-tune on yours", 100),
        (Mix(1, selection="hard"), "make 800 and keep the half", 800),
        (
            Mix(1, counts="weak"),
            "add 400 (colour blue 150, eyes red 100, eyes blue 100 ...)",
            [50, 150, 100, 100, 0],
        ),
    ],
)
def test_advice_is_a_plan_and_a_sentence(tmp_path: Path, mix: Mix, said: str, n: Any) -> None:
    attributes, weights = (COLOUR, EYES), (np.array([0.25, 0.75]), np.array([0.5, 0.5, 0]))
    text = recommendation.sentence(result_of(mix, weights), attributes, 400)
    assert said in text
    assert "expect +0.9 points [+0.3, +1.5] over classic augmentation" in text
    path = tmp_path / "recommendation.json"
    plan = recommendation.as_plan(result_of(mix, weights), "faces", attributes, 400)
    path.write_text(json.dumps(plan))
    request = read_plan(path, nothing).request
    assert (request.model, request.n, request.seed) == ("faces", n, 4)


def test_gain_within_one_error_gives_no_advice() -> None:
    text = recommendation.sentence(result_of(Mix(1), (), 0.002), (COLOUR,), 400)
    assert "do not add any" in text


def test_command_writes_the_advice(
    evaluated: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommendation, "ClassifierTraining", functools.partial(FAST, min_steps=2))
    monkeypatch.setattr("training.evaluation.recommend.RATIOS", (1,))
    options = ("--snapshot", "last", "--real", source, "--out", tmp_path, "--minutes", 10)
    done = training("recommend", evaluated, *options)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("For your 400 images: ")
    text = (tmp_path / "recommendation.md").read_text()
    assert done.stdout.strip() in text
    assert "| confirm |" in text and "| confident |" in text
    held_out = load(source, ("hair", "glasses")).split(0.3)[1]
    assert f"{len(held_out)} images that the generator has not seen" in text
    assert (tmp_path / "recommendation.json").exists() == ("do not add any" not in done.stdout)


def test_images_that_do_not_fit_are_rejected(
    evaluated: Path, portraits: Dataset, tmp_path: Path
) -> None:
    pack(tmp_path / "few.zip", portraits, 50)
    done = training("recommend", evaluated, "--real", tmp_path / "few.zip")
    assert done.exit_code == 1 and "50 images are too few" in done.stderr
    renamed = replace(
        portraits,
        attributes=tuple(
            each.model_copy(update={"values": tuple(f"{value}ish" for value in each.values)})
            for each in portraits.attributes
        ),
    )
    pack(tmp_path / "other.zip", renamed, 150)
    with pytest.raises(DataError, match="the model has no value 'aquaish'; it has aqua"):
        own_images.load_own(Run.open(evaluated), str(tmp_path / "other.zip"))


def test_own_images_take_the_vocabulary_of_the_run(evaluated: Path, tmp_path: Path) -> None:
    run = Run.open(evaluated)
    faces = load(run.config.data, ("hair", "glasses"))
    few = faces.take(faces.labels[:, 0] >= 3)
    pack(tmp_path / "few.zip", few, 60)
    own = own_images.load_own(run, str(tmp_path / "few.zip"))
    assert own.attributes == run.dataset.attributes
    assert np.array_equal(own.labels, few.labels[:60])
