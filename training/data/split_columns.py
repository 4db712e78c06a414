"""Columns of tables that say which split a row is of, whatever they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.data.options import Options
from training.data.splits import COLUMNS, KIND_OF, NO_SPLIT, TRAIN, kind_of, unclear
from training.errors import DataError

FLAGS = {
    **dict.fromkeys(("is_train", "is_training"), TRAIN),
    **dict.fromkeys(("is_val", "is_valid", "is_validation"), "val"),
    **dict.fromkeys(("is_test", "is_testing"), "test"),
}
"""Columns that say yes or no of one split; fastai's tables have ``is_valid``."""
TRUE_FALSE = ({"1", "true", "yes"}, {"0", "false", "no"})


@dataclass(frozen=True)
class RowSplit:
    """Rows to read, by a column that says which split each is of."""

    column: str
    split: str
    """Kind of the rows that are kept; empty for all."""
    kept: list[bool]


def find(columns: Mapping[str, Sequence[str]], options: Options, source: str) -> RowSplit | None:
    """Rows of the split to read; None without such a column, or if it is learnt as a label.

    A column counts by its name, or if all its values are splits, one of them for training. Raises
    ``DataError`` if it is not clear what to train on.
    """
    for name, column in columns.items():
        if name in (options.attributes or ()):
            continue
        key = re.sub(r"[\s_-]+", "_", name.strip().lower())
        values = set(column)
        kinds = _kinds(key, values, options.split) or {}
        present = set(kinds.values())
        is_named = key in (*COLUMNS, *FLAGS)
        if kinds and (is_named or (TRAIN in present and len(present) > 1)):
            return _rows(name, [kinds[value] for value in column], options, source)
        if key in COLUMNS and column:
            listed = ", ".join(repr(value) for value in sorted(values)[:5])
            raise DataError(
                source,
                [
                    f"column {name!r} looks like splits, but it is not clear which one to train "
                    f"on: {listed}; name one with --split, or read all with --split {NO_SPLIT}"
                ],
            )
    return None


def _kinds(key: str, values: set[str], wanted: str | None) -> dict[str, str] | None:
    """Kind of split of each value, or None if they are no splits."""
    if key in COLUMNS and (wanted in values or wanted == NO_SPLIT):
        return {value: value for value in values}
    if flag := FLAGS.get(key):
        if not all(value.lower() in TRUE_FALSE[0] | TRUE_FALSE[1] for value in values):
            return None
        other = "test" if flag == TRAIN else TRAIN
        return {value: flag if value.lower() in TRUE_FALSE[0] else other for value in values}
    found = {value: kind[0] for value in values if (kind := kind_of(value))}
    return found if found and found.keys() == values else None


def _rows(name: str, kinds: list[str], options: Options, source: str) -> RowSplit:
    present = sorted(set(kinds))
    if options.split == NO_SPLIT:
        return RowSplit(name, "", [True] * len(kinds))
    if options.split is None:
        if TRAIN not in present and len(present) > 1:
            raise unclear(source, present)
        wanted = TRAIN if TRAIN in present else present[0]
    else:
        known = options.split in present
        wanted = options.split if known else KIND_OF.get(options.split.lower(), options.split)
    if wanted not in present:
        listed = ", ".join(present)
        raise DataError(source, [f"column {name!r} has no split {wanted!r}; there are: {listed}"])
    return RowSplit(name, wanted, [kind == wanted for kind in kinds])
