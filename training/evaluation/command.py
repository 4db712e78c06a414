"""Evaluate a run's generator, and write the results into the run's folder.

evaluation/
  report.md  report.json   results as text and as JSON
  report.html              the same with headline scores and pictures, in one file
  memorisation.png         the samples nearest to training images
  failures.png             samples that are read wrong, and the least certain; only with labels
  verifier.onnx            the classifier that read the labels; only with labels
  classifier.safetensors   the same, kept for the next evaluation
  utility.jsonl  utility.png  downstream benefit of the samples, with --utility
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from service.core.atomic_write import write_atomically
from service.core.manifest import IMAGE
from training.data import Dataset, clustered, load
from training.errors import DataError, RunError
from training.evaluation import (
    downstream_report,
    features,
    report,
    report_html,
    report_markdown,
    verifier,
)
from training.evaluation.classifiers import ClassifierTraining
from training.evaluation.downstream import Experiment, Plan, Trial, planned, subset
from training.evaluation.images import MIN_IMAGES, draw
from training.evaluation.measure import Space, evaluate
from training.evaluation.privacy import SAMPLES, privacy
from training.evaluation.repeats import repeated
from training.evaluation.report import EvaluationContext
from training.evaluation.samples import samples_of
from training.evaluation.verifier import Accuracy, Verifier
from training.networks.marginal import Marginal
from training.networks.networks import Generator
from training.runs.log import Log
from training.runs.run import Run

BUDGETS = (10, 50, 200)
"""Real images of each value, in the arms that have real images; then all."""
SEEDS = range(5)
SYNTHETIC = 40_000
"""Different samples that classifiers are trained on: 500 MB for 64x64 RGB."""
DOWNSTREAM_SEED = 3
"""Seed of the samples that classifiers are trained on; those that are measured have another."""
ATTACK_SEED = 5
"""Seed of the samples that attacks on the training images use."""
CLASSIFIERS = {"small": features.WIDTH, "large": 3 * features.WIDTH}
"""Channels in the first layer. The large one checks that a gain is not due to a weak classifier."""


def evaluate_run(
    run: Run,
    generator: Generator,
    shown: int,
    *,
    data: str | None,
    spaces: Sequence[Space],
    classifier: str | None,
    device: torch.device,
    unconditional: str | None = None,
) -> None:
    """Measure ``generator``, a snapshot after ``shown`` images, and write ``run.evaluation``.

    ``data`` is the source of the run's data if it has moved. ``spaces`` are compared beside the
    classifier's. With ``classifier``, one of ``CLASSIFIERS``, classifiers are trained on samples.
    With ``unconditional``, the name of a model, the variant that draws its labels is measured.
    Raises ``RunError`` and ``DataError``.
    """
    if run.config.clusters is not None:
        unconditional = run.config.name
    name = run.config.name if unconditional is None else unconditional
    if classifier is not None and (unconditional is not None or not run.dataset.attributes):
        raise RunError(f"{name} is unconditional: no classifier can be trained on its samples")
    if unconditional is not None:
        run.check_marginal(unconditional)
    folder = run.evaluation(name)
    trained, held_out = split_data(run, data)
    if len(held_out) < MIN_IMAGES:
        raise RunError(
            f"{run.folder} kept {len(held_out)} images from training, too few to measure it "
            f"against (at least {MIN_IMAGES}): train with a larger --hold-out"
        )
    generator = generator.to(device)
    measured: Generator | Marginal = generator
    if unconditional is not None:
        measured = Marginal(generator, generator.latent_size, run.dataset.attributes).to(device)
    context = _measure(run, name, measured, shown, trained, held_out, spaces, device)
    chosen = classifier or "small"
    log = Log(folder / "utility.jsonl")
    told = {"shown": shown, "classifier": chosen}
    known = [Trial(**line["trial"]) for line in log.lines() if told.items() <= line.items()]
    budgets = [budget for budget in BUDGETS if not subset(trained, budget, 0).all()]
    missing = planned([*budgets, None], SEEDS, known)
    if missing:
        _write(folder, context, None)
    if classifier is not None or not missing:
        experiment = Experiment(
            real=trained,
            samples=samples_of(generator, trained.attributes, DOWNSTREAM_SEED, SYNTHETIC),
            held_out=held_out,
            training=ClassifierTraining(
                mirror=run.config.mirror, device=device, width=CLASSIFIERS[chosen]
            ),
        )
        trials = known + _run_trials(experiment, missing, log, told)
        _write(folder, context, (experiment, trials))


def _measure(
    run: Run,
    name: str,
    generator: Generator | Marginal,
    shown: int,
    trained: Dataset,
    held_out: Dataset,
    spaces: Sequence[Space],
    device: torch.device,
) -> EvaluationContext:
    network = features.load_or_train(
        run.evaluation(run.config.name) / "classifier.safetensors",
        trained,
        mirror=run.config.mirror,
        device=device,
        schedule=features.THOROUGH,
    )
    reader: Verifier | None = None
    accuracies: tuple[Accuracy, ...] = ()
    if held_out.attributes:
        reader, accuracies = verifier.calibrated(network, held_out)
        if generator.condition_size:
            _write_verifier(run.evaluation(name) / "verifier.onnx", reader, held_out)
        reader = reader.to(device)
    target = "labels" if held_out.attributes else "rotations"
    classifier = Space(
        "classifier",
        f"the {features.FEATURES} last features of a classifier of {target}, trained on the "
        f"{len(trained):,} training images of {run.dataset.info.name}",
        network.features,
    )
    evaluation = evaluate(
        generator,
        trained,
        held_out,
        [classifier, *spaces],
        reader,
        lambda message: click.echo(f"{message} ...", err=True),
    )
    click.echo("comparing other samples, and attacking the training images ...", err=True)
    conditional = generator.condition_size > 0
    labels = held_out.attributes if conditional else ()
    names = [attribute.name for attribute in held_out.attributes]
    return EvaluationContext(
        name=name,
        shown=shown,
        evaluation=evaluation,
        spaces=(classifier, *spaces),
        trained=trained,
        spread=repeated(generator, labels, trained, evaluation.real, classifier),
        privacy=privacy(
            trained,
            held_out,
            evaluation.samples,
            draw(generator, labels, SAMPLES, ATTACK_SEED).pixels,
            reader if conditional else None,
        ),
        readers=dict(zip(names, accuracies, strict=True)),
    )


def _write_verifier(path: Path, reader: Verifier, held_out: Dataset) -> None:
    path.unlink(missing_ok=True)
    if IMAGE in [attribute.name for attribute in held_out.attributes]:
        warning = f"an attribute is called {IMAGE!r}, as the input of verifier.onnx is"
        click.echo(f"warning: {warning}: none is written", err=True)
    else:
        write_atomically(path, verifier.to_onnx(reader, held_out))


def _run_trials(
    experiment: Experiment, plans: list[Plan], log: Log, told: dict[str, Any]
) -> list[Trial]:
    """Run ``plans``; each trial is appended to ``log``, with ``told``, when it is finished."""
    trials = []
    for trial in tqdm(
        experiment.trials(plans), "downstream", len(plans), unit="trial", disable=None
    ):
        log.append(told | {"trial": asdict(trial)})
        trials.append(trial)
    return trials


def split_data(run: Run, data: str | None) -> tuple[Dataset, Dataset]:
    """Images that ``run`` was trained on, and those held out, of ``labelled_data``."""
    return labelled_data(run, data).split(run.config.hold_out, run.config.images)


def labelled_data(run: Run, data: str | None) -> Dataset:
    """Load the run's data; for an unconditional model, with all labels that the data has.

    Raises ``DataError``, and ``RunError`` if the run was trained on other data.
    """
    config = run.config
    unconditional = config.clusters is not None or not run.dataset.attributes
    source, reading = data or config.data, config.reading | {"clusters": None}
    try:
        dataset = load(source, **reading | ({"attributes": None} if unconditional else {}))
    except DataError as error:
        if not unconditional:
            raise
        click.echo(f"warning: labels cannot be read and are ignored: {error}", err=True)
        dataset = load(source, **reading | {"attributes": ()})
    as_trained = dataset
    if unconditional:
        as_trained = replace(dataset, labels=dataset.labels[:, :0], attributes=())
    if config.clusters is not None:
        as_trained = clustered(as_trained, config.clusters)
    if as_trained.sha256 != run.dataset.info.sha256:
        raise RunError(f"{run.folder} was trained on other data: its digest has changed")
    return dataset


def _write(
    folder: Path,
    context: EvaluationContext,
    downstream: tuple[Experiment, list[Trial]] | None,
) -> None:
    """Write all files, ``report.json`` last: it marks a complete evaluation."""
    for name in ("report.json", "report.html", downstream_report.PICTURE):
        (folder / name).unlink(missing_ok=True)
    write_atomically(folder / "memorisation.png", report.as_picture(context))
    if context.evaluation.failures:
        write_atomically(folder / "failures.png", report.failures_picture(context))
    text = (
        f"# {context.name} after {context.shown:,} images\n\n{report_markdown.as_markdown(context)}"
    )
    content = report.as_json(context)
    if downstream is not None:
        text += "\n" + downstream_report.as_markdown(*downstream)
        content["utility"] = downstream_report.as_json(*downstream)
        write_atomically(
            folder / downstream_report.PICTURE, downstream_report.as_picture(downstream[1])
        )
    write_atomically(folder / "report.md", text)
    page = report_html.as_html(text, content, lambda name: (folder / name).read_bytes())
    write_atomically(folder / "report.html", page)
    write_atomically(folder / "report.json", json.dumps(content, indent=2) + "\n")
