"""Images beside a table of their labels: ``metadata.csv`` and its kin.

Hugging Face calls the layout imagefolder. One column names the file, relative to the table; every
other one is an attribute. Tables of several parts are joined.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from functools import partial

from training.data import splits
from training.data.archive import Archive, count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.labelling import choose, label_problems
from training.data.options import Options
from training.data.reading import NOT_IN_TABLE
from training.data.tables import Table, is_named_table, is_table, names_images, read_table
from training.data.text import compose, slashes
from training.errors import DataError

OURS = ("address", "url", "seed", "index", "model", "version")
"""Columns beside the labels in sets that the service makes."""
TEMPLATES = ("sample_submission", "submission")
"""Stems of tables that Kaggle adds for its competitions."""
MAX_TABLES = 64


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    if _candidates(archive, options):
        return None
    seen = [name for name in archive.names if is_table(name)]
    if seen:
        return f"{seen[0]} is there, but names none of the images"
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
        images = _stems(archive)
        found += [
            name
            for name in rest
            if posixpath.basename(name).partition(".")[0].lower() not in TEMPLATES
            and names_images(archive, name, options.encoding, images)
        ]
    return sorted(found)


def _stems(archive: Archive) -> set[str]:
    """File names without folders, and these without their endings."""
    bases = {name.rpartition("/")[2] for name in archive.names}
    return bases | {base.rpartition(".")[0] for base in bases if "." in base}


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
    images = _stems(archive)
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
    columns = {
        name: [fields[table.header.index(name)] for _, table, fields in rows]
        for name in first.header
        if name != first.header[first.file_column]
    }
    keep, split = _split_of(columns, options)
    locations = _locations(archive, rows)
    if split is None and not options.split and not reading.split:
        keep, split = _split_of_paths(locations, str(archive.path))
    if split:
        gone = [
            fields[table.file_column]
            for (_, table, fields), k in zip(rows, keep, strict=True)
            if not k
        ]
        reading.leave_out(f"not of split {split}", gone)
        reading.split = split
        rows = [row for row, k in zip(rows, keep, strict=True) if k]
        columns = {
            name: [v for v, k in zip(c, keep, strict=True) if k] for name, c in columns.items()
        }
        used_elsewhere = {at for at, k in zip(locations, keep, strict=True) if not k and at}
        locations = [at for at, k in zip(locations, keep, strict=True) if k]
    else:
        used_elsewhere = set()
    wanted = choose(_labels(columns, options, archive), options.attributes, source)
    if not wanted and options.attributes is None:
        raise options.unlabelled(source, f"its table {first.name} has no column of labels", reading)
    columns = {name: columns[name] for name in wanted}
    row_names = [row for row, _, _ in rows]
    problems += label_problems(columns, row_names)
    file_names = [fields[table.file_column] for _, table, fields in rows]
    pictures = _pictures(archive, rows, locations, problems)
    _count(archive, {at for at in locations if at}, used_elsewhere | set(names), selection)
    name = archive.path.resolve().stem
    return build(name, source, pictures, file_names, columns, options.framing, problems, reading)


def _are_nested(folders: list[str]) -> bool:
    return any(a != b and (b == "" or a.startswith(f"{b}/")) for a in folders for b in folders)


def _several(archive: Archive, names: list[str]) -> DataError:
    return DataError(
        str(archive.path),
        [f"has several tables: {', '.join(names)}; name one with --table {names[0]}"],
    )


def _labels(columns: dict[str, list[str]], options: Options, archive: Archive) -> list[str]:
    """Columns that can be labels."""
    labels = []
    for name, column in columns.items():
        if options.attributes is not None and name in options.attributes:
            labels.append(name)
        elif name in OURS and ("address" in columns or "url" in columns):
            archive.reading.unread[name] = "says where the image came from"
        elif name.lower() in splits.COLUMNS and splits.of_rows(column):
            archive.reading.unread[name] = "says which split a row is of"
        else:
            labels.append(name)
    return labels


def _split_of(columns: dict[str, list[str]], options: Options) -> tuple[list[bool], str | None]:
    for name, column in columns.items():
        if name.lower() in splits.COLUMNS and (kinds := splits.of_rows(column)):
            wanted = splits.KIND_OF.get((options.split or splits.TRAIN).lower(), options.split)
            if options.split == splits.NO_SPLIT or (wanted not in kinds and not options.split):
                return [], None
            return [kind == wanted for kind in kinds], wanted
    return [], None


def _split_of_paths(locations: list[str | None], source: str) -> tuple[list[bool], str | None]:
    """Rows of the training split where one table lists the images of all splits."""
    known = [at for at in locations if at]
    found = splits.select(known, source)
    if not found.left_out or not found.split:
        return [], None
    kept = {name for name, _ in found.kept}
    return [at is None or at in kept for at in locations], found.split


def _locations(archive: Archive, rows: list[tuple[str, Table, list[str]]]) -> list[str | None]:
    """Path of the image of each row, or None."""
    present = set(archive.names)
    by_base: dict[str, list[str]] = {}
    located: list[str | None] = []
    for _, table, fields in rows:
        value = compose(slashes(fields[table.file_column]))
        folder = posixpath.dirname(table.name)
        at = posixpath.normpath(posixpath.join(folder, value))
        if at in present:
            located.append(at)
            continue
        if not by_base:
            for name in images_of(archive):
                base = name.rpartition("/")[2]
                by_base.setdefault(base, []).append(name)
                by_base.setdefault(base.rpartition(".")[0], []).append(name)
        found = by_base.get(value, []) if "/" not in value else []
        located.append(found[0] if len(found) == 1 else None)
    return located


def _pictures(
    archive: Archive,
    rows: list[tuple[str, Table, list[str]]],
    locations: list[str | None],
    problems: list[str],
) -> Iterator[Picture]:
    """The images that are there; those that are not become problems."""
    for (row, table, fields), path in zip(rows, locations, strict=True):
        name = fields[table.file_column]
        if path is not None:
            yield Picture(f"{row}: {name!r}", partial(archive.read, path))
        else:
            problems.append(f"{row}: no image {name!r}")


def _count(archive: Archive, used: set[str], others: set[str], selection: splits.Selection) -> None:
    """Count the files that the table does not name."""
    rest = [name for name in archive.names if name not in used and name not in others]
    if not rest:
        return
    images = set(images_of(archive)) & set(rest)
    for reason, names in selection.left_out.items():
        archive.reading.leave_out(f"table of another split ({reason})", names)
    gone = {name for name in rest if is_table(name)} if selection.left_out else set()
    archive.reading.leave_out(NOT_IN_TABLE, sorted(images))
    count_others(archive, used | others | images | gone)
