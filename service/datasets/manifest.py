"""What a set holds: the plan it follows, and the manifest that lies beside its files.

``fetch`` and ``make-dataset`` leave the same layout, so whoever reads one reads the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from service import __version__
from service.datasets.request import ImageRequest, ModelIdentity

MANIFEST = "manifest.json"
LOCK = ".lock"
MIN_FILES = 8
"""Where there are images enough: loaders share out files among their workers."""
MAX_IMAGES_PER_FILE = 10_000
"""Images."""


@dataclass(frozen=True)
class DatasetPlan:
    """What is wanted, and into what files."""

    order: ImageRequest
    format: str
    images_per_file: int | None = None
    """Left out, few enough to make ``MIN_FILES``."""

    @property
    def per_file(self) -> int:
        few_enough = max(sum(self.order.counts) // MIN_FILES, 1)
        return self.images_per_file or min(few_enough, MAX_IMAGES_PER_FILE)

    def asked(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self.order) | {"format": self.format, "images_per_file": self.per_file}

    def differs(self, asked: Mapping[str, Any]) -> list[str]:
        """In what a manifest's ``asked`` is not of this plan."""
        return [name for name, value in self.asked().items() if asked.get(name) != value]


class DatasetFile(BaseModel):
    name: str
    images: int
    """0 for a table beside an array."""
    labels: list[int] = []
    """Images of each label, in the order of the manifest's ``labels``."""
    bytes: int
    sha256: str


class LabelCount(BaseModel):
    """Of one label, or of images whose labels are all drawn."""

    label: Any
    images: int
    tried: int
    """Those that were left out among them."""


class DatasetManifest(BaseModel):
    """What a folder holds."""

    layout: Literal[1] = 1
    made_by: Literal["fetch", "make-dataset"] = "fetch"
    """The command that goes on with it."""
    asked: dict[str, Any]
    origin: ModelIdentity
    software: list[str]
    """What made the images: more than one where it was exchanged on the way."""
    packed_by: list[str]
    """What made the files of them."""
    attributes: list[str]
    complete: bool = False
    images: int = 0
    labels: list[LabelCount]
    next: int
    """The index behind the last image."""
    files: list[DatasetFile] = []


def stem(model: str, number: int) -> str:
    """What a file is called, but for its suffix."""
    return f"{model}-{number:05d}"


def described(path: Path, images: int, labels: list[int]) -> DatasetFile:
    """A file that is there. Raises ``OSError``."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return DatasetFile(name=path.name, images=images, labels=labels, bytes=size, sha256=sha256)


def left_overs(model: str) -> tuple[str, ...]:
    """Patterns of files that were not put in their place before a kill."""
    return f".{MANIFEST}.*.tmp", f".{model}-[0-9]*.*.tmp"


def packing() -> str:
    """What makes files of images here."""
    return f"figment {__version__}, pyarrow {metadata.version('pyarrow')}"
