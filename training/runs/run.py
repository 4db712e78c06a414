"""Folder of a run: options, data, logs, samples, weights.

config.json             resolved options
dataset.json            vocabulary, licence, number and digest of the images
index.html              page to watch the run (training/loop/page.py)
log.jsonl               one line per tick
reals.png               64 training images
samples/000050048.png   samples of the averaged generator after that many images; fixed latents
film.png                the first samples of several snapshots
scores.jsonl            scores of each snapshot, against held-out images
real.json               the same scores of real images
snapshots/000050048.safetensors  averaged weights: the last, and the best (Run.best_shown)
features.safetensors    network whose features the scores are computed in
checkpoint.safetensors  state that `resume` needs
verdict.txt             reason why a failed run was stopped
evaluation/             results of `evaluate` (training/evaluation/command.py)
recommendation/         results of `recommend` (training/evaluation/recommendation.py)
"""

from __future__ import annotations

import datetime
import json
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from service import __version__
from service.core import latents
from service.core.atomic_write import write_atomically
from service.core.labels import Vocabulary
from service.core.manifest import NAME_PATTERN, Attribute, DatasetInfo, Manifest, Metric, Provenance
from service.errors import InvalidModel
from training.config import TrainingConfig
from training.core import distributed
from training.data import Dataset
from training.errors import RunError
from training.networks.augment import conflicts_with_labels
from training.networks.networks import Generator, halvings
from training.runs import checkpoint
from training.runs.log import Log
from training.runs.ranking import plateaued, ranked

SCORE_TITLES = {
    "frechet": "Frechet distance (0 is best)",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "labels_right": "all labels read as asked",
}
"""Scores included in a model file, and their names there."""
SHARES = ("precision", "recall", "density", "coverage")
MIN_SHARE_IMAGES = 100
"""Held-out images without which ``SHARES`` are not stated: the neighbourhoods that they count would
be too large, and a share of 100 images is uncertain by up to 10 points."""

CONFIG, VERDICT = "config.json", "verdict.txt"
RECOMMENDATION, RECOMMEND_LOG = "recommendation.json", "recommend.jsonl"


def check_unused(folder: Path) -> None:
    """Raise ``RunError`` if ``folder`` is not empty."""
    if folder.exists() and any(folder.iterdir()):
        raise RunError(
            f"{folder} is not empty; continue that run with "
            f"`figment resume {folder.resolve()}`, or name another folder with --out"
        )


def read_verdict(folder: Path) -> str:
    """Reason why the run in ``folder`` failed; empty if it did not."""
    path = folder / VERDICT
    return path.read_text() if path.exists() else ""


class DatasetDescription(BaseModel):
    """Properties of the data that a run stores: everything but images and labels."""

    model_config = ConfigDict(frozen=True)

    info: DatasetInfo
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    attributes: tuple[Attribute, ...]

    @classmethod
    def of(cls, dataset: Dataset, licence: str) -> DatasetDescription:
        height, width, channels = dataset.images.shape[1:]
        return cls(
            info=DatasetInfo(
                name=dataset.name, licence=licence, images=len(dataset), sha256=dataset.sha256
            ),
            image_shape=(height, width, channels),
            attributes=dataset.attributes,
        )

    @property
    def attribute_sizes(self) -> tuple[int, ...]:
        """Number of values of each attribute."""
        return tuple(len(attribute.values) for attribute in self.attributes)


@dataclass(frozen=True)
class Run:
    folder: Path
    config: TrainingConfig
    dataset: DatasetDescription

    @classmethod
    def plan(cls, folder: Path, config: TrainingConfig, dataset: DatasetDescription) -> Run:
        """Check options and data of a new run; writes nothing.

        Raises ``RunError`` if the data cannot be trained on with these options, or if the model
        could not be exported.
        """
        run = cls(folder, config, dataset)
        problems = conflicts_with_labels(config.augment, config.mirror, dataset.attributes)
        try:
            halvings(*dataset.image_shape[:2])
            run.manifest(shown=0)
            Vocabulary(dataset.attributes, where="dataset.json").check()
        except (ValueError, InvalidModel) as error:  # pydantic's ValidationError is one
            problems.append(str(error))
        if problems:
            raise RunError("\n".join(f"{dataset.info.name}: {problem}" for problem in problems))
        return run

    def exists(self) -> bool:
        """True if the folder holds this run already, with the same options and data."""
        try:
            return Run.open(self.folder) == self
        except RunError:
            return False

    def create(self) -> None:
        """Create the folder atomically. Raises ``RunError`` if it is not empty."""
        check_unused(self.folder)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=self.folder.parent) as name:
            new = Path(name) / "run"
            for file, part in ((CONFIG, self.config), ("dataset.json", self.dataset)):
                write_atomically(new / file, part.model_dump_json(indent=2) + "\n")
            new.replace(self.folder)  # replaces an empty folder

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read the run in ``folder``. Raises ``RunError`` if there is none or it is damaged."""
        try:
            config = TrainingConfig.model_validate_json((folder / CONFIG).read_bytes())
            dataset = DatasetDescription.model_validate_json((folder / "dataset.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(f"{folder} is not the folder of a run: {error}") from error
        return cls(folder, config, dataset)

    @classmethod
    def broadcast(cls, folder: Path, own: Run | None) -> Run:
        """Return rank 0's ``own`` run on every rank; others pass anything. Collective."""
        config, dataset = (
            distributed.broadcast_bytes(part.model_dump_json().encode() if part else b"")
            for part in ((own.config, own.dataset) if own else (None, None))
        )
        return cls(
            folder,
            TrainingConfig.model_validate_json(config),
            DatasetDescription.model_validate_json(dataset),
        )

    def manifest(self, shown: int) -> Manifest:
        """Manifest of the model exported after ``shown`` images.

        Raises ``ValidationError`` if the service would reject it.
        """
        height, width, channels = self.dataset.image_shape
        # These have fields of their own, or describe the machine rather than the model.
        excluded = {"data", "name", "attributes", "licence", "device"}
        excluded |= {"split", "table", "encoding", "unconditional", "on_bad"}
        return Manifest(
            name=self.config.name,
            kind="conditional" if self.dataset.attributes else "unconditional",
            latent_size=self.config.latent_size,
            latent_recipe=latents.RECIPE,
            height=height,
            width=width,
            channels=channels,
            attributes=self.dataset.attributes,
            metrics=self._metrics(shown),
            recommendation=self._advice(shown),
            provenance=Provenance(
                dataset=self.dataset.info,
                training={"images_shown": shown} | self.config.model_dump(exclude=excluded),
                code_version=__version__,
                date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            ),
        )

    def check_marginal(self, name: str) -> None:
        """Raise ``RunError`` if this run cannot give an unconditional model called ``name``."""
        if not self.dataset.attributes:
            raise RunError(f"{self.config.name} is unconditional already")
        if name == self.config.name and self.config.clusters is None:
            raise RunError(
                f"{name} is the conditional model; give the unconditional one another name"
            )
        if not re.fullmatch(NAME_PATTERN, name):
            raise RunError(f"{name!r} is no model name: use lower-case letters, digits and '-'")

    def marginal_manifest(self, shown: int, name: str) -> Manifest:
        """Manifest of the unconditional model ``name``, which draws the labels of this run.

        Raises ``RunError`` if there are no labels or ``name`` is invalid, and ``ValidationError``
        if the service would reject the manifest.
        """
        self.check_marginal(name)
        own = self.manifest(shown)
        report = self.report(shown, name)
        training = own.provenance.training
        if self.config.clusters is None:
            names = [attribute.name for attribute in own.attributes]
            training = training | {"labels_drawn": names}
        changes = {
            "name": name,
            "kind": "unconditional",
            "latent_size": own.latent_size + len(own.attributes),
            "attributes": (),
            "metrics": () if report is None else report["metrics"],
            "recommendation": None,
            "provenance": own.provenance.model_copy(update={"training": training}),
        }
        return Manifest.model_validate(dict(own) | changes)

    def _metrics(self, shown: int) -> tuple[Metric, ...]:
        """Metrics of the snapshot after ``shown`` images: its evaluation, else its scores."""
        if (report := self.report(shown, self.config.name)) is not None:
            return tuple(Metric.model_validate(metric) for metric in report["metrics"])
        line = next((line for line in self.scores.lines() if line["shown"] == shown), {})
        return tuple(
            Metric(
                name=title,
                value=line[name],
                samples=line["images"],
                against=f"{line['images']} images kept from training; features of a classifier of "
                + ("the images' labels" if self.dataset.attributes else "how images were turned"),
            )
            for name, title in SCORE_TITLES.items()
            if name in line and (name not in SHARES or line["images"] >= MIN_SHARE_IMAGES)
        )

    def _advice(self, shown: int) -> str | None:
        """Last advice of ``recommend``, if it is about the snapshot after ``shown`` images."""
        lines = Log(self.recommendation / RECOMMEND_LOG).lines()
        last = next((line for line in reversed(lines) if "advice" in line), {"shown": None})
        return last["advice"] if last["shown"] == shown else None

    @property
    def recommendation(self) -> Path:
        """Folder of ``recommend``, unless it writes to another."""
        return self.folder / "recommendation"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def shown(self) -> int:
        """Images shown until the checkpoint."""
        return checkpoint.shown(self.checkpoint) if self.checkpoint.exists() else 0

    @property
    def is_finished(self) -> bool:
        """True if the run has reached its length, or has ended early (``has_plateaued``)."""
        return self.shown >= round(self.config.kimg * 1000) or self.has_plateaued

    @property
    def has_plateaued(self) -> bool:
        """True if no snapshot has been better for ``patience_kimg``: the run ends there."""
        return plateaued(self.scores.lines(), self.config.patience_kimg)

    def with_length(self, kimg: float) -> Run:
        """Change the length of the run to ``kimg`` thousand images.

        A run that has ended because no snapshot was better goes on without that rule. Raises
        ``RunError`` if it has shown more.
        """
        if round(kimg * 1000) < self.shown:
            raise RunError(f"{self.folder} has shown {self.shown:,} images: --kimg must be higher")
        changes = {"kimg": kimg} | ({"patience_kimg": 0} if self.has_plateaued else {})
        longer = replace(self, config=self.config.model_copy(update=changes))
        write_atomically(self.folder / CONFIG, longer.config.model_dump_json(indent=2) + "\n")
        return longer

    @property
    def features(self) -> Path:
        return self.folder / "features.safetensors"

    def evaluation(self, name: str) -> Path:
        """Evaluation folder of model ``name``: the run's own, or an unconditional one."""
        own = name == self.config.name
        return self.folder / ("evaluation" if own else f"evaluation-{name}")

    @property
    def log(self) -> Log:
        return Log(self.folder / "log.jsonl")

    @property
    def scores(self) -> Log:
        return Log(self.folder / "scores.jsonl")

    @property
    def page(self) -> Path:
        return self.folder / "index.html"

    @property
    def film(self) -> Path:
        return self.folder / "film.png"

    @property
    def real(self) -> Path:
        return self.folder / "real.json"

    def real_scores(self) -> dict[str, float]:
        """Scores of real images; empty if snapshots are not scored."""
        return json.loads(self.real.read_bytes()) if self.real.exists() else {}

    def report(self, shown: int, name: str) -> dict[str, Any] | None:
        """Report of ``evaluate`` on model ``name`` after ``shown`` images; None if there is none.

        Raises ``RunError`` if the file is damaged.
        """
        path = self.evaluation(name) / "report.json"
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_bytes())
            for metric in found["metrics"]:
                Metric.model_validate(metric)
            found["spread"], found["privacy"]  # the headline scores are made of these
            return found if found["images_shown"] == shown else None
        except (ValueError, LookupError, TypeError) as error:
            raise RunError(f"{path} is no evaluation; run `evaluate` again: {error!r}") from error

    def sample_grid(self, shown: int) -> Path:
        return self.folder / "samples" / f"{shown:09d}.png"

    def snapshot(self, shown: int) -> Path:
        return self.folder / "snapshots" / f"{shown:09d}.safetensors"

    def load_snapshot(self, name: str) -> tuple[Generator, int]:
        """Load a snapshot's generator on the CPU; return it and its number of images shown.

        ``name`` is ``best``, ``last`` or a file name without suffix. Raises ``RunError`` if there
        is no such snapshot and ``CheckpointError`` if its file is damaged.
        """
        kept = sorted(path.stem for path in self.snapshot(0).parent.glob("*.safetensors"))
        if not kept:
            raise RunError(f"{self.folder} has no snapshot yet")
        best = self.best_shown()
        chosen = name
        if name == "last" or (name == "best" and not best):
            chosen = kept[-1]
        elif name == "best":
            chosen = self.snapshot(best[0]).stem
        if chosen not in kept:
            raise RunError(f"{self.folder} has no snapshot {name!r}; there are: {', '.join(kept)}")
        generator = Generator(
            self.config,
            condition_size=sum(self.dataset.attribute_sizes),
            image_shape=self.dataset.image_shape,
        ).eval()
        path = self.snapshot(0).with_stem(chosen)
        return generator.requires_grad_(False), checkpoint.read(path, {"ema": generator}, {})

    def best_shown(self, count: int = 1) -> list[int]:
        """Positions (images shown) of the ``count`` best snapshots, best first."""
        return ranked(self.scores.lines())[:count]
