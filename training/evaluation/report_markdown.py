"""An evaluation as Markdown, for the report and the model card."""

from __future__ import annotations

import math
import re

from training.evaluation.confidence import Estimate
from training.evaluation.images import limits
from training.evaluation.label_scores import AttributeScore, ValueScore
from training.evaluation.measure import SEED
from training.evaluation.memorisation import Memorisation
from training.evaluation.privacy import FALSE_POSITIVES, SAMPLES, WARNING, Interval
from training.evaluation.repeats import SETS
from training.evaluation.report import (
    DUPLICATES,
    RIGHT,
    WORST,
    EvaluationContext,
    stated,
    texture_rows,
)


def as_markdown(context: EvaluationContext) -> str:
    """Sections with headings of the third level."""
    sections = [_introduction(context), _closeness(context), _spread(context)]
    if context.evaluation.attributes:
        sections += [_labels(context), *map(_values, context.evaluation.attributes)]
        sections.append(_failures(context))
    sections += [_memorisation(context), _privacy(context)]
    if context.readers:
        sections.append(_verifier(context))
    return "\n".join(line for section in sections for line in [*section, ""])


def _introduction(context: EvaluationContext) -> list[str]:
    spaces = [f"*{space.name}*: {space.description}." for space in context.spaces]
    return [
        f"{context.images:,} samples (0 to {context.images - 1} of seed {SEED}, labels drawn by "
        f"frequency) after {context.shown:,} images shown, against {context.against}. The column "
        "*real* is the reference: the same metric for as many training images. Numbers over "
        "another N or other features cannot be compared with these.",
        "",
        *([f"**{few}**.", ""] if (few := limits(context.images)) else []),
        f"Features: {' '.join(spaces)}",
    ]


def _closeness(context: EvaluationContext) -> list[str]:
    lines = [
        "### Fidelity and variety",
        "",
        "| metric | features | samples | real | better | does not show |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for close in context.evaluation.closeness:
        for key, explanation in stated(context.images).items():
            value, real = (_number(getattr(x, key)) for x in (close.samples, close.real))
            if key == "kernel" and close.samples.kernel_deviation is not None:
                value += f" ± {_number(close.samples.kernel_deviation)}"
            lines.append(
                f"| {explanation.title} | {close.space} | {value} | {real} | {explanation.better} "
                f"| {explanation.blind} |"
            )
    evaluation, explanation = context.evaluation, DUPLICATES
    lines.append(
        f"| {explanation.title} | 8x8 thumbnails | {evaluation.duplicates:.1%} | "
        f"{evaluation.real_duplicates:.1%} | {explanation.better} | {explanation.blind} |"
    )
    for title, explanation, *pair in texture_rows(context):
        numbers = " | ".join(map(_number, pair))
        lines.append(
            f"| {title} | pixels | {numbers} | {explanation.better} | {explanation.blind} |"
        )
    return lines


def _spread(context: EvaluationContext) -> list[str]:
    samples, real = context.spread
    return [
        "### Error bars",
        "",
        f"Mean and 95% interval (Student's t) over {SETS} sets of samples, of several seeds, and "
        f"{SETS} sets of training images, each against the same held-out images, in the features "
        f"of {context.spaces[0].name}. Another training of the generator differs by more.",
        "",
        "| metric | samples | real |",
        "| --- | --- | --- |",
        *(
            f"| {explanation.title} | {_estimate(samples[name])} | {_estimate(real[name])} |"
            for name, explanation in stated(context.images).items()
        ),
    ]


def _estimate(x: Estimate) -> str:
    return f"{_number(x.mean)} [{_number(x.low)}, {_number(x.high)}]"


def _labels(context: EvaluationContext) -> list[str]:
    evaluation = context.evaluation
    lines = [
        "### Labels",
        "",
        "Labels as read by a classifier of real images, which makes errors itself: the column "
        "*real* is its accuracy on held-out images. H(y\\|x), in nats, is the classifier's "
        "uncertainty about one image, and H(y) the variety of its output over all images (together "
        "they are the inception score). Neither shows a fault that the classifier does not see. "
        "Diversity is the mean distance in the classifier's features between two images with a "
        "value, and best as high as for real images: a lower one means similar images, a higher "
        "one may mean labels that are not followed. It does not show variety that is independent "
        "of the labels.",
        "",
        "| attribute | right | real | H(y\\|x) | real | H(y) | real | at most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in evaluation.attributes:
        samples, real = each.entropies, each.real_entropies
        lines.append(
            f"| {_cell(each.name)} | {_share(each.right)} | {_share(each.real_right)} | "
            f"{samples.conditional:.3f} | {real.conditional:.3f} | {samples.marginal:.3f} | "
            f"{real.marginal:.3f} | {math.log(len(each.values)):.3f} |"
        )
    lines.append(
        f"| all together | {_share(evaluation.right)} | {_share(evaluation.real_right)} | | | | | |"
    )
    if (
        evaluation.right is not None
        and evaluation.real_right is not None
        and evaluation.right > evaluation.real_right
    ):
        lines += ["", f"Note: {RIGHT.blind.split('; ')[1]}."]
    return lines


def _values(attribute: AttributeScore) -> list[str]:
    source = "requested" if attribute.right is not None else "read"
    return [
        f"#### {_cell(attribute.name)}",
        "",
        f"| value | samples {source} | read as asked | real images | read right | diversity | of "
        "real ones |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_value(value) for value in attribute.values),
    ]


def _value(value: ValueScore) -> str:
    return (
        f"| {_cell(value.value)} | {value.samples} | {_share(value.right)} | {value.real} | "
        f"{_share(value.real_right)} | {_number(value.diversity)} | "
        f"{_number(value.real_diversity)} |"
    )


def _failures(context: EvaluationContext) -> list[str]:
    rows = "the samples that the classifier is least certain of"
    if context.evaluation.right is not None:
        rows = (
            f"samples of the labels with most errors, read wrong with most confidence; last, {rows}"
        )
    return [
        "### Failure cases",
        "",
        "![Samples with what was asked for and what is read](failures.png)",
        "",
        f"Above: {rows}. Below each: what was asked for, and what is read. An error may be the "
        f"classifier's. `report.json` has the indices of these samples of seed {SEED}.",
    ]


def _memorisation(context: EvaluationContext) -> list[str]:
    lines = [
        "### Memorisation",
        "",
        "Distance to the nearest training image, mirrored ones included. Held-out images are the "
        "reference: samples that are no copies have about the same distances, a little smaller or "
        "larger.",
        "",
        "| by | | minimum | 1st percentile | median |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in context.evaluation.memorisation:
        for title, near in (("samples", each.samples), ("held out", each.held_out)):
            lines.append(
                f"| {each.space} | {title} | {_number(near.minimum)} | {_number(near.low)} | "
                f"{_number(near.median)} |"
            )
    lines += ["", *(_verdict(each) for each in context.evaluation.memorisation)]
    return [
        *lines,
        "",
        "![Samples nearest to training images, with these](memorisation.png)",
        "",
        f"The {WORST} samples nearest to a training image, each above that image; below, the same "
        "for held-out images. This does not show a copied part of an image, or a copy "
        "that is shifted or recoloured. Images that are smoother or paler than real ones, as "
        "samples often are, are nearer to all images by pixels. Then the median is lower, too.",
    ]


def _verdict(each: Memorisation) -> str:
    evidence = (
        f"{each.nearer:.1%} of the samples are nearer than the 1st percentile of held-out images; "
        f"the probability that chance puts so many samples among the nearest is {each.chance:.2g}"
    )
    if each.suspicious:
        return f"- By {each.space}: **nearer than held-out images**. {evidence}."
    return f"- By {each.space}: no nearer than held-out images, within the error. {evidence}."


def _privacy(context: EvaluationContext) -> list[str]:
    found = context.privacy
    lines = [
        "### Privacy",
        "",
        "The share of images that are nearer to a training image than to a held-out one, out of as "
        "many of each; and the distance to the nearest training image over that to the second "
        "nearest, which is near 0 for a copy. By pixels, in either orientation. Held-out images "
        "are the reference.",
        "",
        "| | nearer to training images | distance ratio, median | 1st percentile |",
        "| --- | --- | --- | --- |",
    ]
    for title, each in (("samples", found.samples), ("held out", found.held_out)):
        lines.append(
            f"| {title} | {_interval(each.nearer)} | {each.ratio:.3f} | {each.low_ratio:.3f} |"
        )
    lines += [
        "",
        "Membership inference: an attacker who has images and their labels, and "
        f"{SAMPLES:,} samples, guesses which images were trained on. AUC is the probability that a "
        "training image scores higher than another; 50% is chance. Found is the share of the "
        f"training images that the attack names when it also names {FALSE_POSITIVES:.0%} of the "
        f"others; {FALSE_POSITIVES:.0%} is chance. Intervals are of 95%.",
        "",
        "| attack by | AUC | found |",
        "| --- | --- | --- |",
        *(f"| {x.name} | {_interval(x.auc)} | {_interval(x.found)} |" for x in found.attacks),
        "",
    ]
    for attack in found.attacks:
        if attack.alarming:
            lines.append(
                f"- **Warning**: by {attack.name}, training images can be told from others. Of a "
                "training image and another, equally likely, a named one is the training image "
                "more than two times out of three."
            )
    if not any(attack.alarming for attack in found.attacks):
        lines.append(
            f"- No attack finds more than {WARNING:.0%} of the training images with confidence."
        )
    return [*lines, "", "Stronger attacks, with more queries or other models, are not tried."]


def _interval(x: Interval) -> str:
    return f"{x.value:.1%} [{x.low:.1%}, {x.high:.1%}]"


def _verifier(context: EvaluationContext) -> list[str]:
    conditional = context.evaluation.right is not None
    lines = [
        "### Verifier" if conditional else "### Classifier",
        "",
        f"{'`verifier.onnx` is this classifier. ' if conditional else ''}Accuracy of the "
        "classifier on images that it was not trained on. The *calibration error* is the mean "
        "difference between its confidence and its accuracy. Beside it are the error without "
        "calibration, and the error that so few images give a confidence that is exactly true. "
        "Each half of the images is measured with the temperature of the other half.",
        "",
        "| attribute | read right | images | calibration error | uncalibrated | if exactly true |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, reader in context.readers.items():
        errors = (reader.calibration_error, reader.uncalibrated_error, reader.perfect_error)
        cells = " | ".join(f"{error:.1%}" for error in errors)
        lines.append(f"| {_cell(name)} | {reader.right:.1%} | {reader.images:,} | {cells} |")
    return lines


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cell(text: str) -> str:
    """Escape names from the data, so that Markdown shows them as they are."""
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", text)
