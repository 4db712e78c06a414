"""Models from an object store, copied to a local folder before they are loaded.

Only files that are served are copied: NAME/aliases.json, NAME/VERSION/model.onnx, verifier.onnx
and report.html. Processes of one user share the copies, which never change once they are complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from service.core.manifest import (
    MODEL_FILE,
    NAME_PATTERN,
    REPORT_FILE,
    VERIFIER_FILE,
    VERSION_PATTERN,
)
from service.core.redact import without_passwords
from service.core.text import first_line
from service.errors import StartupError
from service.models import aliases

FOLDER_PATTERNS = (NAME_PATTERN, VERSION_PATTERN)
"""Patterns of folder names, by depth below the models folder."""
SERVED_FILES = {2: (aliases.FILE,), 3: (MODEL_FILE, VERIFIER_FILE, REPORT_FILE)}
"""File names, by the number of parts of their path below the models folder."""
LISTING = ".listing.json"
"""File of a copy: the listing of the store when it was made."""
UNFINISHED = ".unfinished"
"""Folder of a copy that is being made."""
COMMON_FIELDS = {"name", "size", "type"}
"""Listing fields of every store. They may stay the same when a file changes."""

Listing = dict[str, dict[str, Any]]
"""Name, size and other fields of each file in a store, by its path."""


def is_url(models: str | Path) -> bool:
    """True for a URL of an object store, false for a folder."""
    return "://" in str(models)


def local_copy(models: str | Path) -> Path:
    """The folder ``models``; for a URL such as ``s3://bucket/models``, a local copy.

    A new copy is made if the store has changed since the last one. Two copies are kept, as another
    process may still be loading from the previous one. Raises ``StartupError`` if the store cannot
    be read or has no model, or the disk is full; the copies stay as they were.
    """
    if not is_url(models):
        return Path(models)
    url = str(models).rstrip("/")
    try:
        copies = _own_folder() / hashlib.sha256(url.encode()).hexdigest()[:32]
        copies.mkdir(exist_ok=True)
        with FileLock(copies.with_suffix(".lock")):
            return _copy(url, copies)
    except StartupError:
        raise
    except Exception as error:  # each store's library has its own exceptions
        reason = f"the models at {url} cannot be read: {first_line(error)}"
        # Without the cause, which may show a password.
        raise StartupError(without_passwords(reason, url)) from None


def _copy(url: str, copies: Path) -> Path:
    """Current copy in the folder ``copies``. Raises ``StartupError``, and errors of the store."""
    import fsspec  # an optional dependency, needed for URLs only

    store, root = fsspec.core.url_to_fs(url)
    store.invalidate_cache()  # so that a reload sees new files
    stored = _served(store.find(root, maxdepth=3, detail=True), root)
    if not any(path.endswith(f"/{MODEL_FILE}") for path in stored):
        raise StartupError(
            f"there is no folder with models at {without_passwords(url)} (looked for "
            f"NAME/VERSION/{MODEL_FILE}); set FIGMENT_MODELS"
        )
    numbers = sorted(int(path.name) for path in copies.iterdir() if path.name.isdecimal())
    *older, last = 0, *numbers
    if _is_copy(copies / str(last), stored):
        return copies / str(last)
    unfinished = copies / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        for path, info in stored.items():
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(info["name"], str(target))
            received = target.stat().st_size
            if info.get("size") not in (None, received):
                raise OSError(f"{path} has {info['size']} bytes, but {received} were received")
        (unfinished / LISTING).write_text(_as_json(stored))
        copy = unfinished.rename(copies / str(last + 1))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for number in older:
        shutil.rmtree(copies / str(number), ignore_errors=True)
    return copy


def _is_copy(folder: Path, stored: Listing) -> bool:
    """True if ``folder`` is complete, and the store shows that nothing has changed since."""
    try:
        return (folder / LISTING).read_text() == _as_json(stored) and all(
            # A cleaner of temporary files may have removed some.
            (folder / path).stat().st_size == info.get("size")
            and any(info[field] is not None for field in info.keys() - COMMON_FIELDS)
            for path, info in stored.items()
        )
    except OSError:
        return False


def _as_json(stored: Listing) -> str:
    return json.dumps(stored, sort_keys=True, default=str)


def _served(listed: Listing, root: str) -> Listing:
    """Files of a listing that are served, by their path below ``root``."""
    found = {}
    for name, info in listed.items():
        path = name.removeprefix(root).strip("/")
        *folders, file = path.split("/")
        # Skips unfinished exports and foreign files, and paths that lead out of the folder.
        served = file in SERVED_FILES.get(len(folders) + 1, ())
        if served and all(map(re.fullmatch, FOLDER_PATTERNS, folders)):
            found[path] = {**info, "name": name}
    return found


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
