"""The page of a run, ``index.html`` in its folder: progress, warnings, samples, curves, scores.

It is rendered from the run's files alone and shows pictures beside it, so it needs no server and
moves with the folder. It loads itself again every few seconds until the run has been evaluated.
"""

from __future__ import annotations

import datetime
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from service.core.atomic_write import write_atomically
from training.core.durations import duration
from training.evaluation import report_html
from training.evaluation.images import MIN_IMAGES
from training.loop.diagnosis import warnings
from training.loop.estimate import recent_rate
from training.plots import charts, grids, pages
from training.runs.run import Run, read_verdict

Lines = Sequence[Mapping[str, float]]

FRAMES = 12
"""Snapshots in the film strip, at most."""
STRIPS = 6
"""Samples in the film strip: the first of the grid's first row."""
PATIENCE_SECONDS = 300
"""Age at which the page says that the run may have stopped, or three ticks where these take longer;
a snapshot takes minutes at most."""
OPTION = r"(?<!\S)--[a-z-]+"
STYLE = """
.status { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: center }
progress { flex: 1 1 12rem; height: 1rem; accent-color: var(--link) }
.warnings { list-style: none; padding: 0 }
.warnings li { border: 1px solid var(--line); border-left: .5rem solid var(--poor);
  border-radius: 6px; padding: .5rem 1rem; margin: .5rem 0; overflow-wrap: anywhere }
.warnings code { display: inline-block }
.film ol { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; list-style: none;
  padding: 0; margin: 0; text-align: center; font-size: clamp(9px, 1.6vw, 14px) }
button { font: inherit }
"""
SCRIPT = """
const time = document.querySelector("time"), button = document.querySelector("button");
const written = new Date(time.dateTime);
time.textContent = written.toLocaleTimeString();
let paused = false;
button.hidden = false;
button.onclick = () => {
  paused = !paused;
  button.textContent = paused ? "Continue refreshing" : "Pause refreshing";
};
setInterval(() => {
  if (!paused && !document.hidden) location.reload();
}, 10000);
const stale = document.querySelector("#stale");
if (stale) stale.hidden = Date.now() - written < 1000 * stale.dataset.seconds;
"""


def write(run: Run, stopped: str = "") -> None:
    """Write the page of ``run`` as its files are; ``stopped`` says why the run was interrupted."""
    ticks, scores, real = run.log.lines(), run.scores.lines(), run.real_scores()
    snapshots = _sample_grids(run)
    evaluations = [_evaluation(path) for path in sorted(run.folder.glob("evaluation*/report.json"))]
    shown = ticks[-1]["shown"] if ticks else 0
    if read_verdict(run.folder):
        stopped = f"stopped after {shown:,} images"
    elif run.is_finished and run.sample_grid(int(shown)) in snapshots:
        stopped = f"finished after {shown:,} images"
        if not evaluations:
            stopped += f". Next: `figment evaluate {run.folder.resolve()}`"
    parts = [
        f"<h1>{html.escape(run.config.name)}</h1>",
        _status(run, ticks, stopped),
        _warnings(run, ticks, scores, real),
        *evaluations,
        _pictures(run, snapshots),
        _film(run),
        _curves(run, ticks, scores, real),
        "" if stopped and evaluations else f"<script>{SCRIPT}</script>",
    ]
    body = "\n".join(part for part in parts if part)
    write_atomically(run.page, pages.document(run.config.name, body, charts.STYLE + STYLE))


def film(run: Run) -> bytes:
    """PNG of the same samples in several snapshots: a column for each, the newest at the right."""
    height, width, _ = run.dataset.image_shape
    frames = _frames(_sample_grids(run))
    strip = Image.new("RGB", (len(frames) * width, STRIPS * height))
    for column, path in enumerate(frames):
        with Image.open(path) as grid:
            for row in range(STRIPS):
                cell = grid.crop((row * width, 0, (row + 1) * width, height))
                strip.paste(cell, (column * width, row * height))
    return grids.png(strip)


def _sample_grids(run: Run) -> list[Path]:
    return sorted(run.sample_grid(0).parent.glob("*.png"))


def _frames(snapshots: Sequence[Path]) -> list[Path]:
    """At most ``FRAMES`` evenly spaced snapshots, the newest among them."""
    chosen = np.linspace(0, len(snapshots) - 1, min(FRAMES, len(snapshots))).round()
    return [snapshots[int(i)] for i in chosen]


def _status(run: Run, ticks: Lines, stopped: str) -> str:
    """Sentences on the data and on how far the run is, with the time left unless ``stopped``."""
    total = run.config.kimg * 1000
    shown = ticks[-1]["shown"] if ticks else 0
    stale = ""
    if stopped:
        state = _sentence(stopped)
    else:
        state, patience = "Preparing: no images shown yet.", PATIENCE_SECONDS
        if ticks:
            rate = recent_rate(ticks)
            state = (
                f"{shown:,} of {total:,.0f} images shown, "
                f"about {duration(max(total - shown, 0) / rate)} left at {rate:.0f} images/s."
            )
            patience = max(patience, round(3 * run.config.tick_kimg * 1000 / rate))
        advice = _code(f"Continue it with `figment resume {run.folder.resolve()}`.")
        stale = (
            f'<p id="stale" data-seconds="{patience}" hidden>Nothing was written for '
            f"{duration(patience)}: the run may have been stopped. {advice}</p>"
        )
    now = datetime.datetime.now(datetime.UTC)
    height, width, _ = run.dataset.image_shape
    labels = ", ".join(f"{each.name} ({len(each.values)})" for each in run.dataset.attributes)
    data = f"{run.dataset.info.images:,} images of {run.dataset.info.name}, {width}x{height} pixels"
    return (
        f"<p>{html.escape(f'{data}; labels: {labels}' if labels else f'{data}; no labels')}.</p>"
        f'<div class="status"><progress aria-label="images shown" max="{total:.0f}" '
        f'value="{shown}"></progress><small>written at <time datetime="{now.isoformat()}">'
        f"{now:%H:%M} UTC</time></small><button hidden>Pause refreshing</button></div>"
        f"<p>{_code(state)}</p>{stale}"
    )


def _warnings(run: Run, ticks: Lines, scores: Lines, real: Mapping[str, float]) -> str:
    verdict = read_verdict(run.folder)
    found = warnings(ticks, scores, run.config, real, run.dataset.attributes)
    sentences = [verdict, *(_sentence(each) for each in found if each not in verdict)]
    rows = "".join(f"<li>{_code(sentence)}</li>" for sentence in sentences if sentence)
    if not rows:
        return ""
    return f'<h2>Warnings</h2><ul class="warnings">{rows}</ul>'


def _evaluation(path: Path) -> str:
    """Headline scores of an evaluation's ``report.json``, and a link to all of it."""
    folder = html.escape(path.parent.name)
    try:
        report = json.loads(path.read_bytes())
        title = f"{report['model']} after {report['images_shown']:,} images"
        scores = report_html.headlines(report)
    except (ValueError, LookupError, TypeError):
        return f"<p>{folder} is of another version of Figment: evaluate the run again.</p>"
    return (
        f"<h2>{html.escape(title)}</h2>\n{scores}\n"
        f'<p><a href="{folder}/report.html">The whole report</a></p>'
    )


def _pictures(run: Run, snapshots: Sequence[Path]) -> str:
    """Newest samples beside real images."""
    reals = run.folder / "reals.png"
    figures = []
    if snapshots:
        shown = int(snapshots[-1].stem)
        caption = f"Samples after {shown:,} images"
        figures.append(_figure(run, snapshots[-1], caption))
    if reals.exists():
        figures.append(_figure(run, reals, "Real images"))
    if not figures:
        return ""
    return f'<h2>Samples beside real images</h2><div class="grids">{"".join(figures)}</div>'


def _figure(run: Run, path: Path, caption: str) -> str:
    picture = _image(run, path, caption)
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _image(run: Run, path: Path, alt: str, version: str = "") -> str:
    with Image.open(path) as opened:
        size = opened.size
    source = path.relative_to(run.folder).as_posix() + version
    return pages.image(source, alt, size, min(run.dataset.image_shape[:2]))


def _film(run: Run) -> str:
    frames = _frames(_sample_grids(run))
    if len(frames) < 2 or not run.film.exists():
        return ""
    times = [_kimg(int(path.stem)) for path in frames]
    alt = f"{STRIPS} samples after {', '.join(times)} thousand images shown"
    # The browser keeps a picture as long as its address is the same.
    picture = _image(run, run.film, alt, f"?{frames[-1].stem}")
    captions = "".join(f"<li>{each}</li>" for each in times)
    return (
        "<h2>The same samples over time</h2>"
        f'<figure class="film" style="max-width:{6 * len(frames)}rem">{picture}'
        f'<ol aria-hidden="true">{captions}</ol>'
        "<figcaption>Thousand images shown.</figcaption></figure>"
    )


def _curves(run: Run, ticks: Lines, scores: Lines, real: Mapping[str, float]) -> str:
    if not ticks:
        return ""
    last = ticks[-1]["shown"]

    def curves(lines: Lines, names: Mapping[str, str]) -> list[charts.Curve]:
        found = []
        for name, title in names.items():
            points = [(line["shown"], line[name]) for line in lines if name in line]
            if points:
                level = real.get(name) if lines is scores else None
                found.append(charts.Curve(title, points, level))
        return found

    labels = {"labels_right": "all labels"}
    if 1 < len(run.dataset.attributes) < charts.COLOURS:
        labels |= {f"{each.name}_right": each.name for each in run.dataset.attributes}
    losses = {"d_loss": "discriminator", "g_loss": "generator"}
    panels: list[tuple[str, list[charts.Curve], charts.Scale]] = [
        ("Distance to real images", curves(scores, {"frechet": "Frechet distance"}), "log"),
        ("Variety", curves(scores, {"recall": "recall", "coverage": "coverage"}), "share"),
        ("Labels read as asked", curves(scores, labels), "share"),
        ("Losses", curves(ticks, losses), "linear"),
    ]
    figures = [charts.chart(title, found, last, scale) for title, found, scale in panels if found]
    unscored = ""
    if not real and not scores:
        unscored = (
            "<p>Snapshots are not scored, because fewer than "
            f"{MIN_IMAGES} images were held out: use a larger <code>--hold-out</code>.</p>"
        )
    return f'<h2>Curves</h2>{unscored}<div class="charts">{"".join(figures)}</div>'


def _kimg(shown: int) -> str:
    """Thousands of images shown, to at least two digits."""
    return f"{shown / 1000:,.0f}" if shown >= 10_000 else f"{shown / 1000:.2g}"


def _sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "`")) else ".")


def _code(text: str) -> str:
    """HTML of ``text``, in which commands stand in backticks and options by themselves."""
    parts = html.escape(text).split("`")
    for i, part in enumerate(parts):
        parts[i] = f"<code>{part}</code>" if i % 2 else re.sub(OPTION, r"<code>\g<0></code>", part)
    return "".join(parts)
