"""What goes wrong in adversarial training, told from the logs and said in plain words.

No network and no I/O here: lines of the log in, a sentence out. A number that is no number is the
loop's own affair, since it must not even be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.config import TrainingConfig

Line = Mapping[str, float]
"""A line of ``log.jsonl`` or of ``scores.jsonl``, by the names there; ``shown`` is in images."""

PATIENCE, PATIENCE_KIMG = 0.2, 50
"""A discriminator must be ahead for this share of the run, and for so many thousand images, with no
better snapshot, to have won. Ahead it is in many good runs, whose samples may become better once
the learning rate falls, so nothing is said where snapshots are not measured."""
ALWAYS_AHEAD = 0.999
GRACE, GRACE_KIMG = 0.1, 20
"""Early samples are all alike: nothing is said of them in this share of the run, and not before so
many thousand images."""
NO_COVERAGE = 0.01
MANY_DUPLICATES = 0.5
LOST_RECALL = 1 / 3
RECALL_WORTH_LOSING = 0.1
LEAK = 0.1
"""Share of samples that look augmented, beyond that of the real images."""


def diagnose(
    ticks: Sequence[Line], scores: Sequence[Line], config: TrainingConfig, real_grey: float
) -> str | None:
    """What is wrong with a run and what to try, or None.

    ``ticks`` and ``scores`` hold the whole run so far. ``real_grey`` is the share of real images
    that look augmented. A fault of the samples counts once two snapshots in a row have it.
    """
    grace = max(GRACE * config.kimg, GRACE_KIMG) * 1000
    late = [line for line in scores if line["shown"] >= grace][-2:]
    pair = late if len(late) == 2 else []
    return (
        _collapsed(pair, scores)
        or _learnt_nothing(pair)
        or _leaking(pair, config, real_grey)
        or _discriminator_won(ticks, scores, config, grace)
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
            f"the generator has collapsed: {pair[-1]['duplicates']:.0%} of its samples are nearly "
            f"copies of another one (of real images, 1%). {advice}"
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
        f"the augmentation leaks: {pair[-1]['grey']:.0%} of the samples have grey areas as "
        f"{' and '.join(config.augment)} leave them (of real images, {real_grey:.0%}). Try a lower "
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
        return None  # far ahead it is in good runs, too
    best = min(scores, key=lambda line: line["frechet"])["shown"]
    if best > since or sum(line["shown"] > best for line in scores) < 2:
        return None  # the samples get better all the same, or may do so yet
    return (
        f"the discriminator has won: for {patience:,.0f} images it has told nearly every real "
        "image from a generated one, and the samples have not become better. Try --d-norm "
        "spectral with --r1-gamma 0.1, --augment translation,cutout, or a lower --d-lr"
    )
