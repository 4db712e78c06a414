"""Model card: README.md beside a model file, with its samples."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from service.core import latents
from service.core.labels import Vocabulary
from service.core.licences import hub_licence
from service.core.manifest import REPORT_FILE, Manifest
from training.evaluation.report import COMPARED, RIGHT
from training.evaluation.report_html import Score
from training.networks.marginal import Marginal
from training.networks.networks import Generator
from training.plots import grids
from training.runs import sampling

COLUMNS = 8
SEED = 0
TASK = "unconditional-image-generation"
"""Nearest task of the hub, which has none for images by label."""
MEASURED = {RIGHT.title, *(metric.title for metric in COMPARED.values())}
"""Metrics in the YAML."""


def samples(generator: Generator | Marginal, manifest: Manifest) -> bytes:
    """PNG with a row for each value of each attribute, or a square for an unconditional model.

    Images 0, 1, 2 ... of seed 0 under the label at the left, without selection.
    """
    if not manifest.attributes:
        return grids.grid(sampling.fixed_samples(generator, (), COLUMNS * COLUMNS))
    vocabulary = Vocabulary(manifest.attributes, where="Labels")
    rows, captions = [], []
    for a, attribute in enumerate(manifest.attributes):
        for v in range(len(attribute.values)):
            labels = latents.draw_labels(SEED, 0, COLUMNS, manifest.attributes)
            labels[:, a] = v
            rows.append(labels)
            captions.append(vocabulary.phrase({a: v}))
    latent = latents.latents(SEED, 0, COLUMNS, manifest.latent_size)
    images = sampling.sample(
        generator,
        np.tile(latent, (len(rows), 1)),
        np.concatenate(rows),
        manifest.attributes,
    )
    return grids.captioned_rows(images, captions)


def text(manifest: Manifest, version: int, scores: Sequence[Score]) -> str:
    """Card in Markdown with the YAML of a Hugging Face model card.

    ``scores`` are the headlines of ``report.html``, which is beside the card; empty without one.
    """
    head = yaml.safe_dump(_head(manifest, version), sort_keys=False, allow_unicode=True)
    return "\n".join(
        [
            f"---\n{head}---",
            "",
            f"# {manifest.name}, version {version}",
            "",
            _summary(manifest),
            "",
            "![samples](samples.png)",
            "",
            _caption(manifest),
            "",
            "## Evaluation",
            "",
            *(_scores(scores) if scores else _metrics(manifest)),
            *_advice(manifest),
            "",
            "## Labels",
            "",
            *_labels(manifest),
            "",
            "## Provenance",
            "",
            *_provenance(manifest),
            "",
            "## Use",
            "",
            "```sh",
            _request(manifest, version),
            "```",
            "",
        ]
    )


def _head(manifest: Manifest, version: int) -> dict[str, Any]:
    """YAML in front: https://huggingface.co/docs/hub/model-cards describes its fields."""
    dataset = manifest.provenance.dataset
    licence = hub_licence(dataset.licence)
    measured = [
        {"type": _slug(metric.name), "name": metric.name, "value": metric.value}
        for metric in manifest.metrics
        if metric.name in MEASURED
    ]
    result = {
        "task": {"type": TASK},
        "dataset": {"type": _slug(dataset.name), "name": dataset.name},
        "metrics": measured,
    }
    return {
        "license": licence,
        **({"license_name": _slug(dataset.licence)} if licence == "other" else {}),
        "library_name": "onnx",
        "pipeline_tag": TASK,
        "tags": ["synthetic", "figment", "gan", "dcgan", manifest.kind],
        **(
            {"model-index": [{"name": f"{manifest.name} {version}", "results": [result]}]}
            if measured
            else {}
        ),
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "unnamed"


def _scores(scores: Sequence[Score]) -> list[str]:
    return [
        "| | | value | reference |",
        "| --- | --- | --- | --- |",
        *(f"| {x.name} | {x.level} | {x.value} | {x.reference} |" for x in scores),
        "",
        f"[{REPORT_FILE}]({REPORT_FILE}) says what each number means and what it does not show. It "
        "has all other numbers, failure cases, and the samples nearest to training images. Open it "
        "in a browser; the service has it at `GET /models/NAME/VERSION/report`.",
    ]


def _advice(manifest: Manifest) -> list[str]:
    if manifest.recommendation is None:
        return []
    return [
        "",
        f"As a training set beside real images, as measured: {manifest.recommendation}",
    ]


def _summary(manifest: Manifest) -> str:
    colours = "RGB" if manifest.channels == 3 else "grey"
    article = "An" if manifest.kind == "unconditional" else "A"
    text = (
        f"{article} {manifest.kind} DCGAN that generates {manifest.width}x{manifest.height} "
        f"{colours} images. All of its images are synthetic."
    )
    if names := manifest.provenance.training.get("labels_drawn"):
        text += (
            f" It was trained on labelled images, and draws {' and '.join(names)} by frequency, "
            "from one latent each. In an interpolation between two images these labels change "
            "abruptly."
        )
    if groups := manifest.provenance.training.get("clusters"):
        text += (
            f" It was trained without labels, on {groups} groups of similar images, and draws the "
            "group by frequency from one latent. In an interpolation between two images the group "
            "changes abruptly."
        )
    return text


def _caption(manifest: Manifest) -> str:
    if manifest.kind == "unconditional":
        return f"Images 0 to {COLUMNS**2 - 1} of seed {SEED}, without selection."
    return (
        f"Images 0 to {COLUMNS - 1} of seed {SEED} under each label, without selection. "
        "Attributes that the label does not name are drawn by frequency."
    )


def _labels(manifest: Manifest) -> list[str]:
    if not manifest.attributes:
        return ["None: the model is unconditional."]
    lines = ["| attribute | values (share of the training images) |", "| --- | --- |"]
    for attribute in manifest.attributes:
        pairs = zip(attribute.values, attribute.frequencies, strict=True)
        values = ", ".join(f"{value} ({frequency:.1%})" for value, frequency in pairs)
        lines.append(f"| {attribute.name} | {values} |")
    return lines


def _provenance(manifest: Manifest) -> list[str]:
    dataset, provenance = manifest.provenance.dataset, manifest.provenance
    images = provenance.training.get("images")
    part = f"{images:,} of " if images else ""
    return [
        "| | |",
        "| --- | --- |",
        f"| trained on | {dataset.name}, {part}{dataset.images:,} images |",
        f"| SHA-256 of the data | `{dataset.sha256}` |",
        f"| rights in the training images | {dataset.licence} |",
        f"| exported | {provenance.date}, by Figment {provenance.code_version} |",
        f"| training | {provenance.training.get('images_shown', 0):,} images shown; the model file "
        "has all options |",
        "",
        "The permitted use of the weights and of generated images depends on the rights in the "
        "training images. Read that line before you use or share either.",
    ]


def _metrics(manifest: Manifest) -> list[str]:
    if not manifest.metrics:
        return ["Not evaluated. Judge by the samples, and expect faults that they do not show."]
    lines = ["| metric | value | samples | against |", "| --- | --- | --- | --- |"]
    lines += [f"| {m.name} | {m.value:g} | {m.samples} | {m.against} |" for m in manifest.metrics]
    return lines


def _request(manifest: Manifest, version: int) -> str:
    body: dict[str, object] = {"model": manifest.name, "version": version, "n": 16, "seed": 3}
    path = "/generate"
    if manifest.attributes:
        vocabulary = Vocabulary(manifest.attributes, where="Labels")
        path, body["label"] = "/generate/conditional", vocabulary.phrase({0: 0})
    return (
        f"curl -s 'localhost:8000{path}?format=png' -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}' -o samples.png"
    )
