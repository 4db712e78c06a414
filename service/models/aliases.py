"""Aliases of versions: ``models/NAME/aliases.json``, written by hand or by command.

    {"stable": 2, "default": [1, 2]}

A value is a version, or a list whose last entry is in effect; earlier entries are its history.
The alias ``default`` is for requests without a version.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from service.core.atomic_write import write_atomically
from service.core.manifest import ALIAS_PATTERN, MODEL_FILE, NAME_PATTERN
from service.errors import InvalidAlias

FILE = "aliases.json"
LATEST = "latest"
"""Always the highest version."""
DEFAULT = "default"
RESERVED = (LATEST, "labels")
"""Aliases that cannot be set; ``/models/NAME/labels`` is an address."""
MAX_BYTES = 65536
MAX_HISTORY = 20
"""Versions kept per alias."""

History = dict[str, list[int]]
"""Alias to its versions; the last is in effect."""

_Number = Annotated[int, Field(ge=1, le=999_999_999)]
_FILE = TypeAdapter(
    dict[
        Annotated[str, Field(pattern=ALIAS_PATTERN)],
        _Number | Annotated[list[_Number], Field(min_length=1, max_length=1000)],
    ]
)


def read(folder: Path) -> History:
    """Aliases of the model in ``folder``; none without a file. Raises ``InvalidAlias``."""
    path = folder / FILE
    try:
        if not path.exists():
            return {}
        if not path.is_file():
            raise InvalidAlias("is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidAlias(f"cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise InvalidAlias(f"is larger than {MAX_BYTES} bytes")
    try:
        found = _FILE.validate_json(content, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in fault["loc"][:1])
        raise InvalidAlias(
            f"{where}{fault['msg']}; map aliases to versions or lists of them, "
            'such as {"stable": 2, "default": [1, 2]}'
        ) from error
    for alias in RESERVED:
        if alias in found:
            raise InvalidAlias(f"{alias!r} cannot be set")
    return {alias: [at] if isinstance(at, int) else at for alias, at in found.items()}


def set_alias(models: Path, name: str, alias: str, version: int) -> None:
    """Set ``alias`` to ``version`` and keep its history. Raises ``InvalidAlias``.

    ``models`` is the folder of all models.
    """
    if not re.fullmatch(ALIAS_PATTERN, alias) or alias in RESERVED:
        raise InvalidAlias(
            f"{alias!r} is not an alias that can be set: a lower-case letter, then letters, digits "
            f"and '-', and not {' or '.join(map(repr, RESERVED))}"
        )
    folder = _folder(models, name)
    if not (folder / str(version) / MODEL_FILE).is_file():
        raise InvalidAlias(f"there is no {folder / str(version) / MODEL_FILE}")
    history = read(folder)
    before = history.get(alias, [])
    if before[-1:] != [version]:
        history[alias] = [*before, version][-MAX_HISTORY:]
        _write(folder, history)


def roll_back(models: Path, name: str, alias: str) -> int:
    """Set ``alias`` to its previous version, and return that. Raises ``InvalidAlias``."""
    folder = _folder(models, name)
    history = read(folder)
    if len(history.get(alias, [])) < 2:
        raise InvalidAlias(f"{alias!r} has no previous version in {folder / FILE}")
    history[alias].pop()
    _write(folder, history)
    return history[alias][-1]


def _folder(models: Path, name: str) -> Path:
    """Folder of a model. Rejects invalid names, so that no request can form a path."""
    if not re.fullmatch(NAME_PATTERN, name) or not (models / name).is_dir():
        raise InvalidAlias(f"there is no model {name!r} in {models}")
    return models / name


def _write(folder: Path, history: History) -> None:
    shown = {alias: at[0] if len(at) == 1 else at for alias, at in history.items()}
    write_atomically(folder / FILE, json.dumps(shown) + "\n")
