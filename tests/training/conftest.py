"""Data and runs that tests of training share; drawing and training them takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.core.manifest import Attribute
from tests.helpers.image_files import as_zip, encoded
from tests.helpers.once import made_once
from tests.helpers.small_runs import create_run, training
from training.data import Dataset, avatars, load
from training.evaluation import features
from training.loop.loop import train

PORTRAITS = 600
LABELS = ("hair", "glasses")


@contextmanager
def short_evaluation() -> Iterator[None]:
    """Draw 500 samples instead of 20,000 for attacks, and train classifiers of few images less."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.evaluation.command.SAMPLES", 500)
        for schedule in (features.QUICK, features.THOROUGH):  # frozen, and a default argument
            patched.setitem(vars(schedule), "min_images", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _evaluations_are_short() -> Iterator[None]:
    with short_evaluation():
        yield


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """600 avatars of 16x16 with all labels. Do not change them."""

    def draw(path: Path) -> None:
        drawn = avatars.draw(PORTRAITS)
        np.savez(path, images=drawn.images[:, ::4, ::4], labels=drawn.labels)

    with np.load(made_once(tmp_path_factory, "portraits.npz", draw)) as drawn:
        images, labels = drawn["images"], drawn["labels"]
    attributes = tuple(
        Attribute(
            name=name,
            values=values,
            frequencies=tuple(np.bincount(column, minlength=len(values)) / len(column)),
        )
        for (name, values), column in zip(avatars.VALUES.items(), labels.T, strict=True)
    )
    return Dataset("avatars", images, labels, attributes)


@pytest.fixture(scope="session")
def source(portraits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Zip of 400 of the portraits with all of their labels."""
    return str(made_once(tmp_path_factory, "faces.zip", lambda path: pack(path, portraits, 400)))


def pack(path: Path, faces: Dataset, count: int) -> None:
    """Write the first ``count`` of ``faces`` and their labels as a zip."""
    files, rows = {}, [",".join(["file_name", *(each.name for each in faces.attributes)])]
    for i in range(count):
        files[f"{i}.png"] = encoded(Image.fromarray(faces.images[i]))
        labels = zip(faces.attributes, faces.labels[i], strict=True)
        rows.append(",".join([f"{i}.png", *(each.values[value] for each, value in labels)]))
    as_zip(path.parent, files | {"metadata.csv": "\n".join(rows).encode()}, path.name)


@pytest.fixture(scope="session")
def trained(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run on ``source`` with hair and glasses and six snapshots of different scores."""

    def make(folder: Path) -> None:
        faces = load(source, LABELS)
        options = {"data": source, "attributes": LABELS, "kimg": 0.384, "lr": 0.01}
        train(create_run(folder, faces, **options), faces, stop_on_failure=False)

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture(scope="session")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of ``trained`` whose last snapshot has been measured."""

    def make(folder: Path) -> None:
        shutil.copytree(trained, folder)
        with short_evaluation():  # other tests share the fixture
            done = training("evaluate", folder, "--snapshot", "last")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.strip() == str(folder / "evaluation" / "report.md")

    return made_once(tmp_path_factory, "evaluated", make)
