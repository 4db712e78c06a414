"""Indexes beside the shards of a WebDataset set, which timm and wids read before the shards."""

from __future__ import annotations

import json
from typing import Any

from service.datasets.manifest import DatasetFile, DatasetManifest
from service.datasets.storage import Storage

TIMM = "_info.json"
"""https://github.com/huggingface/pytorch-image-models, ``timm/data/readers/reader_wds.py``."""


def write_indexes(storage: Storage, manifest: DatasetManifest) -> None:
    """Write the indexes of a complete set; none for other formats. Raises ``DatasetError``."""
    if manifest.asked["format"] != "webdataset":
        return
    splits = manifest.files_by_split()
    _write(storage, TIMM, {"splits": {name: _timm(name, files) for name, files in splits.items()}})
    for name, files in splits.items():
        _write(storage, f"_wids-{name}.json", _wids(name, files))


def _timm(name: str, files: list[DatasetFile]) -> dict[str, Any]:
    return {
        "name": name,
        "num_samples": sum(file.images for file in files),
        "filenames": [file.name for file in files],
        "shard_lengths": [file.images for file in files],
    }


def _wids(name: str, files: list[DatasetFile]) -> dict[str, Any]:
    return {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": name,
        "shardlist": [
            {"url": file.name, "nsamples": file.images, "filesize": file.bytes} for file in files
        ],
    }


def _write(storage: Storage, name: str, content: dict[str, Any]) -> None:
    with storage.writing(name) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())
