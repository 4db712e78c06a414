"""A folder with a complete set as a dataset repository: README.md, croissant.json, indexes."""

from __future__ import annotations

from service.datasets.card import card_of
from service.datasets.croissant import croissant_of
from service.datasets.indexes import write_indexes
from service.datasets.manifest import DatasetManifest
from service.datasets.storage import Storage

CARD, CROISSANT = "README.md", "croissant.json"


def write_descriptions(storage: Storage, manifest: DatasetManifest) -> None:
    """Describe a complete set for people and programs. Raises ``DatasetError``."""
    for name, text in ((CARD, card_of(manifest)), (CROISSANT, croissant_of(manifest))):
        with storage.writing(name) as file:
            file.write(text.encode())
    write_indexes(storage, manifest)
