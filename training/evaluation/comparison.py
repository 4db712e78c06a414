"""Runs side by side in one HTML file: samples of the same latents, scores, options that differ."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from training.plots import grids, pages
from training.runs import sampling
from training.runs.run import Run

SAMPLES = 64
SCORES = {
    "frechet": "Frechet distance (0 is best)",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "duplicates": "duplicates among the samples",
    "copied": "copies of training images, at least",
    "labels_right": "all labels read as asked",
    "fine": "power of fine details, dB",
    "hatch": "power of hatch, dB",
}
"""Scores of snapshots that are compared, beside those of each attribute."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a run, with what is known of it."""

    run: Run
    shown: int
    samples: bytes
    """PNG of images 0 to 63 of seed 0."""
    scores: dict[str, float]
    """Empty if the run scored none."""
    real: dict[str, float]
    """Scores of real images in place of the samples."""
    report: dict[str, Any]
    """Content of its evaluation; empty if there is none."""

    @classmethod
    def of(cls, run: Run, name: str) -> Snapshot:
        """Snapshot ``name`` of ``run``, as ``Run.load_snapshot`` takes it. Raises ``RunError``."""
        generator, shown = run.load_snapshot(name)
        samples = sampling.fixed_samples(generator, run.dataset.attributes, SAMPLES)
        return cls(
            run,
            shown,
            grids.grid(samples),
            next((line for line in run.scores.lines() if line["shown"] == shown), {}),
            run.real_scores(),
            run.report(shown, run.config.name) or {},
        )


def as_html(snapshots: Sequence[Snapshot]) -> str:
    """Page that compares ``snapshots`` of at least two runs."""
    names = [str(each.run.folder) for each in snapshots]
    figures = "".join(map(_figure, snapshots))
    parts = [
        "<h1>Comparison of runs</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in _notes(snapshots)),
        "<h2>Samples of the same latents and labels</h2>",
        f'<div class="grids">{figures}{_real_images(snapshots[0].run)}</div>',
        _table("Options that differ", names, _options(snapshots)),
        _table("Scores of the snapshots", [*names, "real images"], _scores(snapshots)),
        _table("Evaluations", [*names, "real images"], _evaluations(snapshots)),
    ]
    return pages.document("Comparison of runs", "\n".join(filter(None, parts)))


def _notes(snapshots: Sequence[Snapshot]) -> list[str]:
    """Reasons why the runs cannot be compared."""
    runs = [each.run for each in snapshots]
    notes = []
    if len({(run.config.latent_size, run.dataset.attributes) for run in runs}) > 1:
        notes.append(
            "The runs differ in latent size or labels: the samples at one place do not correspond."
        )
    if len({(run.dataset.info.sha256, run.config.hold_out, run.config.mirror) for run in runs}) > 1:
        notes.append(
            "The runs differ in data, held-out images or mirroring: their scores are measured "
            "against other images or in other features. Compare each with the real images only."
        )
    return notes


def _figure(snapshot: Snapshot) -> str:
    title = f"{snapshot.run.folder} after {snapshot.shown:,} images"
    return _picture(snapshot.samples, title, snapshot.run)


def _real_images(run: Run) -> str:
    path = run.folder / "reals.png"
    return _picture(path.read_bytes(), "Real images", run) if path.exists() else ""


def _picture(content: bytes, title: str, run: Run) -> str:
    with Image.open(io.BytesIO(content)) as opened:
        size = opened.size
    side = min(run.dataset.image_shape[:2])
    picture = pages.image(pages.inline_png(content), title, size, side)
    return f"<figure>{picture}<figcaption>{html.escape(title)}</figcaption></figure>"


Rows = dict[str, list[str]]
"""Title of each row, and its cells."""


def _options(snapshots: Sequence[Snapshot]) -> Rows:
    chosen = [each.run.config.model_dump(exclude={"name"}) for each in snapshots]
    return {
        f"--{name.replace('_', '-')}": [_option(options[name]) for options in chosen]
        for name in chosen[0]
        if any(options[name] != chosen[0][name] for options in chosen)
    }


def _option(value: object) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _scores(snapshots: Sequence[Snapshot]) -> Rows:
    titles = dict(SCORES)
    for each in snapshots:
        for attribute in each.run.dataset.attributes:
            titles[f"{attribute.name}_right"] = f"{attribute.name} read as asked"
    return {
        title: _cells([(each.scores.get(name), each.real.get(name)) for each in snapshots])
        for name, title in titles.items()
        if any(name in each.scores for each in snapshots)
    }


def _evaluations(snapshots: Sequence[Snapshot]) -> Rows:
    found = [
        {metric["name"]: (metric["value"], metric["real"]) for metric in report.get("metrics", [])}
        for report in (each.report for each in snapshots)
    ]
    names = {name: None for metrics in found for name in metrics}
    return {name: _cells([metrics.get(name, (None, None)) for metrics in found]) for name in names}


def _cells(pairs: Sequence[tuple[float | None, float | None]]) -> list[str]:
    """Cells of (value, value of real images): the latter last, or in each cell if they differ."""
    numbers = [["" if each is None else f"{each:.4g}" for each in pair] for pair in pairs]
    reals = {real for _, real in numbers if real}
    if len(reals) < 2:
        return [value for value, _ in numbers] + [*reals, ""][:1]
    return [f"{value} (real images: {real})" if real else value for value, real in numbers] + [""]


def _table(title: str, columns: Sequence[str], rows: Rows) -> str:
    """Section of one table, which scrolls on narrow screens; empty without rows."""
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in columns)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    table = f"<table><tr><td></td>{heads}</tr>{lines}</table>"
    return f"<h2>{title}</h2>\n{pages.scrolling(title, table)}"
