"""Downstream benefit as Markdown, JSON and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from training.evaluation.classifiers import BATCH, OPERATIONS, VALIDATION
from training.evaluation.confidence import Estimate, estimate
from training.evaluation.downstream import ARMS, CLASSIC, REAL, SYNTHETIC, Experiment, Trial
from training.plots.figures import add_legend, new_figure, to_image
from training.plots.grids import png

PICTURE = "utility.png"
"""File name of the picture, to which the Markdown links."""

SIZE = (1320, 480)
ORDER = (*ARMS, SYNTHETIC)
COLOURS = dict(
    zip(
        ORDER,
        ("#0969da", "#bf8700", "#cf222e", "#8250df", "#1a7f37", "#bc4c00", "#6e7781"),
        strict=True,
    )
)
SHIFT = 0.012
"""Horizontal distance of the arms' intervals against overlaps, as a share of the width."""
INSET = 0.08
"""Free margin beside the first and the last budget, as a share of the width."""

CAVEATS = (
    "The generator was trained on all training images, so with a small budget it adds knowledge of "
    "images that are not in the budget. The result is the gain from the finished model for a user "
    "with few labelled images, not what a GAN trained on those few would give.",
    "A snapshot chosen by its distance to the held-out images, as a run's best one is, has "
    "used the test images a little.",
    "The classifier is small. A larger or pretrained one may gain less.",
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
    attributes: dict[str, Estimate]
    values: dict[str, dict[str, float]]
    """Mean accuracy for each value of each attribute."""
    worst: tuple[str, str, float]
    """Attribute, value and mean accuracy of the value that is read worst."""
    calibration_error: Estimate
    gain: Estimate | None
    """Gain over the arm `real` with the same budget; None for that arm and for samples alone."""
    gain_over_classic: Estimate | None
    """Gain over the arm `real + classic`; None for both arms without samples, and samples alone."""


def summarise(trials: Iterable[Trial]) -> list[Summary]:
    """Summarise by arm and budget, in rising order of budget, then of arms.

    All images come after the other budgets, and synthetic images alone come last.
    """
    arms: dict[tuple[int | None, str], dict[int, Trial]] = {}
    for trial in trials:
        arms.setdefault((trial.budget, trial.arm), {})[trial.seed] = trial

    def position(key: tuple[int | None, str]) -> tuple[bool, float, int]:
        budget, arm = key
        return arm == SYNTHETIC, math.inf if budget is None else budget, ORDER.index(arm)

    return [_summary(arms, *key) for key in sorted(arms, key=position)]


def _summary(
    arms: Mapping[tuple[int | None, str], Mapping[int, Trial]], budget: int | None, arm: str
) -> Summary:
    trials = arms[budget, arm]
    own = list(trials.values())

    def gain(over: str) -> Estimate | None:
        # Paired: with one seed all arms have the same real images.
        base = arms.get((budget, over), {})
        gains = [trials[seed].accuracy - base[seed].accuracy for seed in trials if seed in base]
        return estimate(gains) if gains else None

    values = {
        name: {value: fmean(x.values[name][value] for x in own) for value in shares}
        for name, shares in own[0].values.items()
    }
    every = [(name, value, share) for name, s in values.items() for value, share in s.items()]
    return Summary(
        arm=arm,
        budget=budget,
        images=(min(x.images for x in own), max(x.images for x in own)),
        accuracy=estimate([x.accuracy for x in own]),
        attributes={
            name: estimate([x.attributes[name] for x in own]) for name in own[0].attributes
        },
        values=values,
        worst=min(every, key=lambda each: each[2]),
        calibration_error=estimate([x.calibration_error for x in own]),
        gain=None if arm == REAL else gain(REAL),
        gain_over_classic=None if arm in (REAL, CLASSIC) else gain(CLASSIC),
    )


def verdict(gain: Estimate) -> str:
    """The gain in words."""
    if gain.low is None or gain.high is None:
        return "unknown: only one seed"
    if gain.low > 0:
        return "helps"
    return "hurts" if gain.high < 0 else "no difference"


def as_markdown(experiment: Experiment, trials: Sequence[Trial]) -> str:
    """Markdown section with a table of all arms and a link to the picture."""
    seeds = len({trial.seed for trial in trials})
    training = experiment.training
    augmentations = ", ".join(OPERATIONS) + (", mirror" if training.mirror else "")
    names = [attribute.name for attribute in experiment.real.attributes]
    columns = ["budget", "arm", "real images", "accuracy, %", *(f"{name}, %" for name in names)]
    columns += ["worst value, %", "calibration error, %", "gain over real, points"]
    columns += ["gain over classic, points"]
    lines = [
        "### Does synthetic data help a classifier?",
        "",
        f"![accuracy over real images for each value]({PICTURE})",
        "",
        f"A small classifier ({', '.join(names)}; {training.width} channels in its first layer) is "
        f"trained with {seeds} {'seed' if seeds == 1 else 'seeds'} and tested on "
        f"{len(experiment.held_out):,} held-out real images. A budget is the number of real images "
        "with each value of each attribute, or all if there are fewer, drawn from "
        f"{len(experiment.real):,}. An image counts for all its values. One image in {VALIDATION} "
        "of the budget chooses the best state of each training (early stopping). Every arm takes "
        f"the same number of passes over the others: at least {training.min_passes:g}, and at "
        f"least {training.min_steps:,} batches of {BATCH}. Synthetic images are added to these "
        f"batches, {BATCH} to each, or as many in all are shown before the first real one "
        f"(*pretrained*). Each is shown once, up to {experiment.samples.limit:,} different ones. "
        f"Classic augmentation is {augmentations}, of all images. Accuracy is the share of labels "
        "read right, averaged over the attributes, with 95% confidence intervals (Student's t over "
        "the seeds). Gains are paired by seed.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{' --- |' * len(columns)}",
        *(_row(summary) for summary in summarise(trials)),
        "",
        "Limits:",
        "",
        *(f"- {caveat}" for caveat in CAVEATS),
        "",
    ]
    return "\n".join(lines)


def budget_name(budget: int | None) -> str:
    return "all" if budget is None else f"{budget:,}" if budget else ""


def _row(summary: Summary) -> str:
    fewest, most = summary.images
    attribute, value, share = summary.worst
    cells = (
        budget_name(summary.budget),
        summary.arm,
        f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}",
        percent(summary.accuracy),
        *(f"{100 * each.mean:.1f}" for each in summary.attributes.values()),
        f"{attribute} {value}: {100 * share:.1f}",
        f"{100 * summary.calibration_error.mean:.1f}",
        _gain(summary.gain),
        _gain(summary.gain_over_classic),
    )
    return f"| {' | '.join(cells)} |"


def _gain(gain: Estimate | None) -> str:
    return "" if gain is None else f"{percent(gain, '+')} {verdict(gain)}"


def percent(x: Estimate, sign: str = "") -> str:
    """Mean and interval times 100, such as ``+5.3 [+3.9, +6.8]``."""
    numbers = [x.mean] if x.low is None or x.high is None else [x.mean, x.low, x.high]
    mean, *interval = (f"{100 * number:{sign}.1f}" for number in numbers)
    return f"{mean} [{', '.join(interval)}]" if interval else mean


def as_json(experiment: Experiment, trials: Sequence[Trial]) -> dict[str, Any]:
    """Trials and summaries as JSON; accuracies in [0, 1]."""
    sets = {"real": experiment.real, "held_out": experiment.held_out}
    training = experiment.training
    return {
        **{
            role: {"name": x.name, "images": len(x), "sha256": x.sha256} for role, x in sets.items()
        },
        "samples": experiment.samples.limit,
        "training": {
            "width": training.width,
            "min_passes": training.min_passes,
            "min_steps": training.min_steps,
            "mirror": training.mirror,
        },
        "trials": [asdict(trial) for trial in trials],
        "summaries": [asdict(summary) for summary in summarise(trials)],
    }


def as_picture(trials: Sequence[Trial]) -> bytes:
    """PNG of accuracy over the real images, with intervals; synthetic alone is a band.

    Raises ``ValueError`` if no trial has real images.
    """
    summaries = summarise(trials)
    sizes = sorted({max(x.images[1], 1) for x in summaries if x.arm != SYNTHETIC})
    if not sizes:
        raise ValueError("nothing to draw: no trial has real images")
    figure, (axes,) = new_figure(SIZE, ["labels of held-out images read right, %"])
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])
    width = last - first or 1
    for number, arm in enumerate(ORDER):
        own = [x for x in summaries if x.arm == arm]
        if arm == SYNTHETIC:
            for x in own:
                mean, half = _percentage(x.accuracy)
                axes.axhline(mean, color=COLOURS[arm], label=arm)
                axes.axhspan(mean - half, mean + half, color=COLOURS[arm], alpha=0.2, linewidth=0)
            continue
        shift = (number - len(ARMS) / 2) * SHIFT * width
        xs = [math.log10(x.images[1]) + shift for x in own]
        means, halves = (
            zip(*(_percentage(x.accuracy) for x in own), strict=True) if own else ((), ())
        )
        axes.errorbar(xs, means, halves, fmt="o-", color=COLOURS[arm], label=arm)
    axes.set_xticks([math.log10(size) for size in sizes], [f"{size:,}" for size in sizes])
    axes.set_xlim(first - INSET * width, last + INSET * width)
    axes.set_xlabel("real images")
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, 0), min(top, 100))
    add_legend(figure)
    return png(to_image(figure))


def _percentage(x: Estimate) -> tuple[float, float]:
    """Mean and half of the interval, which is 0 if there is none."""
    return 100 * x.mean, 0 if x.high is None else 100 * (x.high - x.mean)
