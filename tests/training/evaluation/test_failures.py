from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from service.core.manifest import Attribute
from training.evaluation.failures import failures
from training.evaluation.label_scores import LabelReading
from training.plots import grids

HAIR = Attribute(name="hair", values=("red", "blue", "black"), frequencies=(0.4, 0.4, 0.2))


def reading(*rows: tuple[int, list[float]]) -> LabelReading:
    """Labels and probabilities of samples with one attribute."""
    labels = torch.tensor([[label] for label, _ in rows])
    probabilities = torch.tensor([each for _, each in rows])
    right = probabilities.argmax(dim=1, keepdim=True) == labels
    return LabelReading((probabilities,), labels, right, torch.zeros(len(rows), 1))


READING = reading(
    (0, [0.9, 0.1, 0.0]),
    (0, [0.2, 0.7, 0.1]),
    (0, [0.0, 0.1, 0.9]),
    (1, [0.1, 0.8, 0.1]),
    (1, [0.4, 0.3, 0.3]),
    (1, [0.1, 0.9, 0.0]),
    (2, [0.0, 0.0, 1.0]),
)


def test_labels_with_most_errors_come_first_and_the_surest_errors_of_each() -> None:
    red, blue, _ = failures(READING, [HAIR], conditional=True)
    assert red.title == "hair red: 66.7% of 3 read as others"
    assert [(case.index, case.asked, case.read) for case in red.cases] == [
        (2, "red", "black"),
        (1, "red", "blue"),
    ]
    assert red.cases[0].caption == ("hair: red", "read black 90%")
    assert blue.title == "hair blue: 33.3% of 3 read as others"
    assert [case.index for case in blue.cases] == [4]


def test_least_certain_samples_are_last() -> None:
    *_, least = failures(READING, [HAIR], conditional=True)
    assert [case.index for case in least.cases] == [4, 1, 3, 0, 2, 5, 6]
    unasked = replace(
        READING,
        labels=READING.probabilities[0].argmax(dim=1, keepdim=True),
        right=READING.right | True,
    )
    (alone,) = failures(unasked, [HAIR], conditional=False)
    assert [case.index for case in alone.cases] == [4, 1, 3, 0, 2, 5, 6]
    assert alone.cases[0].asked is None and alone.cases[0].caption == ("hair", "read red 40%")


def test_pictures_have_a_title_and_captions() -> None:
    images = torch.zeros(3, 16, 16, 1, dtype=torch.uint8).numpy()
    captions = [("asked: a value with a very long name", "red 40%")] * 3
    content = grids.captioned_images([("first", images, captions), ("next", images, captions)], 7)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width == 3 * (112 + 8)
        assert picture.height == 2 * (112 + 4 * 20)


def test_report_shows_them(evaluated: Path) -> None:
    folder = evaluated / "evaluation"
    assert (folder / "failures.png").exists()
    assert "![Samples with what was asked for and what is read](failures.png)" in (
        folder / "report.md"
    ).read_text(encoding="utf-8")
    found = json.loads((folder / "report.json").read_text())
    assert [row["title"] for row in found["failures"]][-1] == "least certain"
    assert all(case["asked"] != case["read"] for case in found["failures"][0]["cases"])
