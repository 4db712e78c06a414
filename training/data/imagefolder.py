"""Images beside a table of their labels: ``metadata.csv`` and its kin.

Hugging Face calls the layout imagefolder. One column names the file, relative to the table; every
other one is an attribute. Tables of several parts are joined.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import compress

from training.data import split_columns, splits
from training.data.archive import Archive
from training.data.contents import count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.labelling import choose, label_problems, whole_numbers
from training.data.options import Options
from training.data.reading import NOT_IN_TABLE, Reading
from training.data.tables import Table, is_named_table, is_table, mismatch, read_table, stems_of
from training.data.text import compose, slashes
from training.errors import DataError

OURS = ("address", "url", "seed", "index", "model", "version")
"""Columns beside the labels in sets that the service makes."""
TEMPLATES = ("samplesubmission", "submission")
"""Stems of tables that Kaggle adds for its competitions."""
MAX_TABLES = 64
INDEX = re.compile(r"(unnamed: ?\d+)?", re.IGNORECASE)
"""Names that pandas gives to the column of its index."""
FOLDS = ("fold", "kfold")


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    if _candidates(archive, options):
        return None
    seen = [name for name in archive.names if is_table(name)]
    if seen:
        return f"{seen[0]} is {mismatch(archive, seen[0], options.encoding, stems_of(archive))}"
    return "no metadata.csv, metadata.jsonl, labels.csv or other table of the images"


def _candidates(archive: Archive, options: Options) -> list[str]:
    tables = [name for name in archive.names if is_table(name)]
    if options.table:
        wanted = slashes(options.table)
        tables = [name for name in tables if name == wanted or name.endswith(f"/{wanted}")]
    if not tables:
        return []
    found = [name for name in tables if is_named_table(name)]
    rest = [name for name in tables if not is_named_table(name)]
    if rest and (options.table or len(rest) <= MAX_TABLES):
        images = stems_of(archive)
        found += [
            name
            for name in rest
            if not _is_template(name) and mismatch(archive, name, options.encoding, images) is None
        ]
    return sorted(found)


def _is_template(name: str) -> bool:
    return re.sub(r"[\s_-]", "", posixpath.basename(name).partition(".")[0].lower()) in TEMPLATES


def read(archive: Archive, options: Options) -> Dataset:
    """Read the folder or archive; without ``options.attributes``, every column is an attribute.

    Raises ``DataError`` with everything that is wrong.
    """
    candidates = _candidates(archive, options)
    selection = splits.select(
        candidates, str(archive.path), options.split_of(candidates), stems=True
    )
    names = [name for name, _ in selection.kept]
    reading = archive.reading
    reading.layout, reading.tables = "images with a table", names
    reading.split = reading.split or selection.split
    folders = Counter(posixpath.dirname(name) for name in names)
    if any(count > 1 for count in folders.values()) or _are_nested(list(folders)):
        raise _several(archive, names)
    problems: list[str] = []
    images = stems_of(archive)
    tables = [read_table(archive, name, options.encoding, images) for name in names]
    first = tables[0]
    for table in tables[1:]:
        if set(table.header) != set(first.header):
            raise DataError(
                str(archive.path),
                [
                    f"{table.name} has the columns {table.header}, {first.name} has "
                    f"{first.header}: name one with --table"
                ],
            )
    source = f"{archive.path}/{first.name}" if len(tables) == 1 else str(archive.path)
    alone = len(tables) == 1
    rows = [
        (f"line {line}" if alone else f"{table.name} line {line}", table, fields)
        for table in tables
        for line, fields in table.rows
    ]
    for table in tables:
        problems += table.problems if alone else [f"{table.name} {x}" for x in table.problems]
        reading.unread.update(table.unread)
    columns = _columns(tables)
    finder = _Finder(archive, options)
    locations = [finder.find(table.name, fields[table.file_column]) for _, table, fields in rows]
    by_column = split_columns.find(columns, options, source)
    if by_column:
        keep, split = by_column.kept, by_column.split
        reading.unread[by_column.column] = "says which split a row is of"
    elif not reading.split and options.split != splits.NO_SPLIT:
        keep, split = _split_of_paths(locations, str(archive.path), options.split)
    else:
        keep, split = [], ""
    of_others: set[str] = set()
    if split:
        others = compress(rows, (not k for k in keep))
        reading.leave_out(f"not of split {split}", (f[t.file_column] for _, t, f in others))
        reading.split = split
        of_others = {at for at, k in zip(locations, keep, strict=True) if at and not k}
        rows, locations = list(compress(rows, keep)), list(compress(locations, keep))
        columns = {name: list(compress(column, keep)) for name, column in columns.items()}
    wanted = choose(_labels(columns, options, reading), options.attributes, source)
    if not wanted and options.attributes is None:
        raise options.unlabelled(source, f"its table {first.name} has no column of labels", reading)
    problems += _repeated(rows, locations)
    _note_folders([at for at in locations if at], reading)
    columns = {name: whole_numbers(columns[name]) for name in wanted}
    row_names = [row for row, _, _ in rows]
    problems += label_problems(columns, row_names)
    file_names = [fields[table.file_column] for _, table, fields in rows]
    pictures = _pictures(archive, rows, locations, finder, problems)
    tables_left_out = set(candidates) - set(names)
    for reason, gone in selection.left_out.items():
        reading.leave_out(f"table of another split ({reason})", gone)
    _count(archive, {at for at in locations if at} | of_others | set(names) | tables_left_out)
    name = archive.path.resolve().stem
    return build(name, source, pictures, file_names, columns, options, problems, reading)


def _repeated(rows: list[tuple[str, Table, list[str]]], locations: list[str | None]) -> list[str]:
    """Problems with rows of one image under several names."""
    first: dict[str, str] = {}
    found = []
    for (row, table, fields), at in zip(rows, locations, strict=True):
        if at and first.setdefault(at, row) != row:
            found.append(f"{row}: {fields[table.file_column]!r} is the image of {first[at]}")
    return found


def _note_folders(locations: list[str], reading: Reading) -> None:
    """Record folders around the images that may be classes, as the table has the labels."""
    folders = sorted({posixpath.basename(posixpath.dirname(at)) for at in locations} - {""})
    known = all(splits.kind_of(name) or name.isdecimal() for name in folders)
    if len(folders) < 2 or known or splits.are_parts(set(folders)):
        return
    more = f" and {len(folders) - 2} more" if len(folders) > 2 else ""
    reading.unread[f"folders {', '.join(folders[:2])}{more}"] = "the table has the labels"


def _columns(tables: list[Table]) -> dict[str, list[str]]:
    """Columns of all tables, but for the names of files."""
    first = tables[0]
    columns: dict[str, list[str]] = {
        name: [] for name in first.header if name != first.header[first.file_column]
    }
    for name, column in columns.items():
        for table in tables:
            at = table.header.index(name)
            column += [fields[at] for _, fields in table.rows]
    return columns


def _are_nested(folders: list[str]) -> bool:
    return any(a != b and (b == "" or a.startswith(f"{b}/")) for a in folders for b in folders)


def _several(archive: Archive, names: list[str]) -> DataError:
    return DataError(
        str(archive.path),
        [f"has several tables: {', '.join(names)}; name one with --table {names[0]}"],
    )


def _labels(columns: dict[str, list[str]], options: Options, reading: Reading) -> list[str]:
    """Columns that can be labels."""
    labels = []
    for name, column in columns.items():
        if options.attributes is not None and name in options.attributes:
            labels.append(name)
        elif name in OURS and ("address" in columns or "url" in columns):
            reading.unread[name] = "says where the image came from"
        elif INDEX.fullmatch(name) and (not any(column) or len(set(column)) == len(column) > 1):
            what = "numbers the rows" if any(column) else "holds nothing"
            reading.unread[name or "column without a name"] = what
        elif name.lower() in FOLDS:
            reading.unread[name] = "says which fold a row is of"
        elif name not in reading.unread:
            labels.append(name)
    return labels


def _split_of_paths(
    locations: list[str | None], source: str, wanted: str | None
) -> tuple[list[bool], str]:
    """Rows of the split where one table lists the images of all splits."""
    found = splits.select([at for at in locations if at], source, wanted)
    if not found.split:
        return [], ""
    kept = {name for name, _ in found.kept}
    return [at is None or at in kept for at in locations], found.split


class _Finder:
    """Finds the images that tables name."""

    def __init__(self, archive: Archive, options: Options) -> None:
        self._archive = archive
        self._wanted = splits.KIND_OF.get((options.split or "").lower())
        self._present = set(archive.names)

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """File names and their stems, in lower case, to paths."""
        found: dict[str, list[str]] = {}
        for name in images_of(self._archive):
            base = name.rpartition("/")[2].lower()
            found.setdefault(base, []).append(name)
            found.setdefault(base.rpartition(".")[0], []).append(name)
        return found

    def find(self, table: str, value: str) -> str | None:
        """Path of the image ``value``: relative to its table, or else the only one of this name."""
        value = compose(slashes(value))
        at = posixpath.normpath(posixpath.join(posixpath.dirname(table), value))
        if at in self._present:
            return at
        if "/" in value:
            return None
        found = [at for at in self._by_base.get(value.lower(), []) if value in _names_of(at)]
        kind = self._wanted or (splits.kind_of(posixpath.basename(table)) or ("",))[0]
        if len(found) > 1 and kind:
            found = [at for at in found if kind in _splits_in(at)]
        return found[0] if len(found) == 1 else None

    def hint(self, value: str) -> str:
        """Images of a similar name, for the message that ``value`` is not there."""
        base = slashes(value).rpartition("/")[2].lower()
        found = self._by_base.get(base) or self._by_base.get(base.rpartition(".")[0]) or []
        if len(found) > 1:
            option = ": --split chooses" if any(map(_splits_in, found)) else ""
            return f", but there are {', '.join(found[:3])}{option}"
        return f", but there is {found[0]!r}" if found else ""


def _names_of(path: str) -> tuple[str, str]:
    base = path.rpartition("/")[2]
    return base, base.rpartition(".")[0]


def _splits_in(path: str) -> list[str]:
    return [kind[0] for part in path.split("/")[:-1] if (kind := splits.kind_of(part))]


def _pictures(
    archive: Archive,
    rows: list[tuple[str, Table, list[str]]],
    locations: list[str | None],
    finder: _Finder,
    problems: list[str],
) -> Iterator[Picture]:
    """The images that are there; those that are not become problems."""
    for (row, table, fields), path in zip(rows, locations, strict=True):
        name = fields[table.file_column]
        if path is not None:
            yield Picture(f"{row}: {name!r}", partial(archive.read, path))
        else:
            problems.append(f"{row}: no image {name!r}{finder.hint(name)}")


def _count(archive: Archive, used: set[str]) -> None:
    """Count the files that the table does not name."""
    if all(name in used for name in archive.names):
        return
    images = set(images_of(archive)) - used
    archive.reading.leave_out(NOT_IN_TABLE, sorted(images))
    count_others(archive, used | images)
