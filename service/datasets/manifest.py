"""Layout of a dataset on disk: plan, manifest and file names.

``fetch`` and ``make-dataset`` write the same layout, so a reader of one reads the other.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from service import __version__
from service.core.manifest import NAME_PATTERN, DatasetInfo
from service.core.set_request import SetRequest
from service.errors import DatasetError
from service.formats.layout import Layout, Values
from service.formats.registry import FOLDER, SUFFIXES, check_fields, layout_of

if TYPE_CHECKING:
    from service.datasets.storage import Storage

MANIFEST = "manifest.json"
LOCK = ".lock"
WHOLE = "train"
"""Split of a set without splits, as Hugging Face and timm call it."""
MIN_FILES = 8
"""Default number of files, if there are enough images: data loaders split files among workers."""
MAX_IMAGES_PER_FILE = 10_000
"""Upper limit of the default; a plan may set more."""
MIN_IMAGES_IN_SPLIT = 20
"""Images of the smallest split in a file, on average: so many that none is empty by chance."""

Command = Literal["fetch", "make-dataset"]


@dataclass(frozen=True)
class DatasetPlan:
    """Images of a dataset, and the format and size of its files.

    Raises ``InvalidRequest`` for a field that means nothing in the format.
    """

    request: SetRequest
    format: str
    images_per_file: int | None = None
    """If None, small enough for ``MIN_FILES`` files."""

    def __post_init__(self) -> None:
        check_fields(self.request, self.format)

    @property
    def per_file(self) -> int:
        """Images in each file but the last; with splits, in the files of all splits together."""
        least = max(
            MIN_IMAGES_IN_SPLIT / min(self.request.splits.values()) if self.request.splits else 1, 1
        )
        default = min(max(self.request.count // MIN_FILES, math.ceil(least)), MAX_IMAGES_PER_FILE)
        return self.images_per_file or default

    def layout(self, values: Values) -> Layout:
        """Layout for a model whose attributes have these values. Raises ``InvalidRequest``."""
        return layout_of(self.request, self.format, values)

    def fields(self) -> dict[str, Any]:
        """Field ``asked`` of the manifest."""
        request = self.request.model_dump(include={*SetRequest.model_fields})
        return request | {"format": self.format, "images_per_file": self.per_file}

    def differences(self, asked: Mapping[str, Any]) -> list[str]:
        """Names of the fields that differ from a manifest's ``asked``."""
        return [name for name, value in self.fields().items() if asked.get(name) != value]

    def file_names(self, model: str, number: int) -> list[str]:
        """Names of file ``number``, from 0: one for each split, for ``npy`` also its table.

        For ``folder`` those of the tables, which name the images.
        """
        suffixes = [FOLDER.suffix if self.format == FOLDER.name else SUFFIXES[self.format]]
        if self.format == "npy":
            suffixes.append(".csv")
        splits = [f"{model}-{split}" for split in self.request.splits or ()] or [model]
        return [f"{stem(name, number)}{suffix}" for name in splits for suffix in suffixes]


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

    def files_by_split(self) -> dict[str, list[DatasetFile]]:
        """Files with images: loaders take an empty one, or an empty split, for broken."""
        splits: dict[str, list[DatasetFile]] = {}
        for file in self.files:
            if file.images:
                splits.setdefault(file.split or WHOLE, []).append(file)
        return splits

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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_files(model: str) -> tuple[str, ...]:
    """Glob patterns of the temporary files that a killed process leaves."""
    return f".{MANIFEST}.*.tmp", f".{model}-*.tmp", "._*.tmp"


def packing_software() -> str:
    """Software that writes files here, with its versions."""
    return f"figment {__version__}, pyarrow {metadata.version('pyarrow')}"
