"""Downstream benefit as Markdown, JSON and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.evaluation.confidence import Estimate, estimate
from training.evaluation.downstream import (
    ARMS,
    BATCH,
    CLASSIC,
    MIXED,
    OPERATIONS,
    REAL,
    Experiment,
    GanTrainScore,
    Trial,
)
from training.plots.figures import add_legend, new_figure, to_image
from training.plots.grids import png

PICTURE = "utility.png"
"""File name of the picture, to which the Markdown links."""

SIZE = (760, 440)
COLOURS = dict(zip(ARMS, ("#0969da", "#bf8700", "#cf222e", "#8250df"), strict=True))
OFFSETS = {REAL: -0.015, CLASSIC: 0.0, MIXED: 0.015}
"""Horizontal shift of each arm's intervals against overlaps, as a share of the width."""
INSET = 0.08
"""Free margin beside the first and the last budget, as a share of the width."""

CAVEATS = (
    "The generator was trained on all training images, so with a small budget it adds knowledge of "
    "images that are not in the budget. The result is the gain from the finished model for a user "
    "with few labelled images, not what a GAN trained on those few would give.",
    "A snapshot chosen by its distance to the held-out images, as a run's best one is, has "
    "used the test images a little.",
    "The classifier is small and trained briefly. A larger or pretrained one may gain less.",
    "Intervals cover the differences between seeds: the images in a budget, and the classifier's "
    "weights and batches. They do not cover another generator or other held-out images.",
    "Verdicts are not corrected for their number: of 20 arms that make no difference, about one "
    "will seem to make one.",
)


@dataclass(frozen=True)
class Summary:
    """One arm under one budget, over all seeds."""

    arm: str
    budget: int | None
    images: tuple[int, int]
    """Fewest and most real images over the seeds."""
    accuracy: Estimate
    gain: Estimate | None
    """Gain over the arm 'real' under the same budget; None for that arm and for synthetic alone."""
    verdict: str | None
    """The gain in words; None without a gain."""


def summarise(trials: Iterable[Trial]) -> list[Summary]:
    """Summarise by arm and budget, in rising order of budget, then of ``ARMS``.

    Synthetic images alone, which have no budget, come last.
    """
    arms: dict[tuple[int | None, str], dict[int, Trial]] = {}
    for trial in trials:
        arms.setdefault((trial.budget, trial.arm), {})[trial.seed] = trial
    order = sorted(arms, key=lambda key: (key[0] or math.inf, ARMS.index(key[1])))
    return [_summary(*key, arms[key], arms.get((key[0], REAL), {})) for key in order]


def _summary(
    budget: int | None, arm: str, trials: Mapping[int, Trial], real: Mapping[int, Trial]
) -> Summary:
    """Summarise ``trials``; ``real`` are the trials to compare with. Both are by seed."""
    images = [trial.images for trial in trials.values()]
    accuracy = estimate([trial.accuracy for trial in trials.values()])
    # Paired: under one seed all arms have the same real images.
    gains = [trials[seed].accuracy - real[seed].accuracy for seed in trials if seed in real]
    gain = estimate(gains) if gains and arm != REAL else None
    verdict = _verdict(gain) if gain else None
    return Summary(arm, budget, (min(images), max(images)), accuracy, gain, verdict)


def _verdict(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return "unknown: only one seed"
    if gain.low > 0:
        return "helps"
    return "hurts" if gain.high < 0 else f"no difference within the error of {gain.seeds} seeds"


def as_markdown(experiment: Experiment, trials: Sequence[Trial], score: GanTrainScore) -> str:
    """Markdown section with a table of all arms and a link to the picture."""
    seeds = len({trial.seed for trial in trials})
    attributes = ", ".join(attribute.name for attribute in experiment.real.attributes)
    augmentations = ", ".join(OPERATIONS) + (", mirror" if experiment.mirror else "")
    lines = [
        "### Does synthetic data help a classifier?",
        "",
        f"![accuracy over real images for each value]({PICTURE})",
        "",
        f"A small classifier ({attributes}) is trained for {experiment.steps:,} steps of {BATCH} "
        f"images in every arm, with {seeds} {'seed' if seeds == 1 else 'seeds'}, and tested on "
        f"{len(experiment.held_out):,} held-out real images. A budget is the number of real images "
        "with each value of each attribute, or all if there are fewer, drawn from "
        f"{len(experiment.real):,}. An image counts for all its values. Classic augmentation is "
        f"{augmentations}. The {len(experiment.synthetic):,} synthetic images are half of every "
        "batch in the arm with real images, and the whole batch in the arm without. Accuracy is "
        "the share of labels read right, averaged over the attributes, with 95% confidence "
        "intervals (Student's t over the seeds). A gain is over real images alone under the same "
        "budget, paired by seed.",
        "",
        "| budget | arm | real images | accuracy, % | gain, points | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(summary) for summary in summarise(trials)),
        "",
        f"After many epochs on {len(experiment.synthetic):,} samples only, the classifier's "
        f"accuracy on held-out images: {_shares(score.synthetic)}. After as many on all "
        f"{len(experiment.real):,} real training images: {_shares(score.real)}.",
        "",
        "Limits:",
        "",
        *(f"- {caveat}" for caveat in CAVEATS),
        "",
    ]
    return "\n".join(lines)


def _row(summary: Summary) -> str:
    fewest, most = summary.images
    cells = (
        "" if summary.budget is None else f"{summary.budget:,}",
        summary.arm,
        f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}",
        _percent(summary.accuracy, ""),
        _percent(summary.gain, "+") if summary.gain else "",
        summary.verdict or "",
    )
    return f"| {' | '.join(cells)} |"


def _percent(x: Estimate, sign: str) -> str:
    numbers = [x.mean] if x.low is None or x.high is None else [x.mean, x.low, x.high]
    mean, *interval = (f"{100 * number:{sign}.1f}" for number in numbers)
    return f"{mean} [{', '.join(interval)}]" if interval else mean


def as_json(
    experiment: Experiment, trials: Sequence[Trial], score: GanTrainScore
) -> dict[str, Any]:
    """Trials and summaries as JSON; accuracies in [0, 1]."""
    sets = {role: getattr(experiment, role) for role in ("real", "synthetic", "held_out")}
    return {
        **{
            role: {"name": x.name, "images": len(x), "sha256": x.sha256} for role, x in sets.items()
        },
        "steps": experiment.steps,
        "mirror": experiment.mirror,
        "taught": asdict(score),
        "trials": [asdict(trial) for trial in trials],
        "summaries": [asdict(summary) for summary in summarise(trials)],
    }


def _shares(right: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in right.items())


def as_picture(trials: Sequence[Trial]) -> bytes:
    """PNG of accuracy over the budget, with intervals; synthetic alone is a band.

    Raises ``ValueError`` if no trial has a budget.
    """
    summaries = summarise(trials)
    budgets = sorted({x.budget for x in summaries if x.budget is not None})
    if not budgets:
        raise ValueError("nothing to draw: no trial has real images")
    figure, (axes,) = new_figure(SIZE, ["labels of held-out images read right, %"])
    positions = {budget: math.log10(budget) for budget in budgets}
    first, last = positions[budgets[0]], positions[budgets[-1]]
    width = last - first or 1
    for x in summaries:
        if x.budget is None:
            mean, half = _percentage(x.accuracy)
            axes.axhline(mean, color=COLOURS[x.arm], label=x.arm)
            axes.axhspan(mean - half, mean + half, color=COLOURS[x.arm], alpha=0.2, linewidth=0)
    for arm, offset in OFFSETS.items():
        own = [(x.budget, *_percentage(x.accuracy)) for x in summaries if x.arm == arm and x.budget]
        xs = [positions[budget] + offset * width for budget, _, _ in own]
        means, halves = [mean for _, mean, _ in own], [half for _, _, half in own]
        axes.errorbar(xs, means, halves, fmt="o-", color=COLOURS[arm], label=arm)
    axes.set_xticks(list(positions.values()), [f"{budget:,}" for budget in budgets])
    axes.set_xlim(first - INSET * width, last + INSET * width)
    axes.set_xlabel("real images for each value")
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, 0), min(top, 100))
    add_legend(figure)
    return png(to_image(figure))


def _percentage(x: Estimate) -> tuple[float, float]:
    """Mean and half of the interval, which is 0 if there is none."""
    return 100 * x.mean, 0 if x.high is None else 100 * (x.high - x.mean)
