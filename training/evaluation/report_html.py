"""The report as one HTML file that needs no network: three headline scores, then all details.

The details are the Markdown report, with its pictures inside.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.plots import pages
from training.runs.run import MIN_SHARE_IMAGES


@dataclass(frozen=True)
class Score:
    """A headline: one number beside that of real images."""

    name: str
    level: str
    """``good``, ``fair``, ``poor`` or ``unknown``."""
    value: str
    reference: str
    """Value of real images, or of chance."""
    meaning: str
    blind: str
    """Faults that the number does not show."""


def scores(report: dict[str, Any]) -> tuple[Score, Score, Score]:
    """Headline scores of the content of ``report.json``."""
    return _faithful(report), _useful(report), _private(report)


def _faithful(report: dict[str, Any]) -> Score:
    if (images := report["samples"]["images"]) < MIN_SHARE_IMAGES:
        return Score(
            "Faithful",
            "unknown",
            "too few images",
            f"{images} held-out images; {MIN_SHARE_IMAGES} are needed",
            "Coverage: held-out images that have a sample in their neighbourhood.",
            "Look at samples beside real images, and at the kernel distance below.",
        )
    ours = report["spread"]["samples"]["coverage"]
    real = report["spread"]["real"]["coverage"]
    asked, read = report["labels"]["right"], report["labels"]["real_right"]
    labels = "" if asked is None else f" {asked:.1%} of the labels are read as asked"
    labels += "" if asked is None or read is None else f" (real images: {read:.1%})."
    share = ours["mean"] / real["mean"] if real["mean"] else 0
    level = "good" if share > 0.95 else "fair" if share > 0.8 else "poor"
    if asked is not None and read is not None and asked < 0.9 * read:
        level = "poor"
    return Score(
        "Faithful",
        level,
        _interval(ours),
        f"real images: {_interval(real)}",
        f"Coverage: held-out images that have a sample in their neighbourhood.{labels}",
        "Faults that the classifier's features leave out, such as a fine grid in a texture.",
    )


def _useful(report: dict[str, Any]) -> Score:
    meaning = (
        "Gain in accuracy of a classifier that also gets samples, over classic augmentation alone"
    )
    blind = (
        "Other classifiers, and your images, which figment recommend measures. The "
        "generator has seen all training images, the classifier only the budget."
    )
    found = [x for x in report.get("utility", {}).get("summaries", []) if x["gain_over_classic"]]
    if not found:
        return Score("Useful", "unknown", "not measured", "no gain: 0", f"{meaning}.", blind)
    budgets = {x["budget"]: x for x in found}  # the order is that of the budgets
    best = {
        budget: max(
            (x for x in found if x["budget"] == budget),
            key=lambda x: x["gain_over_classic"]["mean"],
        )
        for budget in budgets
    }
    lows = [x["gain_over_classic"]["low"] for x in best.values()]
    known = [low for low in lows if low is not None]
    level = "unknown" if not known else "good" if min(known) > 0 else "fair"
    if known and max(known) <= 0:
        level = "poor"
    each = "; ".join(
        f"{_points(x['gain_over_classic'])} with "
        + ("all" if budget is None else f"{budget:,}")
        + f" ({x['arm']})"
        for budget, x in best.items()
    )
    first = next(iter(best.values()))["gain_over_classic"]
    return Score(
        "Useful",
        level,
        f"{_points(first)} points",
        "no gain: 0",
        f"{meaning}, by real images of each value: {each}. The best arm of each, which favours it.",
        blind,
    )


def _private(report: dict[str, Any]) -> Score:
    attacks = report["privacy"]["attacks"]
    worst = max(attacks, key=lambda x: x["found"]["low"])
    level = "poor" if any(x["alarming"] for x in attacks) else "good"
    nearer, held = (report["privacy"][x]["nearer"] for x in ("samples", "held_out"))
    if level == "good" and nearer["low"] > held["high"]:
        level = "fair"
    if level == "good" and report["samples"]["images"] < MIN_SHARE_IMAGES:
        level = "unknown"  # so few images could not show it
    return Score(
        "Private",
        level,
        _share(worst["found"]),
        "chance: 1.0%",
        f"Training images that the best attack finds, by {worst['name']}, when it accuses 1% of "
        f"the others. {_share(nearer)} of the samples are nearer to training than to held-out "
        f"images (held-out images: {_share(held)}).",
        "Stronger attacks, copied parts of images, and recoloured or shifted copies.",
    )


def _interval(x: dict[str, Any]) -> str:
    return f"{x['mean']:.3f} [{x['low']:.3f}, {x['high']:.3f}]"


def _share(x: dict[str, Any]) -> str:
    return f"{x['value']:.1%} [{x['low']:.1%}, {x['high']:.1%}]"


def _points(x: dict[str, Any]) -> str:
    mean = f"{100 * x['mean']:+.1f}"
    return mean if x["low"] is None else f"{mean} [{100 * x['low']:+.1f}, {100 * x['high']:+.1f}]"


def as_html(markdown: str, report: dict[str, Any], read: Callable[[str], bytes]) -> str:
    """Page of ``report``; ``markdown`` has the details, and ``read`` gives its PNG files."""
    # Imported here: only this page needs it.
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)

    def inside(found: re.Match[str]) -> str:
        return f'src="{pages.inline_png(read(html.unescape(found[1])))}"'

    body = re.sub(r'src="([^":]+\.png)"', inside, body)
    body = body.replace("<th></th>", "<td></td>")
    numbers = itertools.count(1)
    body = re.sub(
        r"<table>.*?</table>",
        lambda found: pages.scrolling(f"Table {next(numbers)}", found[0]),
        body,
        flags=re.DOTALL,
    )
    title, _, details = body.partition("\n")
    return pages.document(
        f"{report['model']}: evaluation",
        f"{title}\n{headlines(report)}\n<h2>Details</h2>\n{details}",
    )


def headlines(report: dict[str, Any]) -> str:
    """The three scores of ``report``, as HTML."""
    return f'<div class="scores">\n{"".join(map(_headline, scores(report)))}\n</div>'


def _headline(score: Score) -> str:
    parts = {name: html.escape(value) for name, value in vars(score).items()}
    return (
        '<section class="score {level}"><h2>{name}: {level}</h2><p><strong>{value}</strong><br>'
        "<small>{reference}</small></p><p>{meaning}</p><p><small>Does not show: {blind}</small></p>"
        "</section>"
    ).format(**parts)
