"""Layout of a dataset on disk: plan, manifest and file names.

``fetch`` and ``make-dataset`` write the same layout, so a reader of one reads the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from service import __version__
from service.core.image_request import ImageRequest
from service.core.manifest import NAME_PATTERN, DatasetInfo
from service.errors import DatasetError
from service.formats.registry import SUFFIXES

if TYPE_CHECKING:
    from service.datasets.storage import Storage

MANIFEST = "manifest.json"
LOCK = ".lock"
MIN_FILES = 8
"""Default number of files, if there are enough images: data loaders split files among workers."""
MAX_IMAGES_PER_FILE = 10_000
"""Upper limit of the default; a plan may set more."""

Command = Literal["fetch", "make-dataset"]


@dataclass(frozen=True)
class DatasetPlan:
    """Images of a dataset, and the format and size of its files."""

    request: ImageRequest
    format: str
    images_per_file: int | None = None
    """If None, small enough for ``MIN_FILES`` files."""

    @property
    def per_file(self) -> int:
        """Images in each file but the last."""
        default = min(max(self.request.count // MIN_FILES, 1), MAX_IMAGES_PER_FILE)
        return self.images_per_file or default

    def fields(self) -> dict[str, Any]:
        """Field ``asked`` of the manifest."""
        request = self.request.model_dump(include={*ImageRequest.model_fields})
        return request | {"format": self.format, "images_per_file": self.per_file}

    def differences(self, asked: Mapping[str, Any]) -> list[str]:
        """Names of the fields that differ from a manifest's ``asked``."""
        return [name for name, value in self.fields().items() if asked.get(name) != value]

    def file_names(self, model: str, number: int) -> list[str]:
        """Name of file ``number``, from 0; for ``npy`` also that of its table of labels."""
        name = stem(model, number)
        tables = [f"{name}.csv"] if self.format == "npy" else []
        return [f"{name}{SUFFIXES[self.format]}", *tables]


@dataclass(frozen=True)
class ModelIdentity:
    """Model, version, hashes and seed of a set. Raises ``ValueError`` for an invalid name."""

    model: str
    version: int
    model_sha256: str
    verifier_sha256: str | None
    """None if images are not verified."""
    latent_recipe: int
    seed: int

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.model):
            raise ValueError(f"{self.model!r} is no name of a model")

    def differences(self, other: ModelIdentity) -> list[str]:
        """One phrase for each field in which ``other``, the newer one, differs."""
        before, now = asdict(self), asdict(other)
        return [f"{n} is {now[n]}, and was {before[n]}" for n in now if now[n] != before[n]]


class DatasetFile(BaseModel):
    name: str
    images: int
    """0 for the table beside an array."""
    labels: list[int] = []
    """Images of each label, in the order of the manifest's ``labels``."""
    split: str | None = None
    bytes: int
    sha256: str


class LabelCount(BaseModel):
    """Images of one label, or of a dataset whose labels are all drawn."""

    label: Any
    images: int
    tried: int
    """Includes the images that were skipped."""


class DatasetManifest(BaseModel):
    """Content of ``manifest.json``."""

    layout: Literal[1] = 1
    made_by: Command = "fetch"
    """Command that can resume the dataset."""
    asked: dict[str, Any]
    """The plan: fields of the request, format and images per file."""
    origin: ModelIdentity
    software: list[str]
    """Software that computed the images; several if it changed between runs."""
    packed_by: list[str]
    """Software that wrote the files; several if it changed between runs."""
    attributes: dict[str, list[str]]
    """Values of each attribute, in the order of the model's manifest: the order of their ids."""
    training_data: DatasetInfo
    """Images that the model was trained on."""
    complete: bool = False
    images: int = 0
    labels: list[LabelCount]
    next: int
    """Index after the last image."""
    files: list[DatasetFile] = []

    def to_json(self) -> bytes:
        return f"{self.model_dump_json(indent=1)}\n".encode()


def load(storage: Storage, plan: DatasetPlan, made_by: Command) -> DatasetManifest | None:
    """Manifest of an earlier run of the same command and plan; None if ``storage`` is empty.

    Raises ``DatasetError`` for another dataset, or for files without a manifest.
    """
    content = storage.manifest()
    if content is None:
        if others := storage.names():
            raise DatasetError(
                f"{storage} has no {MANIFEST}, but other files ({others[0]}): choose an empty "
                "folder, or a new one"
            )
        return None
    try:
        manifest = DatasetManifest.model_validate_json(content)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise DatasetError(f"{storage}/{MANIFEST} is not a manifest of a set: {why}") from None
    if manifest.made_by != made_by:
        raise DatasetError(f"{storage} holds a set of {manifest.made_by}: choose another folder")
    if differences := plan.differences(manifest.asked):
        raise DatasetError(
            f"{storage} holds another set (it differs in {', '.join(differences)}): choose "
            "another folder"
        )
    return manifest


def stem(model: str, number: int) -> str:
    """File name without its suffix."""
    return f"{model}-{number:05d}"


def describe_file(path: Path, images: int, labels: list[int]) -> DatasetFile:
    """Manifest entry of an existing file. Raises ``OSError``."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return DatasetFile(name=path.name, images=images, labels=labels, bytes=size, sha256=sha256)


def temporary_files(model: str) -> tuple[str, ...]:
    """Glob patterns of the temporary files that a killed process leaves."""
    return f".{MANIFEST}.*.tmp", f".{model}-[0-9]*.*.tmp"


def packing_software() -> str:
    """Software that writes files here, with its versions."""
    return f"figment {__version__}, pyarrow {metadata.version('pyarrow')}"
