"""A run's folder, which describes itself: what was asked, on what data, what happened.

config.json             the resolved options
dataset.json            vocabulary, licence, number and digest of the images
log.jsonl               one line a tick
reals.png               64 training images
samples/000050.png      the average generator after 50 kimg, from latents that never change
checkpoint.safetensors  everything that `resume` needs
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from service import __version__, latents
from service.manifest import Attribute, DatasetInfo, Manifest, Provenance
from training.config import TrainingConfig
from training.data import Dataset
from training.errors import RunError
from training.files import write_atomically
from training.networks import halvings


def check_unused(folder: Path) -> None:
    """Raise ``RunError`` where a run has begun in ``folder`` already."""
    if folder.exists() and any(folder.iterdir()):
        raise RunError(
            f"{folder} is not empty; continue that run with "
            f"`python -m training resume {folder}`, or name another folder with --out"
        )


class DatasetDescription(BaseModel):
    """What a run remembers of its data once the images are gone."""

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
        return tuple(len(attribute.values) for attribute in self.attributes)


@dataclass(frozen=True)
class Run:
    folder: Path
    config: TrainingConfig
    dataset: DatasetDescription

    @classmethod
    def create(cls, folder: Path, config: TrainingConfig, dataset: DatasetDescription) -> Run:
        """Lay out a new run.

        Raises ``RunError`` where the folder is in use, or such data could not be trained on or
        its model not be exported in the end.
        """
        check_unused(folder)
        run = cls(folder, config, dataset)
        try:
            halvings(*dataset.image_shape[:2])
            run.manifest(shown=0)
        except ValueError as error:  # pydantic's ValidationError is one
            raise RunError(f"{dataset.info.name}: {error}") from error
        write_atomically(folder / "config.json", config.model_dump_json(indent=2) + "\n")
        write_atomically(folder / "dataset.json", dataset.model_dump_json(indent=2) + "\n")
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read an existing run. Raises ``RunError``."""
        try:
            config = TrainingConfig.model_validate_json((folder / "config.json").read_bytes())
            dataset = DatasetDescription.model_validate_json((folder / "dataset.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(f"{folder} is not the folder of a run: {error}") from error
        return cls(folder, config, dataset)

    def manifest(self, shown: int) -> Manifest:
        """What the model file says of itself, exported after ``shown`` images.

        Raises ``ValidationError`` where the service would refuse it.
        """
        height, width, channels = self.dataset.image_shape
        # The manifest says some of it elsewhere; where the data lay says nothing about the model.
        elsewhere = {"data", "name", "attributes", "licence", "device"}
        return Manifest(
            name=self.config.name,
            kind="conditional" if self.dataset.attributes else "unconditional",
            latent_size=self.config.latent_size,
            latent_recipe=latents.RECIPE,
            height=height,
            width=width,
            channels=channels,
            attributes=self.dataset.attributes,
            provenance=Provenance(
                dataset=self.dataset.info,
                training={"images_shown": shown} | self.config.model_dump(exclude=elsewhere),
                code_version=__version__,
                date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            ),
        )

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def sample_grid(self, shown: int) -> Path:
        return self.folder / "samples" / f"{shown // 1000:06d}.png"

    def append_to_log(self, line: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rewind_log(self, shown: int) -> None:
        """Drop the lines after ``shown`` images, and one that a kill cut short."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["shown"] <= shown:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                break
        write_atomically(self.log, "".join(kept))
