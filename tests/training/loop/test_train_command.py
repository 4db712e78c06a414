"""``python -m training train`` before its first step."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.helpers.small_runs import small_config, some
from training.cli import main
from training.cli import train as train_command
from training.config import TrainingConfig
from training.core.durations import duration
from training.data import Dataset
from training.loop.estimate import images_per_second
from training.loop.trainer import Trainer
from training.presets import PRESETS
from training.runs.run import DatasetDescription

SMALL = (
    *("--data", "faces.zip", "--name", "x", "--width", "4", "--batch", "16", "--device", "cpu"),
    *("--kimg", "0.1"),  # ends soon if it is not rejected as expected
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that these commands write nothing beside the data."""
    monkeypatch.chdir(tmp_path)
    Path("faces.zip").symlink_to(source)
    yield
    assert [path.name for path in tmp_path.iterdir()] == ["faces.zip"]


def start(*options: str) -> Result:
    return CliRunner().invoke(main, ["train", *SMALL, *options])


def planned(*options: str) -> TrainingConfig:
    """Configuration printed by a dry run."""
    done = start("--dry-run", *options)
    assert done.exit_code == 0, done.output
    return TrainingConfig.model_validate(configuration(done.stdout)[0])


def configuration(printed: str) -> tuple[dict[str, Any], str]:
    """JSON at the start of a dry run's output, and the rest."""
    found, end = json.JSONDecoder().raw_decode(printed)
    assert isinstance(found, dict)
    return found, printed[end:]


def refusal(*options: str) -> str:
    done = start(*options)
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "Value error" not in done.stderr
    return done.stderr


def test_dry_run_prints_options_data_and_duration() -> None:
    done = start("--dry-run", "--kimg", "1e8", "--attributes", "hair,glasses", "--out", "here")
    assert done.exit_code == 0, done.output
    found, rest = configuration(done.stdout)
    # Every option, in the order of the options, with the precision of this machine.
    assert list(found) == list(TrainingConfig.model_fields)
    assert (found["width"], found["batch"], found["kimg"]) == (4, 16, 1e8)
    assert found["lr"] == TrainingConfig.model_fields["lr"].default
    assert found["precision"] in ("float32", "bfloat16")
    assert TrainingConfig.model_validate(found).attributes == ("hair", "glasses")
    assert "faces: 400 images of 16x16 RGB\n" in done.stderr
    assert "\nhair: aqua 36, " in done.stderr and "\nglasses: no " in done.stderr
    assert "run        here\n" in rest
    measured = re.search(r"duration   (\d+) days, at (\d+) images/s, as measured here", rest)
    assert measured is not None
    assert int(measured[1]) == pytest.approx(1e11 / int(measured[2]) / 86_400, rel=0.05)
    assert "hardly learns" in done.stderr  # of 400 images, every hair colour


def test_dry_run_without_labels() -> None:
    done = start("--dry-run", "--attributes", "none")
    assert "labels: none\n" in done.stderr
    assert "run        runs/x\n" in done.stdout


def test_mirroring_is_told() -> None:
    assert "mirrored: every other image" in start("--dry-run", "--preset", "faces").stderr
    assert "mirrored" not in start("--dry-run", "--preset", "digits").stderr


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ("0.02", "too few (below 32) to score snapshots"),
        ("0.15", "few (below 100): precision, recall, density, coverage are not stated"),
    ],
)
def test_what_few_held_out_images_will_lack_is_told(share: str, said: str) -> None:
    assert said in start("--dry-run", "--hold-out", share).stderr
    assert "held-out images are" not in start("--dry-run").stderr


def test_run_longer_than_max_hours_is_rejected() -> None:
    said = refusal("--kimg", "0.1", "--max-hours", "1e-6")
    assert re.search(
        r"0\.1 kimg would take about \d+ \w+ here, at \d+ images/s\. Lower --kimg, --width or the "
        r"images' --size, use a GPU, or allow it with --max-hours",
        said,
    )
    assert said.startswith("faces: 400 images of 16x16 RGB\n")
    known = {option for parameter in train_command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", said)) <= known


@pytest.mark.parametrize("hours", ["0", "-1", "long"])
def test_invalid_max_hours_are_rejected(hours: str) -> None:
    assert "Invalid value for '--max-hours'" in refusal("--max-hours", hours)


def test_more_images_than_are_there_are_rejected() -> None:
    assert "images to train on, and 1,000 are asked for" in refusal("--images", "1000")


@pytest.mark.parametrize(("typed", "meant"), [("--widht", "--width"), ("--d-nrom", "--d-norm")])
def test_misspelt_option_gets_a_suggestion(typed: str, meant: str) -> None:
    said = refusal(typed, "8")
    assert f"No such option '{typed}'" in said
    assert re.search(rf"Did you mean .*'{meant}'", said)


@pytest.mark.parametrize("preset", ["dcgan", "dcgan-mnist"])
def test_options_override_a_preset(preset: str) -> None:
    config = planned("--preset", preset)
    expected = PRESETS[preset] | {"width": 4, "batch": 16, "augment": ()}
    assert {name: getattr(config, name) for name in expected} == expected

    # Options override the preset, even with the value of no preset.
    overrides = "--lr 0.001 --d-condition mix --d-norm none --ema-halflife-kimg 10"
    config = planned("--preset", preset, *overrides.split())
    assert (config.lr, config.d_condition, config.d_norm) == (0.001, "mix", "none")
    assert config.ema_halflife_kimg == 10
    assert config.network == preset


def test_unknown_preset_gets_a_list_of_presets() -> None:
    said = refusal("--preset", "dcgna")
    assert "--preset" in said
    assert all(f"'{preset}'" in said for preset in PRESETS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "--r1-gamma 0.1",
            "gradient penalties (r1_gamma, r2_gamma, wgan-gp) judge each image by itself, which "
            "batch norm does not: d_norm must be spectral or none",
        ),
        ("--r2-gamma 0.1", "gradient penalties"),
        ("--loss wgan-gp", "gradient penalties"),
        ("--d-condition input", "could be read off the input: label_weight must be 0"),
        ("--preset dcgan --label-weight 1", "label_weight must be 0"),
        ("--d-condition none", "cannot recognise wrong labels: mismatched_weight must be 0"),
        ("--label-ramp-kimg 5 --kimg 4", "label_ramp_kimg is longer than the run"),
        ("--minibatch discrimination --batch 24", "needs a batch that 16 divides"),
        ("--attributes hair,hair", "--attributes: an attribute is named twice"),
        ("--augment blur", "--augment: "),
        ("--augment colour", "'colour' would change what 'hair' describes"),
        ("--attributes nose", "nose"),
        ("--lr 0 --batch 1", "--batch: "),
        ("--lr 0 --batch 1", "--lr: "),
    ],
)
def test_contradictory_options_are_rejected_in_a_sentence(options: str, said: str) -> None:
    assert said in " ".join(refusal(*options.split(" ")).split())


@pytest.mark.parametrize(
    "options",
    [
        "--r1-gamma 0.1 --d-norm spectral",
        "--loss wgan-gp --d-norm none",
        "--d-condition input --label-weight 0",
        "--d-condition none --mismatched-weight 0",
        "--minibatch discrimination --batch 32",
    ],
)
def test_options_that_a_rejection_suggests_are_accepted(options: str) -> None:
    planned(*options.split(" "))


def test_estimated_rate_is_that_of_training(portraits: Dataset) -> None:
    config, faces = small_config(), some(portraits, 64)
    description = DatasetDescription.of(faces, "MIT")
    images, labels = torch.from_numpy(faces.images), torch.from_numpy(faces.labels)
    trainer = Trainer(config, description)
    began = time.perf_counter()
    for _ in range(10):
        trainer.step(images, labels)
    rate = 10 * config.batch / (time.perf_counter() - began)
    # Wide bounds for a busy machine; a wrong unit would be off by more.
    assert rate / 8 < images_per_second(config, faces) < rate * 8


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "120 minutes"),
        (7_200, "2 hours"),
        (2 * 86_400 - 1, "48 hours"),
        (2 * 86_400, "2 days"),
        (1e9, "11574 days"),
    ],
)
def test_durations_are_in_the_largest_unit_that_gives_two(seconds: float, said: str) -> None:
    assert duration(seconds) == said
