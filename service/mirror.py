"""Models that lie in an object store, brought to a folder of this machine before they are loaded.

Of the store only what is served is fetched: NAME/aliases.json, NAME/VERSION/model.onnx and
verifier.onnx. Processes of one user share the folder; what has not changed is fetched once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from service import aliases
from service.errors import StartupError
from service.files import replacing, write_atomically
from service.manifest import MODEL_FILE, VERIFIER_FILE

SERVED = {2: (aliases.FILE,), 3: (MODEL_FILE, VERIFIER_FILE)}
"""Names of files, by the parts of their path below the models folder."""
RECORD = ".mirror.json"
"""What the store said of each file when it was fetched."""
CHUNK = 1 << 20


def is_url(models: str | Path) -> bool:
    return "://" in str(models)


def local_copy(models: str | Path) -> Path:
    """The folder ``models``; of an address such as ``s3://bucket/models``, a copy of what is there.

    Files appear whole or not at all, and those that are gone from the store are removed. Raises
    ``StartupError`` where the store cannot be read or has no model; the copy is then as before.
    """
    if not is_url(models):
        return Path(models)
    url = str(models).rstrip("/")
    folder = _own_folder() / hashlib.sha256(url.encode()).hexdigest()[:32]
    folder.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        _Mirror(url, folder).bring()
    return folder


class _Mirror:
    """One look at the store. Its errors are of many kinds: each library has its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder

    def bring(self) -> None:
        import fsspec  # which whoever has a folder does without

        try:
            store, root = fsspec.core.url_to_fs(self._url)
            store.invalidate_cache()  # a reload is to see what has come
            there = _served(store.find(root, maxdepth=3, detail=True), root)
        except ImportError as error:  # it says which: "Install s3fs to access S3"
            raise StartupError(f"the models at {self._url} cannot be read: {error}") from error
        except Exception as error:
            raise self._trouble(error) from error
        if not any(path.endswith(f"/{MODEL_FILE}") for path in there):
            raise StartupError(
                f"there is no folder with models at {self._url} (looked for "
                f"NAME/VERSION/{MODEL_FILE}); set FIGMENT_MODELS"
            )
        record = self._record()
        for path, found in there.items():
            if record.get(path) != found.state or not (self._folder / path).is_file():
                try:
                    self._fetch(store, found.name, self._folder / path)
                except Exception as error:
                    raise self._trouble(error) from error
                record[path] = found.state
                write_atomically(self._folder / RECORD, json.dumps(record))
        for path in record.keys() - there.keys():
            (self._folder / path).unlink(missing_ok=True)
        _remove_empty(self._folder)
        kept = {path: state for path, state in record.items() if path in there}
        write_atomically(self._folder / RECORD, json.dumps(kept))

    def _record(self) -> dict[str, str]:
        try:
            record: dict[str, str] = json.loads((self._folder / RECORD).read_text())
        except (OSError, ValueError):
            return {}
        return record

    def _fetch(self, store: Any, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.open(name, "rb") as source, replacing(path) as target:
            shutil.copyfileobj(source, target, CHUNK)

    def _trouble(self, error: Exception) -> StartupError:
        told = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        return StartupError(f"the models at {self._url} cannot be read: {told}")


class _Found:
    """A file in the store."""

    def __init__(self, name: str, info: dict[str, Any]) -> None:
        self.name = name
        # Sizes, times, ETags: whatever a store tells changes with the content.
        told = json.dumps(info, sort_keys=True, default=str)
        self.state = hashlib.sha256(told.encode()).hexdigest()


def _served(listed: dict[str, dict[str, Any]], root: str) -> dict[str, _Found]:
    """What is served of a listing, by its path below ``root``."""
    found = {}
    for name, info in listed.items():
        path = name.removeprefix(root).strip("/")
        parts = path.split("/")
        # Names that begin with a dot are an export at work; and none leads out of the folder.
        if parts[-1] in SERVED.get(len(parts), ()) and not any(p.startswith(".") for p in parts):
            found[path] = _Found(name, info)
    return found


def _own_folder() -> Path:
    """For the copies of this user. Raises ``StartupError`` where it belongs to somebody else."""
    folder = Path(tempfile.gettempdir()) / f"figment-models-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StartupError(f"there is no room for a copy of the models: {error}") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not folder.is_dir():
        raise StartupError(f"others may write to {folder}: remove it, or set TMPDIR")
    return folder


def _remove_empty(folder: Path) -> None:
    for path in (*folder.glob("*/*/"), *folder.glob("*/")):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
