"""The page of a run: what it shows, and when it is written."""

from __future__ import annotations

import html
import re
import shutil
import signal
import webbrowser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.helpers.small_runs import Start, some, training
from training.cli import train as train_command
from training.data import Dataset
from training.errors import Interrupted
from training.loop import page
from training.loop.diagnosis import warnings
from training.loop.loop import train
from training.loop.trainer import Trainer
from training.plots.charts import Curve, chart
from training.runs.run import Run


def text(run: Run) -> str:
    """Visible words of the page."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", run.page.read_text(), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def test_page_of_a_finished_run(trained: Path) -> None:
    run = Run.open(trained)
    content, said = run.page.read_text(), " ".join(text(run).split())
    assert "Finished after 384 images. Next: figment evaluate" in said
    assert "400 images of faces, 16x16 pixels; labels: hair (12), glasses (2)." in said
    # Pictures lie beside the page, and nothing comes from elsewhere.
    sources = re.findall(r'(?:src|href)="([^"]+)"', content)
    assert sources == ["samples/000000384.png", "reals.png", "film.png?000000384"]
    assert all((trained / source.partition("?")[0]).exists() for source in sources)
    # The newest scores stand beside those of real images.
    line, real = run.scores.lines()[-1], run.real_scores()
    for name, title in (("recall", "recall"), ("hair_right", "hair")):
        pair = f"{line[name]:.3g} (real images, dashed: {real[name]:.3g})"
        assert f"{title}: {pair}" in said
    assert content.count('<svg class="chart"') == 4
    assert real["images"] == line["images"]
    assert real["frechet"] < line["frechet"] and real["recall"] > line["recall"]


def test_film_has_the_same_samples_of_each_snapshot(trained: Path) -> None:
    run = Run.open(trained)
    strip = np.asarray(Image.open(run.film))
    assert strip.shape == (page.STRIPS * 16, 6 * 16, 3)
    for column, shown in enumerate(range(64, 385, 64)):
        grid = np.asarray(Image.open(run.sample_grid(shown)))
        for row in range(page.STRIPS):
            cell = strip[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            assert np.array_equal(cell, grid[:16, row * 16 : row * 16 + 16])


def test_page_is_written_at_the_start_with_every_tick_and_at_an_interruption(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step, seen = start(), Trainer.step, []

    def watched(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        seen.append(" ".join(text(run).split()))
        if trainer.shown == 144:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *batch)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Trainer, "step", watched)
        train(run, faces)
    assert "Preparing: no images shown yet." in seen[0]
    for number in range(2, 10, 2):  # a tick is two steps of 16 images
        assert re.search(
            rf"\b{number * 16} of 192 images shown, about \d+ \w+ left at \d+ images/s",
            seen[number],
        )
    assert "Samples after" not in seen[5] and "Samples after 96 images" in seen[6]
    assert "fewer than 32 images were held out: use a larger --hold-out" in seen[2]
    stopped = f"Stopped after 160 images; continue with figment resume {run.folder.resolve()}"
    assert stopped in " ".join(text(run).split())


def test_text_from_the_data_is_escaped(trained: Path, tmp_path: Path) -> None:
    run = Run.open(trained)
    named = run.dataset.info.model_copy(update={"name": "<i>faces</i>"})
    (tmp_path / "log.jsonl").write_text(run.log.path.read_text())
    run = replace(run, folder=tmp_path, dataset=run.dataset.model_copy(update={"info": named}))
    page.write(run)
    assert "&lt;i&gt;faces" in run.page.read_text()


def test_evaluated_run_shows_its_report(evaluated: Path) -> None:
    run = Run.open(evaluated)
    said = " ".join(text(run).split())
    assert "small after 384 images Faithful:" in said and "Private:" in said
    assert 'href="evaluation/report.html"' in run.page.read_text()
    assert "<script>" not in run.page.read_text()  # nothing more is to come
    assert "Next:" not in said


def test_evaluation_of_another_version_does_not_stop_a_run(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.evaluation("small").mkdir()
    (run.evaluation("small") / "report.json").write_text('{"model": "small"}')
    page.write(run)
    assert "evaluation is of another version of Figment: evaluate the run again." in text(run)


def test_open_shows_the_page_before_training(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def browser(address: str) -> bool:
        assert Path(address.removeprefix("file://")).exists()
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", browser)
    folder = tmp_path / "run"
    options = ("--width", "4", "--batch", "16", "--kimg", "0.032", "--hold-out", "0")
    done = training("train", "--data", source, "--name", "x", "--out", folder, *options, "--open")
    assert done.exit_code == 0, done.stderr
    assert f"page to watch: {folder / 'index.html'}" in done.stderr
    assert training("resume", folder, "--open").exit_code == 0
    assert opened == [(folder / "index.html").as_uri()] * 2


SCORE = {"shown": 600_000, "frechet": 2.0, "recall": 0.3, "coverage": 0.6, "duplicates": 0.01}
SCORE |= {"grey": 0.0, "copied": 0.0, "glasses_right": 0.9}
REAL = {"glasses_right": 0.9, "grey": 0.0}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"copied": 0.2}, "the generator memorises: at least 20% of its different samples"),
        ({"glasses_right": 0.6}, "the label glasses is not learnt: 60% of the samples show"),
        ({"duplicates": 0.9}, "the generator has collapsed"),
    ],
    ids=["copied", "label", "collapse"],
)
def test_warnings(faces: Dataset, start: Start, fault: dict[str, float], said: str) -> None:
    config = start(kimg=1000).config
    glasses = some(faces, 64, "glasses").attributes

    def found(*scores: dict[str, float]) -> list[str]:
        return warnings([], scores, config, REAL, glasses)

    assert found(SCORE, SCORE) == []
    assert found(SCORE | fault) == found(SCORE | fault, SCORE) == []  # one snapshot may be chance
    (sentence,) = found(SCORE, SCORE | fault, SCORE | fault)
    assert sentence.startswith(said)
    named = re.findall(r"--[a-z-]+", sentence.partition(" Try ")[2])
    assert named
    assert set(named) <= {option for each in train_command.params for option in each.opts}


def test_labels_have_half_of_the_run_to_be_learnt(faces: Dataset, start: Start) -> None:
    config = start(kimg=1300).config
    late = SCORE | {"glasses_right": 0.5}
    assert warnings([], [late, late], config, REAL, some(faces, 64, "glasses").attributes) == []


@pytest.mark.parametrize("scale", ["linear", "share", "log"])
@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [-3.0, 800.0, 0.001] * 1000])
def test_charts_of_any_values(scale: str, values: list[float]) -> None:
    points = [(100.0 * (i + 1), value) for i, value in enumerate(values)]
    drawn = chart("a", [Curve("b", points, 0.2), Curve("c", points)], points[-1][0], scale)  # type: ignore[arg-type]
    positions = re.findall(r'points="([^"]*)"', drawn)
    assert len(positions) == 2
    pairs = [tuple(map(float, each.split(","))) for each in positions[0].split()]
    assert len(pairs) <= 301
    assert all(0 <= x <= 360 for x, _ in pairs)
    assert pairs[-1][0] == 352  # the right edge
    if scale != "share":
        assert all(0 <= y <= 180 for _, y in pairs)
