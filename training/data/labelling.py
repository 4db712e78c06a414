"""Columns of text to value indices and a vocabulary, for every source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from service.core.manifest import Attribute
from training.data.text import compose
from training.errors import DataError

NO_YES = ("no", "yes")
"""Values of a yes/no attribute, which label phrases know: "Smiling", "not Smiling"."""
MISSING = ("nan", "<na>", "null", "#n/a")
"""Values in a table, in lower or upper case, of a label that is missing."""
HIVE_NULL = "__hive_default_partition__"
"""Name of the folder of a missing value; a folder ``nan`` is a class."""
WHOLE = re.compile(r"[+-]?\d+(\.0+)?")
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
"""Characters that make two labels that look alike. Persian and emoji need the joiners."""


def choose(available: Sequence[str], names: Sequence[str] | None, source: str) -> list[str]:
    """Attributes to learn: ``names``, or all if None. Raises ``DataError`` for unknown ones."""
    if names is None:
        return list(available)
    known = ", ".join(available) or "none"
    unknown = [name for name in names if name not in available]
    if unknown:
        raise DataError(source, [f"no attribute {name!r}; there are: {known}" for name in unknown])
    return list(names)


def label_name(names: Sequence[str] | None, source: str) -> str | None:
    """Name of the one attribute of a source that has no name for it; None to leave it out.

    Raises ``DataError`` if ``names`` are several.
    """
    if names is None:
        return "label"
    if len(names) > 1:
        raise DataError(source, ["has one attribute; name just one with --attributes"])
    return names[0] if names else None


def whole_numbers(column: list[str]) -> list[str]:
    """``column`` with ``1.0`` as ``1``, as pandas writes whole numbers, if it holds only such."""
    if not all(WHOLE.fullmatch(value) for value in column if value):
        return column
    return [value.partition(".")[0] for value in column]


def label_problems(
    columns: Mapping[str, Sequence[str]],
    locations: Sequence[str],
    absent: Collection[str] = MISSING,
) -> list[str]:
    """Sentences on values that cannot be learnt; ``locations`` says where, such as ``line 7``.

    Values in ``absent`` are missing, like empty ones.
    """
    problems = []
    for name, column in columns.items():
        counts = Counter(column)
        missing = {value for value in counts if not value or value.lower() in absent}
        if len(counts) == 1 and len(column) > 1:
            problems.append(f"attribute {name!r}: only one value, {column[0]!r}: nothing to learn")
            continue
        once = {value for value, count in counts.items() if count == 1} - missing
        if len(once) > len(column) / 2:
            problems.append(
                f"attribute {name!r}: {len(once)} of {len(column)} values stand only once: this "
                "is no label (name those to learn with --attributes)"
            )
            once = set()
        if missing or once:
            for location, value in zip(locations, column, strict=True):
                if value in missing:
                    said = f" (it says {value!r})" if value else ""
                    problems.append(f"{location}: no value for {name!r}{said}")
                elif value in once:
                    problems.append(f"{location}: {name} {value!r} stands only here: misspelt?")
    return problems


def encode_labels(
    columns: Mapping[str, Sequence[str]], count: int, source: str
) -> tuple[npt.NDArray[np.int64], tuple[Attribute, ...]]:
    """Turn ``count`` values of each attribute into value indices ``[N, A]`` and the vocabulary.

    Values are in natural order, so ``"10"`` follows ``"9"``. Raises ``DataError`` for names and
    values that cannot be labels.
    """
    labels = np.zeros((count, len(columns)), dtype=np.int64)
    attributes: list[Attribute] = []
    problems: list[str] = []
    for index, (name, column) in enumerate(columns.items()):
        column = [compose(value) for value in column]
        values = sorted(set(column), key=_natural)
        problems += [
            f"attribute {name[:80]!r}: the value {value[:80]!r} has characters that cannot be seen"
            for value in values
            if INVISIBLE.search(value)
        ]
        position = {value: at for at, value in enumerate(values)}
        labels[:, index] = [position[value] for value in column]
        try:
            frequencies = tuple(np.bincount(labels[:, index], minlength=len(values)) / count)
            attributes.append(Attribute(name=name, values=tuple(values), frequencies=frequencies))
        except ValidationError as error:
            problems += [f"attribute {name[:80]!r}: {fault['msg']}" for fault in error.errors()]
    if problems:
        raise DataError(source, problems)
    return labels, tuple(attributes)


def _natural(value: str) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"\d+|\D+", value)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
