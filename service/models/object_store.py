"""Models that lie in an object store, brought to a folder of this machine before they are loaded.

Of the store only what is served is fetched: NAME/aliases.json, NAME/VERSION/model.onnx and
verifier.onnx. Processes of one user share the folder; what has not changed is fetched once.
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
from service.errors import StartupError
from service.models import aliases

FOLDERS = (NAME_PATTERN, VERSION_PATTERN)
"""Names of folders, from the models folder down."""
SERVED = {2: (aliases.FILE,), 3: (MODEL_FILE, VERIFIER_FILE)}
"""Names of files, by the parts of their path below the models folder."""
RECORD = ".mirror.json"
"""What the store said of each file when it was fetched."""
CHUNK = 1 << 20
ALWAYS_TOLD = {"name", "size", "type"}
"""Of a file, by every store. A file may change and keep all of it."""

log = logging.getLogger(__name__)


def is_url(models: str | Path) -> bool:
    return "://" in str(models)


def local_copy(models: str | Path) -> Path:
    """The folder ``models``; of an address such as ``s3://bucket/models``, a copy of what is there.

    Files appear whole or not at all, and those that are gone from the store are removed. Raises
    ``StartupError`` where the store cannot be read or has no model, and what is served of the copy
    is then as before; or where there is no room for a copy, which has then got some of the files.
    """
    if not is_url(models):
        return Path(models)
    url = str(models).rstrip("/")
    try:
        folder = _own_folder() / hashlib.sha256(url.encode()).hexdigest()[:32]
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            log.info(
                "another process copies the models at %s: waiting for it", without_passwords(url)
            )
            held = lock.acquire()
        with held:
            _bring(url, folder)
    except StartupError:
        raise
    except Exception as error:  # of many kinds: each library for a store has its own
        told = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        # Without the cause, which may show a password.
        why = without_passwords(f"the models at {url} cannot be read: {told}", url)
        raise StartupError(why) from None
    return folder


def _bring(url: str, folder: Path) -> None:
    """Have ``folder`` hold what the store at ``url`` does."""
    import fsspec  # which whoever has a folder does without

    store, root = fsspec.core.url_to_fs(url)
    store.invalidate_cache()  # a reload is to see what has come
    there = _served(store.find(root, maxdepth=3, detail=True), root)
    if not any(path.endswith(f"/{MODEL_FILE}") for path in there):
        raise StartupError(
            f"there is no folder with models at {without_passwords(url)} (looked for "
            f"NAME/VERSION/{MODEL_FILE}); set FIGMENT_MODELS"
        )
    for left in folder.rglob(".*.tmp"):  # of copying that was killed
        left.unlink()
    record = _record(folder)
    for path, found in there.items():
        changed = found.state is None or record.get(path) != found.state
        if changed or not (folder / path).is_file():
            _fetch(store, found, folder / path)
            record[path] = found.state
            write_atomically(folder / RECORD, json.dumps(record))
    write_atomically(folder / RECORD, json.dumps({path: record[path] for path in there}))
    _remove_others(folder, {RECORD, *there})


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove all files but ``kept``, and the folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder, then the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()


class _Found(NamedTuple):
    """A file in the store."""

    name: str
    size: int | None
    """In bytes, where the store tells."""
    state: str | None
    """Changes with the content; None where the store tells nothing that does."""


def _found(name: str, info: dict[str, Any]) -> _Found:
    told = {field: value for field, value in info.items() if value is not None}
    if told.keys() <= ALWAYS_TOLD:
        return _Found(name, told.get("size"), None)
    # Sizes, times, ETags: whatever a store tells changes with the content.
    text = json.dumps(told, sort_keys=True, default=str)
    return _Found(name, told.get("size"), hashlib.sha256(text.encode()).hexdigest())


def _served(listed: dict[str, dict[str, Any]], root: str) -> dict[str, _Found]:
    """What is served of a listing, by its path below ``root``."""
    found = {}
    for name, info in listed.items():
        path = name.removeprefix(root).strip("/")
        *folders, file = path.split("/")
        # Other names are an export at work, or nothing of ours; and none leads out of the folder.
        if file in SERVED.get(len(folders) + 1, ()) and all(map(re.fullmatch, FOLDERS, folders)):
            found[path] = _found(name, info)
    return found


def _fetch(store: Any, found: _Found, path: Path) -> None:
    """Raises ``OSError`` where less or more has come than the store told of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.open(found.name, "rb") as source, replacing(path) as target:
        shutil.copyfileobj(source, target, CHUNK)
        size = getattr(source, "size", None) if found.size is None else found.size
        if size is not None and target.tell() != size:
            raise OSError(f"{found.name} has {size} bytes, of which {target.tell()} came")


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
