"""``python -m training compare``."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import pytest

from tests.helpers.small_runs import create_run, some, training
from training.data import Dataset
from training.loop.loop import train
from training.plots import grids
from training.runs import sampling
from training.runs.run import Run


@pytest.fixture(scope="module")
def other(portraits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one label, with other options, and with too few held-out images to be scored."""
    faces = some(portraits, 64, "eyes")
    run = create_run(
        tmp_path_factory.mktemp("runs") / "other", faces, kimg=0.064, mirror=True, seed=7
    )
    train(run, faces)
    return run.folder


def rows(page: str, title: str) -> dict[str, list[str]]:
    """Cells of each row of the table ``title``, by the row's name."""
    table = page.partition(f"<h2>{title}</h2>")[2].partition("</table>")[0]
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
    return {html.unescape(name): re.findall("<td>(.*?)</td>", cells) for name, cells in found}


def test_runs_are_compared_on_one_page(evaluated: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    done = training("compare", evaluated, trained, "--snapshot", "last", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(out)
    page = out.read_text()
    # One file, with both runs' samples of the same latents, and real images.
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3 and all(each.startswith("data:image/png;base64,") for each in sources)
    run = Run.open(trained)
    generator, _ = run.load_snapshot("last")
    samples = grids.grid(sampling.fixed_samples(generator, run.dataset.attributes, 64))
    pictures = [base64.b64decode(each.partition(",")[2]) for each in sources]
    assert pictures == [samples, samples, (trained / "reals.png").read_bytes()]
    # Scores of both and of real images; the evaluation of one; no option differs.
    line, real = run.scores.lines()[-1], run.real_scores()
    cells = rows(page, "Scores of the snapshots")
    assert cells["recall"] == [f"{each['recall']:.4g}" for each in (line, line, real)]
    assert "hair read as asked" in cells
    report = Run.open(evaluated).report(384, "small")
    assert report is not None
    assert rows(page, "Evaluations") == {
        metric["name"]: [f"{metric['value']:.4g}", "", f"{metric['real']:.4g}"]
        for metric in report["metrics"]
    }
    assert "Options that differ" not in page


def test_runs_that_cannot_be_compared_say_so(trained: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    assert training("compare", trained, other, "--out", out).exit_code == 0
    page = html.unescape(out.read_text())
    assert "the samples at one place do not correspond" in page
    assert "Compare each with the real images only" in page
    cells = rows(page, "Options that differ")
    assert cells["--seed"] == ["0", "7"]
    assert cells["--mirror"] == ["off", "on"]
    assert cells["--kimg"] == ["0.384", "0.064"]
    assert "--name" not in cells
    recall = f"{Run.open(trained).real_scores()['recall']:.4g}"
    assert rows(page, "Scores of the snapshots")["recall"][1:] == ["", recall]


def test_compare_needs_two_runs(trained: Path, tmp_path: Path) -> None:
    alone = training("compare", trained, "--out", tmp_path / "compare.html")
    assert alone.exit_code == 2 and "name at least two runs" in alone.stderr
    nowhere = training("compare", trained, tmp_path, "--out", tmp_path / "compare.html")
    assert nowhere.exit_code == 1 and "is not the folder of a run" in nowhere.stderr
    assert not list(tmp_path.iterdir())
