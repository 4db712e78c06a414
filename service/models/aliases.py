"""Names for versions: ``models/NAME/aliases.json``, small and written by hand or by command.

    {"stable": 2, "default": [1, 2]}

A number, or a list: its last entry is in effect, the earlier ones are what it was before. The alias
``default`` is what requests get that name no version.
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
"""The highest version, always."""
DEFAULT = "default"
RESERVED = (LATEST, "labels")
"""The second is an address below a model's."""
MOST_BYTES = 65536
HISTORY = 20
"""Entries that are kept of a list."""

History = dict[str, list[int]]
"""Of each alias, its versions: the last is in effect."""

_Number = Annotated[int, Field(ge=1, le=999_999_999)]
_FILE = TypeAdapter(
    dict[
        Annotated[str, Field(pattern=ALIAS_PATTERN)],
        _Number | Annotated[list[_Number], Field(min_length=1, max_length=1000)],
    ]
)


def read(folder: Path) -> History:
    """The aliases of the model in ``folder``; none without a file. Raises ``InvalidAlias``."""
    path = folder / FILE
    try:
        if not path.exists():
            return {}
        if not path.is_file():
            raise InvalidAlias("it is no file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidAlias(f"cannot be read: {error}") from error
    if len(content) > MOST_BYTES:
        raise InvalidAlias(f"is larger than {MOST_BYTES} bytes")
    try:
        found = _FILE.validate_json(content, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in fault["loc"][:1])
        raise InvalidAlias(
            f"{where}{fault['msg']}; it holds an alias and a version or list of them, "
            'such as {"stable": 2, "default": [1, 2]}'
        ) from error
    for alias in RESERVED:
        if alias in found:
            raise InvalidAlias(f"{alias!r} cannot be set")
    return {alias: [at] if isinstance(at, int) else at for alias, at in found.items()}


def set_alias(models: Path, name: str, alias: str, version: int) -> None:
    """Have ``alias`` mean ``version`` from now on; what it meant is kept. Raises ``InvalidAlias``.

    ``models`` is the folder of all models.
    """
    if not re.fullmatch(ALIAS_PATTERN, alias) or alias in RESERVED:
        raise InvalidAlias(
            f"{alias!r} is no alias that can be set: a lower-case letter, then letters, digits and "
            f"'-', and not {' or '.join(map(repr, RESERVED))}"
        )
    folder = _folder(models, name)
    if not (folder / str(version) / MODEL_FILE).is_file():
        raise InvalidAlias(f"there is no {folder / str(version) / MODEL_FILE}")
    history = read(folder)
    before = history.get(alias, [])
    if before[-1:] != [version]:
        history[alias] = [*before, version][-HISTORY:]
        _write(folder, history)


def roll_back(models: Path, name: str, alias: str) -> int:
    """Have ``alias`` mean what it meant before, and return that. Raises ``InvalidAlias``."""
    folder = _folder(models, name)
    history = read(folder)
    if len(history.get(alias, [])) < 2:
        raise InvalidAlias(f"{alias!r} was nothing else before, as {folder / FILE} has it")
    history[alias].pop()
    _write(folder, history)
    return history[alias][-1]


def _folder(models: Path, name: str) -> Path:
    """Of a model. No other name becomes a path."""
    if not re.fullmatch(NAME_PATTERN, name) or not (models / name).is_dir():
        raise InvalidAlias(f"there is no model {name!r} in {models}")
    return models / name


def _write(folder: Path, history: History) -> None:
    shown = {alias: at[0] if len(at) == 1 else at for alias, at in history.items()}
    write_atomically(folder / FILE, json.dumps(shown) + "\n")
