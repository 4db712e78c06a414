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
    OPERATIONS,
    REAL,
    Experiment,
    GanTrainScore,
    Trial,
)
from training.plots.canvas import GRID, LABEL_SIZE, SCALE, Canvas, Plot, Point
from training.plots.grids import png

PICTURE = "utility.png"
"""File name of the picture, to which the Markdown links."""

SIZE, BOX = (760, 440), (50, 45, 740, 345)
COLOURS = dict(zip(ARMS, ("#0969da", "#bf8700", "#cf222e", "#8250df"), strict=True))
OFFSETS = dict(zip(ARMS, (-9, 0, 9, 0), strict=True))
"""Horizontal shift of each arm's intervals in pixels, so that they do not overlap."""
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


class _LogPlot(Plot):
    """Plot of percentages over budgets on a logarithmic axis."""

    def at(self, x: float, y: float) -> Point:
        first, last = self.xticks[0], self.xticks[-1]
        share = math.log(x / first) / math.log(last / first) if last > first else 0.5
        height = (self.yticks[-1] - y) / (self.yticks[-1] - self.yticks[0])
        return (INSET + (1 - 2 * INSET) * share) * self.size[0], height * self.size[1]


def as_picture(trials: Sequence[Trial]) -> bytes:
    """PNG of accuracy over the budget, with intervals; synthetic alone is a band.

    Raises ``ValueError`` if no trial has a budget.
    """
    summaries = summarise(trials)
    budgets = sorted({x.budget for x in summaries if x.budget is not None})
    if not budgets:
        raise ValueError("nothing to draw: no trial has real images")
    canvas, plot = Canvas(SIZE), _LogPlot(BOX, budgets, _tens(summaries))
    for _, height in (plot.at(budgets[0], y) for y in plot.yticks):  # as wide as the band
        plot.draw.line([(0, height), (plot.size[0], height)], GRID, SCALE)
    lines: dict[str, list[Point]] = {}
    for x in summaries:
        low, mean, high = (plot.at(budgets[0], 100 * share)[1] for share in _bounds(x.accuracy))
        if x.budget is None:
            plot.draw.rectangle((0, high, plot.size[0], low), f"{COLOURS[x.arm]}30")
            lines[x.arm] = [(0, mean), (plot.size[0], mean)]
        else:
            across = plot.at(x.budget, 0)[0] + OFFSETS[x.arm] * SCALE
            plot.draw.line([(across, low), (across, high)], COLOURS[x.arm], 2 * SCALE)
            plot.draw.circle((across, mean), 4 * SCALE, COLOURS[x.arm])
            lines.setdefault(x.arm, []).append((across, mean))
    for arm, points in lines.items():
        plot.draw.line(points, COLOURS[arm], 2 * SCALE, joint="curve")
    canvas.plot(plot)
    middle = (BOX[0] + BOX[2]) / 2
    canvas.text((middle, 24), "labels of held-out images read right, %", LABEL_SIZE)
    canvas.text((middle, BOX[3] + 44), "real images for each value", LABEL_SIZE)
    canvas.legend(SIZE[1] - 20, [(arm, COLOURS[arm]) for arm in ARMS if arm in lines])
    return png(canvas.finish())


def _bounds(x: Estimate) -> tuple[float, float, float]:
    """Low, mean and high, which are equal if there is no interval."""
    return (x.mean,) * 3 if x.low is None or x.high is None else (x.low, x.mean, x.high)


def _tens(summaries: Sequence[Summary]) -> Sequence[int]:
    """Multiples of ten, 0 to 100, that enclose all intervals."""
    tens = [10 * share for x in summaries for share in _bounds(x.accuracy)]
    first = min(max(math.floor(min(tens)), 0), 9)
    return range(10 * first, 10 * max(min(math.ceil(max(tens)), 10), first + 1) + 1, 10)
