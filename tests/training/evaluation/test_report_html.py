from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from training.evaluation.report_html import as_html, scores

INTERVAL = {"mean": 0.9, "low": 0.88, "high": 0.92}
RATE = {"value": 0.01, "low": 0.005, "high": 0.016}
HALF = {"value": 0.5, "low": 0.48, "high": 0.52}


def gain(budget: int | None, arm: str, mean: float, half: float = 0.01) -> dict[str, Any]:
    interval = {"mean": mean, "low": mean - half, "high": mean + half}
    return {"budget": budget, "arm": arm, "gain_over_classic": interval}


def report(**parts: Any) -> dict[str, Any]:
    return {
        "model": "faces",
        "samples": {"images": 500},
        "spread": {"samples": {"coverage": INTERVAL}, "real": {"coverage": INTERVAL}},
        "labels": {"right": 0.93, "real_right": 0.89},
        "privacy": {
            "samples": {"nearer": HALF},
            "held_out": {"nearer": HALF},
            "attacks": [{"name": "distance", "auc": HALF, "found": RATE, "alarming": False}],
        },
    } | parts


def test_headlines_have_a_value_an_interval_and_a_reference() -> None:
    faithful, useful, private = scores(report())
    assert (faithful.level, faithful.value) == ("good", "0.900 [0.880, 0.920]")
    assert faithful.reference == "real images: 0.900 [0.880, 0.920]"
    assert "93.0% of the labels are read as asked (real images: 89.0%)" in faithful.meaning
    assert (useful.level, useful.value) == ("unknown", "not measured")
    assert (private.level, private.value) == ("good", "1.0% [0.5%, 1.6%]")
    assert private.reference == "chance: 1.0%"


def test_few_images_give_no_score() -> None:
    faithful, _, private = scores(report(samples={"images": 64}))
    assert (faithful.level, faithful.value) == ("unknown", "too few images")
    assert private.level == "unknown"
    assert faithful.reference == "64 held-out images; 100 are needed"


@pytest.mark.parametrize(
    ("gains", "level"), [((0.1, 0.05), "good"), ((0.1, 0.0), "fair"), ((-0.1, 0.0), "poor")]
)
def test_usefulness_is_the_gain_over_classic_at_every_budget(
    gains: tuple[float, float], level: str
) -> None:
    summaries = [
        {"budget": 10, "arm": "real", "gain_over_classic": None},
        gain(10, "real + synthetic", gains[0]),
        gain(10, "pretrained, real", gains[0] - 0.3),
        gain(None, "pretrained, real", gains[1]),
    ]
    _, useful, _ = scores(report(utility={"summaries": summaries}))
    assert useful.level == level
    assert useful.value.startswith(f"{100 * gains[0]:+.1f} [")
    assert "with 10 (real + synthetic)" in useful.meaning
    assert "with all (pretrained, real)" in useful.meaning


def test_an_alarming_attack_is_poor() -> None:
    found = report()
    found["privacy"]["attacks"][0] |= {"alarming": True}
    assert scores(found)[2].level == "poor"


def test_text_from_the_data_is_escaped() -> None:
    page = as_html("# <b>x</b>\n\n<script>\n", report(model="<i>"), lambda name: b"")
    assert "<script>" not in page and "<b>" not in page and "<i>" not in page


def test_page_of_a_run_needs_no_network(evaluated: Path) -> None:
    folder = evaluated / "evaluation"
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    for title in ("Faithful", "Useful", "Private", "Privacy", "Error bars", "Failure cases"):
        assert title in page
    found = json.loads((folder / "report.json").read_text())
    assert scores(found)[0].value in page

    opened: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img", "br"):
                opened.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balanced().feed(page)
    assert not opened
