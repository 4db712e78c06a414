"""Recommendation of a set of samples for a user's own images.

recommendation.json   the set, as a plan that ``make-dataset`` takes; none if no set helps
recommendation.md     the advice in a sentence, and what it is based on
recommend.jsonl       one line per classifier, by which an interrupted search resumes
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from tqdm import tqdm

from service.core.atomic_write import write_atomically
from service.core.manifest import IMAGE, Attribute
from training.core.durations import duration
from training.data import Dataset
from training.errors import DataError, RunError
from training.evaluation import own_images
from training.evaluation.classifiers import ClassifierTraining
from training.evaluation.command import split_data
from training.evaluation.downstream_report import percent
from training.evaluation.mixes import (
    MAX_SET,
    VERIFIED,
    Mix,
    SampleSets,
    Verify,
    Weights,
    weak_samples,
)
from training.evaluation.recommend import FOLDS, MIN_IMAGES, MIN_SCALE, NONE, Gain, Result, Search
from training.evaluation.samples import Samples, samples_of
from training.networks.networks import Generator
from training.runs.log import Log
from training.runs.run import RECOMMEND_LOG, RECOMMENDATION, Run

SEED = 4
"""Seed of the samples, and of the plan: it gives the images that were measured."""
NAMED = 3
"""Values that the sentence counts, those with the most samples."""


def recommend(
    run: Run,
    generator: Generator,
    shown: int,
    *,
    source: str,
    data: str | None,
    folder: Path,
    minutes: float,
    device: torch.device,
    may_exceed: bool = True,
) -> str:
    """Search the best mix for the images in ``source``, write ``folder``, return the advice.

    ``data`` is the source of the run's data if it has moved. Raises ``RunError`` and ``DataError``;
    without ``may_exceed`` also if the shortest search takes longer than ``minutes``.
    """
    if not run.dataset.attributes:
        raise RunError(f"{run.config.name} is unconditional: no classifier can learn its samples")
    real = own_images.load_own(run, source)
    if len(real) < MIN_IMAGES:
        raise DataError(source, [f"{len(real)} images are too few to compare mixes: {MIN_IMAGES}"])
    testable = _testable(run, real, data)
    generator = generator.to(device)
    attributes = run.dataset.attributes
    made: dict[bytes, Samples] = {}

    def weak(weights: Weights) -> Samples:
        key = b"".join(each.tobytes() for each in weights)
        return made.setdefault(key, weak_samples(generator, attributes, SEED, weights))

    search = Search(
        real=real,
        testable=testable,
        sets=SampleSets(
            samples_of(generator, attributes, SEED, 2 * MAX_SET), weak, _verify(run, attributes)
        ),
        training=ClassifierTraining(mirror=run.config.mirror, device=device),
        log=Log(folder / RECOMMEND_LOG),
        told={
            "shown": shown,
            "real": real.sha256,
            "tested": int(testable.sum()),
            "minutes": minutes,
        },
        minutes=minutes,
    )
    if not may_exceed and (least := MIN_SCALE * search.seconds()) > minutes * 60:
        raise RunError(f"a search takes {duration(least)} at least")
    with tqdm(desc="recommend", total=search.trials(), unit="trial", disable=None) as bar:
        search.progress = bar.update
        result = search.run()
    mix = result.mix
    advice = sentence(result, attributes, len(real))
    if result.left_out:
        click.echo(f"not tried, as {minutes:g} minutes are too few: {named(result)}", err=True)
    file = folder / RECOMMENDATION
    file.unlink(missing_ok=True)
    if mix != NONE:
        plan = as_plan(result, run.config.name, attributes, len(real))
        write_atomically(file, json.dumps(plan, indent=2) + "\n")
    if (last := search.told | {"advice": advice}) not in search.log.lines()[-1:]:
        search.log.append(last)
    # Last: `build` takes the file as the end of the search.
    write_atomically(folder / "recommendation.md", as_markdown(result, real, run.config.mirror))
    return advice


def _testable(run: Run, real: Dataset, data: str | None) -> npt.NDArray[np.bool_]:
    """Mask ``[N]`` of the images that the generator has not been trained on.

    A generator brings knowledge of its training images, so samples would seem to help to read them.
    """
    try:
        trained, _ = split_data(run, data)
    except (DataError, RunError) as error:
        click.echo(
            f"warning: the training data of {run.config.name} cannot be read, so images that it "
            f"has in common with yours are not left out of the test: {error}",
            err=True,
        )
        return np.ones(len(real), dtype=np.bool_)
    testable = ~real.among(trained)
    if (count := int(testable.sum())) < MIN_IMAGES:
        raise RunError(
            f"{run.config.name} was trained on all but {count} of these {len(real)} images, too "
            f"few to test on (at least {MIN_IMAGES}): add images, or train with a larger --hold-out"
        )
    return testable


def _verify(run: Run, attributes: tuple[Attribute, ...]) -> Verify | None:
    path = run.evaluation(run.config.name) / "verifier.onnx"
    if not path.exists():
        click.echo(f"{path} does not exist, so confident samples are not tried", err=True)
        return None
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [attribute.name for attribute in attributes]

    def verify(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        return list(session.run(names, {IMAGE: images}))

    return verify


def as_plan(
    result: Result, model: str, attributes: tuple[Attribute, ...], real: int
) -> dict[str, Any]:
    """Fields of the plan for ``real`` images of the user."""
    mix = result.mix
    plan: dict[str, Any] = {"model": model, "n": _fetched(mix, real), "seed": SEED}
    if mix.counts == "weak":
        entries = _counts(result.weights, attributes, mix.size(real))
        plan["label"] = [{name: value} for name, value, _ in entries]
        plan["n"] = [count for _, _, count in entries]
    if mix.selection == "confident":
        plan["verify"] = VERIFIED
    return plan


def _fetched(mix: Mix, real: int) -> int:
    return mix.size(real) * (2 if mix.selection == "hard" else 1)


def _counts(
    weights: Weights, attributes: tuple[Attribute, ...], total: int
) -> list[tuple[str, str, int]]:
    """Attribute, value and number of samples, which add up to ``total``."""
    values = [(each.name, value) for each in attributes for value in each.values]
    wanted = np.concatenate(weights) * total / len(weights)
    counts = np.floor(wanted).astype(int)
    missing = np.argsort(counts - wanted, kind="stable")[: total - counts.sum()]
    counts[missing] += 1
    return [(*each, count) for each, count in zip(values, counts.tolist(), strict=True)]


def sentence(result: Result, attributes: tuple[Attribute, ...], real: int) -> str:
    """The advice."""
    mix = result.mix
    mean, interval = percent(result.gain, "+").split(" ", 1)
    gain = f"{mean} points {interval} over classic augmentation"
    if mix == NONE:
        return (
            f"For your {real:,} images: do not add any. The best mix gained {gain}, within one "
            "standard error of nothing."
        )
    size = mix.size(real)
    what = f"add {size:,}"
    if mix.counts == "weak":
        most = sorted(_counts(result.weights, attributes, size), key=lambda each: -each[2])
        named = ", ".join(f"{name} {value} {count:,}" for name, value, count in most[:NAMED])
        what += f" ({named} ...)"
    elif mix.selection == "hard":
        what = (
            f"make {_fetched(mix, real):,} and keep the half that a classifier of your images "
            "reads right and is least sure of"
        )
    elif mix.selection == "confident":
        what += f" that the verifier confirms with {VERIFIED:.0%}"
    how = f"with {min(mix.ratio, 1):g} for each real one in every batch"
    if mix.pretrain:
        how = "pretrain on them, then fine-tune on yours"
    return f"For your {real:,} images: {what}, {how}: expect {gain}."


def as_markdown(result: Result, real: Dataset, mirror: bool) -> str:
    """The advice, the table of all mixes, and how they were compared."""
    rows = [*result.screened, result.confirmed]
    stages = [*("screen" for _ in result.screened), "confirm"]
    operations = "translation, cutout" + (", mirror" if mirror else "")
    return "\n".join(
        [
            f"# Recommendation for {real.name}",
            "",
            sentence(result, real.attributes, len(real)),
            "",
            f"Accuracy without samples, with classic augmentation ({operations}): "
            f"{result.accuracy:.1%} of the labels of {result.tested:,} images that the generator "
            f"has not seen, by cross-validation over {FOLDS} folds. Gains are in points, with one "
            "standard error; the interval above is one of 95% (Student's t over the folds, with "
            "the correction of Nadeau and Bengio for folds that share images). Classifiers are "
            f"small and trained for {result.scale:.0%} of the time of `evaluate --utility`.",
            "",
            "| stage | samples | schedule | selection | counts | gain | error |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_row(stage, gain, len(real)) for stage, gain in zip(stages, rows, strict=True)),
            "",
            "The mixes of the first stage are compared on two folds. The one with the fewest "
            "samples within one standard error of the best is confirmed on five folds of another "
            "partition, and recommended if it gains more than one standard error.",
            *(("", f"Not tried for want of time: {named(result)}.") if result.left_out else ()),
            "",
        ]
    )


def named(result: Result) -> str:
    """Mixes that were left out."""
    parts = (
        [
            f"{mix.ratio:g} for each real image",
            *(["pretrained"] if mix.pretrain else []),
            *([mix.selection] if mix.selection != "any" else []),
            *([f"counts by {mix.counts}"] if mix.counts != "frequency" else []),
        ]
        for mix in result.left_out
    )
    return "; ".join(", ".join(each) for each in parts)


def _row(stage: str, gain: Gain, real: int) -> str:
    mix = gain.mix
    cells = (
        stage,
        f"{mix.size(real):,}",
        "pretrain" if mix.pretrain else "mix",
        mix.selection,
        mix.counts,
        f"{100 * gain.mean:+.2f}",
        f"{100 * gain.error:.2f}",
    )
    return f"| {' | '.join(cells)} |"
