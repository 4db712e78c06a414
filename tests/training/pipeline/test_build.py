"""``build`` makes a served model of a folder, says why it cannot, and is done only once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from service.core.atomic_write import write_atomically
from tests.helpers.ports import free_port
from tests.helpers.server import serve
from tests.helpers.small_runs import training
from tests.training.conftest import pack
from tests.training.pipeline.conftest import arguments
from training.data import Dataset
from training.errors import Failed
from training.pipeline import build as build_module
from training.pipeline.build import Build
from training.runs.run import VERDICT, Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(lenient: None, source: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder with the run and the models of a build, and its output. Do not change it."""
    folder = tmp_path_factory.mktemp("built")
    done = training(*arguments(source, folder))
    assert done.exit_code == 0, done.output
    return folder, done.stdout


def test_folder_becomes_an_evaluated_model(built: tuple[Path, str]) -> None:
    folder, output = built
    phases = [line.split(":")[0] for line in output.splitlines() if line.startswith("[")]
    assert phases == [
        "[1/7] read and audit",
        "[2/7] choose",
        "[3/7] train",
        "[4/7] evaluate",
        "[5/7] recommend",
        "[6/7] export",
        "[7/7] reload",
    ]
    assert re.search(r"coverage [01]\.\d\d \(real [01]\.\d\d\), recall .*report\.html", output)
    files = {path.name for path in (folder / "models" / "small" / "1").iterdir()}
    assert files >= {"model.onnx", "verifier.onnx", "report.html", "samples.png"}
    config = Run.open(folder / "run").config
    assert (config.kimg, config.width, config.lr_hold) == (0.256, 4, 0.5)  # ours, and the preset's


def test_finished_build_says_so(built: tuple[Path, str], source: str) -> None:
    folder, _ = built
    done = training(*arguments(source, folder))
    model = folder / "models" / "small" / "1"
    assert f"{folder / 'run'} is finished: {model}" in done.stdout
    assert [path.name for path in model.parent.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kimg": 0.5}, "was begun with kimg 0.256, not 0.5"),
        ({"attributes": "hair"}, "was begun with attributes ('hair', 'glasses')"),
    ],
)
def test_other_options_are_no_continuation(
    options: dict[str, object], said: str, built: tuple[Path, str], source: str
) -> None:
    done = training(*arguments(source, built[0], **options))
    assert done.exit_code == 1
    assert said in done.stderr
    assert "choose another --name" in done.stderr


def test_other_data_is_no_continuation(built: tuple[Path, str]) -> None:
    done = training(*arguments("avatars:400", built[0]))
    assert done.exit_code == 1
    assert "not avatars:400: choose another --name" in done.stderr


def test_too_few_images_stop_before_anything_is_written(portraits: Dataset, tmp_path: Path) -> None:
    pack(tmp_path / "few.zip", portraits, 60)
    done = training(*arguments(str(tmp_path / "few.zip"), tmp_path))
    assert done.exit_code == 1
    assert "different images are too few" in done.stderr
    assert not (tmp_path / "run").exists()


def with_best(trained: Path, folder: Path, coverage: float) -> Run:
    """Copy of a finished run whose best snapshot has this coverage."""
    shutil.copytree(trained, folder)
    run = Run.open(folder)
    best = {"shown": run.best_shown()[0], "coverage": coverage}
    lines = [line | best for line in run.scores.lines() if line["shown"] == best["shown"]]
    write_atomically(run.scores.path, json.dumps(lines[0]) + "\n")
    return run


def build_of(run: Run, models: Path) -> Build:
    """Build that continues ``run``, judged as usual."""
    return Build(
        given=run.config,
        fixed={},
        preset=None,
        folder=run.folder,
        models=models,
        minutes=1,
        server=None,
    )


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "MIN_COVERAGE", 0.1)


def test_failed_training_goes_on_if_its_best_snapshot_is_of_use(
    strict: None, trained: Path, tmp_path: Path
) -> None:
    run = with_best(trained, tmp_path / "run", coverage=0.5)
    (run.folder / VERDICT).write_text("the generator is collapsing. Try a lower --lr.")
    build_of(run, tmp_path / "models").run()
    assert (tmp_path / "models" / "small" / "1" / "model.onnx").exists()


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("the generator is collapsing. Try a lower --lr.", "Try a lower --lr"),
        ("", "no model is exported, because the best snapshot covers 1% of the held-out images"),
    ],
    ids=["failed", "finished"],
)
def test_snapshot_of_no_use_is_not_exported(
    verdict: str, said: str, strict: None, trained: Path, tmp_path: Path
) -> None:
    run = with_best(trained, tmp_path / "run", coverage=0.01)
    if verdict:
        (run.folder / VERDICT).write_text(verdict)
    with pytest.raises(Failed, match=said):
        build_of(run, tmp_path / "models").run()
    assert not (tmp_path / "models").exists()


@pytest.mark.server
def test_running_service_serves_the_model(
    built: tuple[Path, str], source: str, plain_models: Path
) -> None:
    folder, _ = built
    again = [*arguments(source, folder), "--serve"]
    # 1. A service of these models.
    with serve("--models", str(folder / "models")) as server:
        done = training(*again, server.url)
        assert done.exit_code == 0, done.output
        assert f"{server.url}/?model=small serves version 1" in done.stdout
    # 2. A service of others.
    with serve("--models", str(plain_models)) as server:
        done = training(*again, server.url)
        assert done.exit_code == 1
        assert f"start it with `--models {folder / 'models'}`" in done.stderr
    # 3. None.
    url = f"http://127.0.0.1:{free_port()}"
    done = training(*again, url)
    assert done.exit_code == 1
    assert f"warning: no service answers at {url}" in done.stdout
    assert f"no service answers at {url}" in done.stderr
