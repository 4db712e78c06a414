from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.small_runs import CPU, create_run, small_config, some
from training.cli import resume
from training.cli import train as train_command
from training.config import TrainingConfig
from training.core.pixels import to_networks
from training.data import Dataset
from training.errors import Diverged, Failed
from training.evaluation.features import train_network
from training.evaluation.snapshot_scores import Scorer, Scores
from training.loop import diagnosis
from training.loop.diagnosis import Line, diagnose
from training.loop.loop import train
from training.loop.trainer import Trainer
from training.networks.conditioning import condition_rows
from training.networks.networks import Generator

CONFIG = TrainingConfig(data="avatars", name="x", kimg=1000, augment=("translation", "cutout"))
"""Its grace period is 100,000 images."""


def score(kimg: float, **changes: float) -> Line:
    """Scores of a good run, but for ``changes``."""
    well = {"frechet": 2.0, "recall": 0.3, "coverage": 0.6, "duplicates": 0.01, "grey": 0.02}
    return {"shown": kimg * 1000} | well | changes


def ticks(
    ahead: float = 0.9, *, since: int = 0, until: int = 300, early: float = 0.9
) -> list[Line]:
    """Log lines every 4,000 images; after ``since`` kimg the discriminator is ``ahead``."""
    return [
        {"shown": kimg * 1000, "d_ahead": ahead if kimg > since else early}
        for kimg in range(4, until + 1, 4)
    ]


COPIES = {"duplicates": 0.5}
LOST = {"recall": 0.09, "frechet": 4.1}
GREY = {"grey": 0.2}
NOTHING = {"coverage": 0.004}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (COPIES, "has collapsed: 50% of its samples are near-duplicates of another one"),
        (LOST, "is collapsing: its samples once covered 30% of the real images, and now 9%"),
        (GREY, "leaks: 20% of the samples have grey areas like those of translation and cutout"),
        (NOTHING, "has learnt nothing: its samples cover 0.4% of the real images"),
    ],
    ids=["copies", "lost", "grey", "nothing"],
)
def test_fault_of_the_samples_needs_two_successive_snapshots(
    fault: dict[str, float], said: str
) -> None:
    def verdict(*scores: Line) -> str | None:
        return diagnose(ticks(), scores, CONFIG, 0.05)

    well = [score(50), score(100)]
    assert said in (verdict(*well, score(150, **fault), score(200, **fault)) or "")
    # One, or two with a good one between them, or two that are over, are no fault.
    assert verdict(*well) is None
    assert verdict(*well, score(150, **fault)) is None
    assert verdict(*well, score(150, **fault), score(200), score(250, **fault)) is None
    assert verdict(*well, score(150, **fault), score(200, **fault), score(250)) is None
    # Early samples are all alike.
    early = [score(10), score(50, **fault), score(99, **fault)]
    assert verdict(*early) is None
    assert verdict(*early, score(100, **fault)) is None
    assert said in (verdict(*early, score(100, **fault), score(150, **fault)) or "")


@pytest.mark.parametrize(
    "nearby",
    [
        {"duplicates": 0.49},
        {"recall": 0.11, "frechet": 4.1},  # more than a third of what it was
        {"recall": 0.01, "frechet": 3.9},  # as near as ever: another measure of the same
        {"grey": 0.149},  # of real images, 0.05
    ],
    ids=str,
)
def test_values_just_below_a_threshold_are_no_fault(nearby: dict[str, float]) -> None:
    scores = [score(150), score(200, **nearby), score(250, **nearby)]
    assert diagnose(ticks(), scores, CONFIG, 0.05) is None


def test_low_recall_from_the_start_is_no_collapse() -> None:
    scores = [score(150, recall=0.09), *(score(k, recall=0.0, frechet=9) for k in (200, 250))]
    assert diagnose(ticks(), scores, CONFIG, 0.05) is None
    scores[0] = score(150, recall=0.11)
    assert "collapsing" in (diagnose(ticks(), scores, CONFIG, 0.05) or "")


def test_good_or_empty_run_has_no_fault() -> None:
    assert diagnose([], [], CONFIG, 0.0) is None
    assert diagnose(ticks(), [], CONFIG, 0.0) is None
    assert diagnose(ticks(), [score(k) for k in range(50, 301, 50)], CONFIG, 0.0) is None


SHORT = CONFIG.model_copy(update={"kimg": 250})
"""Its grace period is 25,000 images, its patience 50,000."""
NO_BETTER = [score(k, frechet=1 if k == 200 else 2) for k in (50, 100, 150, 200, 250, 300)]


def test_discriminator_has_won_if_it_is_long_ahead_without_better_samples() -> None:
    said = diagnose(ticks(1.0, since=250), NO_BETTER, SHORT, 0.0)
    assert said is not None and "the discriminator has won: for 50,000 images" in said


def test_patience_grows_with_the_length_of_the_run() -> None:
    assert diagnose(ticks(1.0, since=104), NO_BETTER, CONFIG, 0.0) is None
    late = [*NO_BETTER, score(350), score(400)]
    said = diagnose(ticks(1.0, since=200, until=400), late, CONFIG, 0.0)
    assert said is not None and "for 200,000 images" in said


@pytest.mark.parametrize(
    ("log", "scores"),
    [
        (ticks(0.998, since=250), NO_BETTER),
        (ticks(1.0, since=252), NO_BETTER),
        (ticks(1.0), [*NO_BETTER[:4], score(250, frechet=0.9), score(300)]),  # better since
        (ticks(1.0), [*NO_BETTER[:5], score(300, frechet=0.9)]),
        (ticks(1.0), [score(k, frechet=1 if k == 260 else 2) for k in (240, 260, 280, 300)]),
        (ticks(1.0), NO_BETTER[2:5]),  # a single snapshot since the best one
        (ticks(1.0), []),  # who knows
        (ticks(1.0, until=72), [score(10, frechet=1), score(30), score(60)]),  # too early
    ],
    ids=["nearly", "not-long", "better", "best", "lately", "one", "unmeasured", "early"],
)
def test_discriminator_that_is_only_ahead_has_not_won(log: list[Line], scores: list[Line]) -> None:
    assert diagnose(log, scores, SHORT, 0.0) is None


def test_patience_is_counted_in_images_not_ticks() -> None:
    log = [{"shown": k * 1000, "d_ahead": 1.0} for k in range(60, 301, 60)]
    assert diagnose(log, NO_BETTER, SHORT, 0.0) is not None


SENTENCES = [
    diagnose(ticks(), [score(50), score(150, **fault), score(200, **fault)], CONFIG, 0.05) or ""
    for fault in (COPIES, LOST, GREY)
] + [diagnose(ticks(1.0), NO_BETTER, SHORT, 0.0) or ""]


def options(command: click.Command) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("sentence", SENTENCES, ids=["copies", "lost", "leak", "won"])
def test_options_in_the_advice_exist_and_are_valid(sentence: str) -> None:
    _, _, advice = sentence.partition(" Try ")
    named = re.findall(r"--[a-z0-9-]+", advice)
    assert named
    assert set(named) <= options(train_command)
    # Where it gives values, these are accepted, and go together.
    values = re.findall(r"--([a-z0-9-]+) (?!or\b|than\b)([\w.,]*\w)", advice)
    settings = {name.replace("-", "_"): value for name, value in values}
    assert settings or "leaks" in sentence
    small_config(**settings)


@pytest.fixture(scope="module")
def faces(portraits: Dataset) -> Dataset:
    return some(portraits, 480, "eyes", "glasses")


@pytest.fixture(scope="module")
def scorer(faces: Dataset) -> Scorer:
    trained, held_out = faces.split(0.3)
    network = train_network(trained, mirror=False, device=CPU)
    return Scorer(held_out, network, ["cutout"], trained)


def generator_of(faces: Dataset) -> Generator:
    sizes = [len(attribute.values) for attribute in faces.attributes]
    return Generator(small_config(), condition_size=sum(sizes), image_shape=(16, 16, 3)).eval()


class Replay(Generator):
    """Returns images of the data with the requested labels, in rotation."""

    def remember(self, faces: Dataset) -> Replay:
        self.images = to_networks(torch.from_numpy(faces.images))
        sizes = [len(attribute.values) for attribute in faces.attributes]
        self.conditions = condition_rows(torch.from_numpy(faces.labels), sizes)
        self.used = torch.zeros(len(faces))
        return self

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        rows = []
        for row in condition:
            fits = (self.conditions == row).all(dim=1)
            rows.append(int(torch.where(fits, self.used, torch.inf).argmin()))
            self.used[rows[-1]] += 1
        return self.images[rows]


def twice(scores: Scores) -> list[Line]:
    return [{"shown": kimg * 1000} | scores.line() for kimg in (150, 200)]


def test_generator_that_draws_one_picture_has_collapsed(faces: Dataset, scorer: Scorer) -> None:
    generator = generator_of(faces)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    scores = scorer.measure(generator)
    assert scores.images == scorer.count > 100
    assert scores.duplicates == 1
    assert (scores.recall, scores.grey) == (0, 1)
    assert scores.coverage < 0.1
    assert "has collapsed: 100%" in (diagnose(ticks(), twice(scores), CONFIG, 0.0) or "")


def test_real_images_score_as_good_samples(faces: Dataset, scorer: Scorer) -> None:
    trained, _ = faces.split(0.3)
    shape: dict[str, tuple[int, int, int]] = {"image_shape": (16, 16, 3)}
    replay = Replay(small_config(), condition_size=12, **shape).remember(trained).eval()
    scores = scorer.measure(replay)
    untrained = scorer.measure(generator_of(faces))
    assert scores.frechet < 0.2 * untrained.frechet
    assert min(scores.precision, scores.recall, scores.coverage) > 0.7
    assert scores.duplicates < 0.06
    assert scores.grey == scorer.real_grey < 0.05
    # Requested labels are recognised, far more often than by chance: eyes 1/10, glasses 1/2.
    assert scores.attributes_right["eyes"] > 0.3 > untrained.attributes_right["eyes"]
    assert scores.attributes_right["glasses"] > 0.55
    assert scores.labels_right is not None
    assert scores.labels_right <= min(scores.attributes_right.values())
    assert diagnose(ticks(), twice(scores), CONFIG, scorer.real_grey) is None
    line = scores.line()
    assert line["eyes_right"] == round(scores.attributes_right["eyes"], 4)


def test_equal_generators_have_equal_scores(faces: Dataset, scorer: Scorer) -> None:
    generator = generator_of(faces)
    assert scorer.measure(generator) == scorer.measure(generator)


def test_unconditional_model_is_scored_without_labels(faces: Dataset, scorer: Scorer) -> None:
    bare = replace(faces, labels=faces.labels[:, :0], attributes=())
    trained, held_out = bare.split(0.3)
    network = train_network(trained, mirror=False, device=CPU)
    generator = Generator(small_config(), condition_size=0, image_shape=(16, 16, 3)).eval()
    scores = Scorer(held_out, network, [], trained).measure(generator)
    assert (scores.labels_right, scores.attributes_right, scores.grey) == (None, {}, 0)
    assert "labels_right" not in scores.line()
    assert scorer.measure(generator).labels_right is None  # though the data has some
    assert scores.frechet > 0


@pytest.fixture
def collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every snapshot's generator draw one picture, and end the grace period at once.

    Training into a collapse differs between processors, so the collapse is put in place.
    """
    recalibrate = Trainer.recalibrate_batch_norm

    def collapsing(trainer: Trainer) -> None:
        recalibrate(trainer)
        for parameter in trainer.ema.parameters():
            parameter.zero_()

    monkeypatch.setattr(Trainer, "recalibrate_batch_norm", collapsing)
    monkeypatch.setattr(diagnosis, "GRACE_KIMG", 0)


@pytest.mark.usefixtures("collapse")
def test_collapsed_run_is_stopped_and_can_be_continued(faces: Dataset, tmp_path: Path) -> None:
    # 1. The generator draws one picture.
    run = create_run(tmp_path / "run", faces)
    with pytest.raises(Failed, match="has collapsed") as stopped:
        train(run, faces)
    # 2. The run was stopped at the second snapshot after the grace period, and keeps its best.
    said = str(stopped.value)
    assert "the generator has collapsed: " in run.page.read_text()
    shown = [line["shown"] for line in run.scores.lines()]
    assert shown == [64, 128]
    assert f"{run.folder}: stopped after 128 images: " in said
    assert f"The best snapshot, after {run.best_shown()[0]} images, is kept." in said
    assert run.load_snapshot("best")[1] == run.best_shown()[0]
    assert run.checkpoint.exists()
    command = re.search(r"`figment resume (--\S+) (\S+)`", said)
    assert command is not None
    assert command[1] in options(resume)
    assert command[2] == str(run.folder)
    # 3. Resumed, it is stopped again; without the diagnosis it continues to the end.
    with pytest.raises(Failed, match="stopped after 192 images"):
        train(run, faces)
    train(run, faces, stop_on_failure=False)
    assert [line["shown"] for line in run.scores.lines()] == [64, 128, 192, 256]


@pytest.mark.usefixtures("collapse")
def test_run_that_collapsed_at_its_end_names_no_command(faces: Dataset, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", faces, kimg=0.128)
    with pytest.raises(Failed, match=r"stopped after 128 images: .* is kept\.$"):
        train(run, faces)


def test_diverged_run_keeps_its_checkpoint_and_snapshots(faces: Dataset, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", faces, kimg=0.064)
    train(run, faces)
    before = run.checkpoint.read_bytes()
    hopeless = replace(run, config=run.config.model_copy(update={"lr": 1e30, "kimg": 0.128}))
    with pytest.raises(Diverged, match="NaN or infinite; the last checkpoint is kept"):
        train(hopeless, faces)
    assert run.checkpoint.read_bytes() == before
    assert run.load_snapshot("best")[1] == 64
    assert all(value.isfinite().all() for value in load_file(run.snapshot(64)).values())
