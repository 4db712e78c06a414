"""Diagnosis of failing runs from their logs: collapse, leaking augmentation, lost balance.

Pure functions of log lines to sentences: ``diagnose`` names a fault that stops a run, ``warnings``
also those that do not. NaN is detected by the recorder instead, before anything is saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.core.manifest import Attribute
from training.config import TrainingConfig

Line = Mapping[str, float]
"""Line of ``log.jsonl`` or ``scores.jsonl``; ``shown`` is in images."""

PATIENCE, PATIENCE_KIMG = 0.2, 50
"""The discriminator has won if it was ahead, and no snapshot was better, for this share of the run
and at least this many thousand images. It is ahead in many good runs, too, whose samples improve
once the learning rate falls, so runs without scores get no such diagnosis."""
ALWAYS_AHEAD = 0.999
"""Share of (real, generated) pairs that the discriminator ranks correctly when it is ahead."""
GRACE, GRACE_KIMG = 0.1, 20
"""Early samples are all similar, so snapshots are ignored in this share of the run, at least in
the first 20,000 images."""
NO_COVERAGE = 0.01
MANY_DUPLICATES = 0.5
LOST_RECALL = 1 / 3
RECALL_WORTH_LOSING = 0.1
LEAK = 0.1
"""Tolerated excess of augmented-looking samples over augmented-looking real images, as shares."""
COPIED = 0.1
LABELS_DUE = 0.5
"""Share of a run after which labels should be learnt: those of small details come late."""


def diagnose(
    ticks: Sequence[Line], scores: Sequence[Line], config: TrainingConfig, real_grey: float
) -> str | None:
    """Return a sentence that names the fault of a run and a remedy, or None.

    ``ticks`` and ``scores`` hold all lines of the run so far. ``real_grey`` is the share of real
    images that look augmented. A fault of the samples must occur in two successive snapshots.
    """
    grace = max(GRACE * config.kimg, GRACE_KIMG) * 1000
    pair = _pair(scores, grace)
    return (
        _collapsed(pair, scores)
        or _learnt_nothing(pair)
        or _leaking(pair, config, real_grey)
        or _discriminator_won(ticks, scores, config, grace)
    )


def warnings(
    ticks: Sequence[Line],
    scores: Sequence[Line],
    config: TrainingConfig,
    real: Line,
    attributes: Sequence[Attribute],
) -> list[str]:
    """Sentences on all faults that the logs show, each with a remedy; the gravest first.

    ``real`` holds the scores of real images; it is empty if nothing is scored.
    """
    due = LABELS_DUE * config.kimg * 1000
    found = [
        diagnose(ticks, scores, config, real.get("grey", 0.0)),
        _memorising(_pair(scores, max(GRACE * config.kimg, GRACE_KIMG) * 1000), config),
        *(_not_learnt(_pair(scores, due), config, real, attribute) for attribute in attributes),
    ]
    return [sentence for sentence in found if sentence is not None]


def _pair(scores: Sequence[Line], grace: float) -> Sequence[Line]:
    """The last two lines after ``grace`` images; none if there are fewer."""
    late = [line for line in scores if line["shown"] >= grace][-2:]
    return late if len(late) == 2 else []


def _memorising(pair: Sequence[Line], config: TrainingConfig) -> str | None:
    if not pair or any(line.get("copied", 0) < COPIED for line in pair):
        return None
    augment = "" if config.augment else ", --augment translation,cutout"
    return (
        f"the generator memorises: at least {pair[-1]['copied']:.0%} of its different samples are "
        f"nearer to training images than chance explains. Try more images{augment}, or a lower "
        "--kimg"
    )


def _not_learnt(
    pair: Sequence[Line], config: TrainingConfig, real: Line, attribute: Attribute
) -> str | None:
    name = f"{attribute.name}_right"
    if not pair or name not in pair[-1] or name not in real:
        return None
    chance = sum(frequency**2 for frequency in attribute.frequencies)
    if any(line[name] >= (chance + real[name]) / 2 for line in pair):
        return None
    return (
        f"the label {attribute.name} is not learnt: {pair[-1][name]:.0%} of the samples show the "
        f"value asked for (real images: {real[name]:.0%}, chance: {chance:.0%}). Try a higher "
        f"--label-weight than {config.label_weight:g}, a higher --kimg, or more images of its rare "
        "values"
    )


def _learnt_nothing(pair: Sequence[Line]) -> str | None:
    if not pair or any(line["coverage"] > NO_COVERAGE for line in pair):
        return None
    return (
        f"the generator has learnt nothing: its samples cover {pair[-1]['coverage']:.1%} of the "
        "real images. Try a lower --lr, or one of the presets"
    )


def _collapsed(pair: Sequence[Line], scores: Sequence[Line]) -> str | None:
    if not pair:
        return None
    advice = (
        "Try --minibatch stddev, a lower --lr, or --augment translation,cutout; for a conditional "
        "model a lower --label-weight, or --label-ramp-kimg"
    )
    if all(line["duplicates"] >= MANY_DUPLICATES for line in pair):
        return (
            f"the generator has collapsed: {pair[-1]['duplicates']:.0%} of its samples are near-"
            f"duplicates of another one (real images: 1%). {advice}"
        )
    best = max(line["recall"] for line in scores)
    nearest = min(line["frechet"] for line in scores)
    if best >= RECALL_WORTH_LOSING and all(
        line["recall"] < best * LOST_RECALL and line["frechet"] > 2 * nearest for line in pair
    ):
        return (
            f"the generator is collapsing: its samples once covered {best:.0%} of the real images, "
            f"and now {pair[-1]['recall']:.0%}. {advice}"
        )
    return None


def _leaking(pair: Sequence[Line], config: TrainingConfig, real_grey: float) -> str | None:
    if not pair or not all(line["grey"] > real_grey + LEAK for line in pair):
        return None
    return (
        f"the augmentation leaks: {pair[-1]['grey']:.0%} of the samples have grey areas like "
        f"those of {' and '.join(config.augment)} (real images: {real_grey:.0%}). Try a lower "
        f"--augment-probability than {config.augment_probability:g}, or fewer operations"
    )


def _discriminator_won(
    ticks: Sequence[Line], scores: Sequence[Line], config: TrainingConfig, grace: float
) -> str | None:
    if not ticks:
        return None
    patience = max(PATIENCE * config.kimg, PATIENCE_KIMG) * 1000
    since = ticks[-1]["shown"] - patience
    recent = [line for line in ticks if line["shown"] > since]
    if since < grace or any(line["d_ahead"] < ALWAYS_AHEAD for line in recent):
        return None
    if not scores:
        return None  # good runs are far ahead, too
    best = min(scores, key=lambda line: line["frechet"])["shown"]
    if best > since or sum(line["shown"] > best for line in scores) < 2:
        return None  # the samples improve, or may still improve
    return (
        f"the discriminator has won: for {patience:,.0f} images it has recognised nearly all "
        "real and generated images, and the samples have not improved. Try --d-norm "
        "spectral with --r1-gamma 0.1, --augment translation,cutout, or a lower --d-lr"
    )
