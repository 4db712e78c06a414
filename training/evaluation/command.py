"""Everything that is measured of a run's generator, and what is left of it in the run's folder.

evaluation/
  report.md  report.json   for people and for programs
  memorisation.png         the samples nearest to training images
  verifier.onnx            the classifier that read the labels, where there are any
  classifier.safetensors   the same, kept for the next evaluation
  utility.jsonl  utility.png  what classifiers learn from samples, where that was asked
  student-000900032.safetensors  the one that learnt longest from those of a snapshot
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch
from tqdm import tqdm

from service.core.atomic_write import write_atomically
from service.core.manifest import Attribute
from training.data import Dataset, load
from training.errors import DataError, RunError
from training.evaluation import downstream_report, features, report, verifier
from training.evaluation.downstream import Experiment, GanTrainScore, Plan, Trial, planned
from training.evaluation.measure import Space, draw, evaluate
from training.evaluation.report import EvaluationContext
from training.evaluation.snapshot_scores import FEWEST
from training.evaluation.verifier import Accuracy, Verifier
from training.networks.marginal import Marginal
from training.networks.networks import Generator
from training.runs.run import Log, Run

BUDGETS = (10, 50, 200)
"""Real images of each value."""
SEEDS = range(5)
SYNTHETIC = 20_000
UTILITY_SEED = 3
"""Of the samples that classifiers learn from; those that are measured have another."""


def evaluate_run(
    run: Run,
    generator: Generator,
    shown: int,
    *,
    data: str | None,
    spaces: Sequence[Space],
    utility: bool,
    device: torch.device,
    unconditional: str | None = None,
) -> None:
    """Measure ``generator``, the run's after ``shown`` images, and write ``run.evaluation``.

    ``data`` is where the run's data lies now, if it has moved; ``spaces`` are others to compare
    images in, beside that of the classifier; with ``utility``, classifiers are trained on the
    samples, too. ``unconditional`` is the name of the model that draws the labels, if it is meant.
    Raises ``RunError`` and ``DataError``.
    """
    name = run.config.name if unconditional is None else unconditional
    if utility and (unconditional is not None or not run.dataset.attributes):
        raise RunError(f"{name} is unconditional: no classifier learns from its samples")
    if unconditional is not None:
        run.check_marginal(unconditional)
    folder = run.evaluation(name)
    trained, held_out = labelled_data(run, data).split(run.config.hold_out)
    if len(held_out) < FEWEST:
        raise RunError(
            f"{run.folder} kept {len(held_out)} images from training, too few to measure it "
            f"against (at least {FEWEST}): train with a larger --hold-out"
        )
    generator = generator.to(device)
    log = Log(folder / "utility.jsonl")
    known = [Trial(**line) for line in log.lines() if line.pop("shown") == shown]
    missing = planned(BUDGETS, SEEDS, known)
    measured: Generator | Marginal = generator
    if unconditional is not None:
        measured = Marginal(generator, generator.latent_size, run.dataset.attributes).to(device)
    told = _measure(run, name, measured, shown, trained, held_out, spaces, device)
    if missing:
        _write(folder, told, None)
    if utility or not missing:
        experiment = Experiment(
            real=trained,
            synthetic=synthetic(generator, trained.attributes),
            held_out=held_out,
            mirror=run.config.mirror,
            device=device,
        )
        trials = known + _try(experiment, missing, log, shown)
        student = features.load_or_train(
            folder / f"student-{shown:09d}.safetensors",
            experiment.synthetic,
            mirror=run.config.mirror,
            device=device,
            schedule=features.THOROUGH,
        )
        real = {name: reader.right for name, reader in told.readers.items()}
        taught = GanTrainScore(real, experiment.test(student))
        _write(folder, told, (experiment, trials, taught))


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
    learnt = "its images' labels" if held_out.attributes else "how its images were turned"
    classifier = Space(
        "classifier",
        f"the {features.FEATURES} last features of a classifier of {learnt}, trained on the "
        f"{len(trained):,} training images of {run.dataset.info.name}",
        network.features,
    )
    evaluation = evaluate(
        generator,
        trained,
        held_out,
        [classifier, *spaces],
        reader,
        lambda what: click.echo(f"{what} ...", err=True),
    )
    names = [attribute.name for attribute in held_out.attributes]
    return EvaluationContext(
        name=name,
        shown=shown,
        evaluation=evaluation,
        spaces=(classifier, *spaces),
        trained=trained,
        readers=dict(zip(names, accuracies, strict=True)),
    )


def _write_verifier(path: Path, reader: Verifier, held_out: Dataset) -> None:
    path.unlink(missing_ok=True)
    if verifier.IMAGE in [attribute.name for attribute in held_out.attributes]:
        warning = f"an attribute is called {verifier.IMAGE!r}, as the input of verifier.onnx is"
        click.echo(f"warning: {warning}: none is written", err=True)
    else:
        write_atomically(path, verifier.to_onnx(reader, held_out))


def synthetic(generator: Generator, attributes: tuple[Attribute, ...]) -> Dataset:
    """20,000 samples under the labels asked, which are drawn by frequency."""
    images = draw(generator, attributes, SYNTHETIC, UTILITY_SEED)
    return Dataset("samples", images.pixels.cpu().numpy(), images.labels.cpu().numpy(), attributes)


def _try(experiment: Experiment, plans: list[Plan], log: Log, shown: int) -> list[Trial]:
    """Carry out ``plans``, each kept in ``log`` as soon as it is done."""
    trials = []
    for trial in tqdm(experiment.trials(plans), "utility", len(plans), unit="trial", disable=None):
        log.append({"shown": shown} | asdict(trial))
        trials.append(trial)
    return trials


def labelled_data(run: Run, data: str | None) -> Dataset:
    """The run's data; all labels that it has where the model has none of them.

    Raises ``DataError``, and ``RunError`` where it is not what the run was trained on.
    """
    config = run.config
    unconditional = not run.dataset.attributes
    source, reading = data or config.data, config.reading
    try:
        dataset = load(source, **reading | ({"attributes": None} if unconditional else {}))
    except DataError as error:
        if not unconditional:
            raise
        click.echo(f"warning: going on without labels, for they cannot be read: {error}", err=True)
        dataset = load(source, **reading | {"attributes": ()})
    as_trained = dataset
    if unconditional:
        as_trained = replace(dataset, labels=dataset.labels[:, :0], attributes=())
    if as_trained.sha256 != run.dataset.info.sha256:
        raise RunError(f"the data is not what {run.folder} was trained on: its digest has changed")
    return dataset


def _write(
    folder: Path,
    told: EvaluationContext,
    utility: tuple[Experiment, list[Trial], GanTrainScore] | None,
) -> None:
    """The report comes last: what has one is whole."""
    for name in ("report.json", downstream_report.PICTURE):
        (folder / name).unlink(missing_ok=True)
    write_atomically(folder / "memorisation.png", report.as_picture(told))
    text = f"# {told.name} after {told.shown:,} images\n\n{report.as_markdown(told)}"
    found = report.as_json(told)
    if utility is not None:
        text += "\n" + downstream_report.as_markdown(*utility)
        found["utility"] = downstream_report.as_json(*utility)
        write_atomically(
            folder / downstream_report.PICTURE, downstream_report.as_picture(utility[1])
        )
    write_atomically(folder / "report.md", text)
    write_atomically(folder / "report.json", json.dumps(found, indent=2) + "\n")
