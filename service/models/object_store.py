"""Models from an object store, copied to a local folder before they are loaded.

Only files that are served are copied: NAME/aliases.json, NAME/VERSION/model.onnx and
verifier.onnx. Processes of one user share the folder, and unchanged files are copied once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from service.core.atomic_write import replacing, write_atomically
from service.core.manifest import MODEL_FILE, NAME_PATTERN, VERIFIER_FILE, VERSION_PATTERN
from service.core.redact import without_passwords
from service.core.text import first_line
from service.errors import StartupError
from service.models import aliases

FOLDER_PATTERNS = (NAME_PATTERN, VERSION_PATTERN)
"""Patterns of folder names, by depth below the models folder."""
SERVED_FILES = {2: (aliases.FILE,), 3: (MODEL_FILE, VERIFIER_FILE)}
"""File names, by the number of parts of their path below the models folder."""
RECORD = ".mirror.json"
"""File with the state of each copied file. Not a served name."""
CHUNK_BYTES = 1 << 20
COMMON_FIELDS = {"name", "size", "type"}
"""Listing fields of every store. They may stay the same when a file changes."""

log = logging.getLogger(__name__)


def is_url(models: str | Path) -> bool:
    """True for a URL of an object store, false for a folder."""
    return "://" in str(models)


def local_copy(models: str | Path) -> Path:
    """The folder ``models``; for a URL such as ``s3://bucket/models``, an updated local copy.

    Each file is replaced atomically, and files removed from the store are removed from the copy.
    Raises ``StartupError`` if the store cannot be read or has no model, which leaves the copy of
    served files as it was; or if the disk is full, which leaves it partly updated.
    """
    if not is_url(models):
        return Path(models)
    url = str(models).rstrip("/")
    try:
        folder = _own_folder() / hashlib.sha256(url.encode()).hexdigest()[:32]
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            locked = lock.acquire(timeout=0)
        except Timeout:
            log.info(
                "waiting for another process, which copies the models at %s", without_passwords(url)
            )
            locked = lock.acquire()
        with locked:
            _copy(url, folder)
    except StartupError:
        raise
    except Exception as error:  # each store's library has its own exceptions
        reason = f"the models at {url} cannot be read: {first_line(error)}"
        # Without the cause, which may show a password.
        raise StartupError(without_passwords(reason, url)) from None
    return folder


def _copy(url: str, folder: Path) -> None:
    """Update ``folder`` from the store. Raises ``StartupError``, and errors of the store."""
    import fsspec  # an optional dependency, needed for URLs only

    store, root = fsspec.core.url_to_fs(url)
    store.invalidate_cache()  # so that a reload sees new files
    stored = _served(store.find(root, maxdepth=3, detail=True), root)
    if not any(path.endswith(f"/{MODEL_FILE}") for path in stored):
        raise StartupError(
            f"there is no folder with models at {without_passwords(url)} (looked for "
            f"NAME/VERSION/{MODEL_FILE}); set FIGMENT_MODELS"
        )
    for leftover in folder.rglob(".*.tmp"):  # of a process killed while it copied
        leftover.unlink()
    record = _record(folder)
    for path, file in stored.items():
        changed = file.state is None or record.get(path) != file.state
        if changed or not (folder / path).is_file():
            _fetch(store, file, folder / path)
            record[path] = file.state
            write_atomically(folder / RECORD, json.dumps(record))
    write_atomically(folder / RECORD, json.dumps({path: record[path] for path in stored}))
    _remove_others(folder, {RECORD, *stored})


def _record(folder: Path) -> dict[str, Any]:
    """Path to state of the copied files; empty if the record is missing or invalid."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove all files except ``kept``, and empty folders."""
    for path in sorted(folder.rglob("*"), reverse=True):  # contents before their folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()


class _StoredFile(NamedTuple):
    """File in the store."""

    name: str
    size: int | None
    """Bytes; None if the store does not list sizes."""
    state: str | None
    """Hash of times, ETags and other listed fields; None if the store lists none of them."""


def _stored_file(name: str, info: dict[str, Any]) -> _StoredFile:
    """File of a listing, with its state."""
    fields = {field: value for field, value in info.items() if value is not None}
    if fields.keys() <= COMMON_FIELDS:
        return _StoredFile(name, fields.get("size"), None)
    text = json.dumps(fields, sort_keys=True, default=str)
    return _StoredFile(name, fields.get("size"), hashlib.sha256(text.encode()).hexdigest())


def _served(listed: dict[str, dict[str, Any]], root: str) -> dict[str, _StoredFile]:
    """Files of a listing that are served, by their path below ``root``."""
    found = {}
    for name, info in listed.items():
        path = name.removeprefix(root).strip("/")
        *folders, file = path.split("/")
        # Skips unfinished exports and foreign files, and paths that lead out of the folder.
        served = file in SERVED_FILES.get(len(folders) + 1, ())
        if served and all(map(re.fullmatch, FOLDER_PATTERNS, folders)):
            found[path] = _stored_file(name, info)
    return found


def _fetch(store: Any, file: _StoredFile, path: Path) -> None:
    """Copy one file to ``path``, atomically. Raises ``OSError`` if its size is not as listed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.open(file.name, "rb") as source, replacing(path) as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)
        size = getattr(source, "size", None) if file.size is None else file.size
        if size is not None and target.tell() != size:
            raise OSError(f"{file.name} has {size} bytes, but {target.tell()} were received")


def _own_folder() -> Path:
    """Folder for copies of this user. Raises ``StartupError`` if others may write to it."""
    folder = Path(tempfile.gettempdir()) / f"figment-models-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StartupError(f"the folder for copies of models cannot be made: {error}") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not folder.is_dir():
        raise StartupError(f"others may write to {folder}: remove it, or set TMPDIR")
    return folder
