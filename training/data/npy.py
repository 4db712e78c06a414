"""NumPy arrays of pixels beside a table of their labels, as the service makes them.

``anime-faces-00000.npy`` holds uint8 ``[N, H, W, channels]``; row i of ``anime-faces-00000.csv`` is
of image i.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from training.data import splits
from training.data.archive import Archive
from training.data.contents import count_others
from training.data.dataset import Dataset
from training.data.framing import Framing
from training.data.imagefolder import OURS
from training.data.labelling import choose, encode_labels, label_problems
from training.data.options import Options
from training.data.tables import Table, read_table
from training.errors import DataError, FixedSize

SUFFIX = ".npy"


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    arrays = [name for name in archive.names if name.lower().endswith(SUFFIX)]
    if not arrays:
        return "no .npy"
    table = _table_of(arrays[0])
    return None if table in archive.names else f"{arrays[0]} is there, but not {table} beside it"


def _table_of(name: str) -> str:
    return f"{name[: -len(SUFFIX)]}.csv"


def read(archive: Archive, options: Options) -> Dataset:
    """Read all arrays. Raises ``DataError`` with everything that is wrong."""
    source, reading = str(archive.path), archive.reading
    if options.framing != Framing():
        raise FixedSize(
            source, ["arrays keep their size: --size, --crop and --pad are for image files"]
        )
    found = [name for name in archive.names if name.lower().endswith(SUFFIX)]
    selection = splits.select(found, source, options.split, stems=True)
    for reason, names in selection.left_out.items():
        reading.leave_out(reason, names)
    arrays: list[npt.NDArray[np.uint8]] = []
    tables: list[Table] = []
    for name, _ in selection.kept:
        if _table_of(name) not in archive.names:
            raise DataError(source, [f"{name} has no {_table_of(name)} beside it"])
        array = _array(archive, name)
        table = read_table(archive, _table_of(name), options.encoding, set())
        if len(table.rows) != len(array) or table.problems:
            said = f"{len(table.rows)} rows for {len(array)} images"
            raise DataError(source, [*table.problems, f"{table.name} has {said}"])
        if arrays and array.shape[1:] != arrays[0].shape[1:]:
            raise DataError(source, [f"{name} holds images of another size than the first array"])
        if tables and table.header != tables[0].header:
            raise DataError(source, [f"{table.name} has other columns than {tables[0].name}"])
        arrays.append(array)
        tables.append(table)
    reading.layout, reading.split = "NumPy arrays", selection.split
    reading.tables = [table.name for table in tables]
    columns = _columns(tables)
    available = [name for name in columns if name not in OURS]
    wanted = choose(available, options.attributes, source)
    if not wanted and options.attributes is None:
        raise options.unlabelled(source, f"{tables[0].name} has no labels", reading)
    columns = {name: columns[name] for name in wanted}
    names = [fields[table.file_column] for table in tables for _, fields in table.rows]
    if problems := label_problems(columns, [repr(name) for name in names]):
        raise DataError(source, problems)
    labels, attributes = encode_labels(columns, len(names), source)
    count_others(archive, {*found, *(_table_of(name) for name in found)})
    stem = archive.path.resolve().stem
    images = np.concatenate(arrays)
    return Dataset(stem, images, labels, attributes, names=tuple(names), reading=reading)


def _array(archive: Archive, name: str) -> npt.NDArray[np.uint8]:
    try:
        array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{archive.path}/{name}", [f"is no readable array: {error}"]) from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3):
        raise DataError(
            f"{archive.path}/{name}",
            [f"holds {array.dtype} {list(array.shape)}, not uint8 [N, H, W, 1 or 3]"],
        )
    return array


def _columns(tables: list[Table]) -> dict[str, list[str]]:
    first = tables[0]
    return {
        name: [fields[at] for table in tables for _, fields in table.rows]
        for at, name in enumerate(first.header)
        if at != first.file_column
    }
