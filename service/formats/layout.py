"""Layout of a set: the split, the class and the paths of an image, from its labels and address."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from service.core.set_request import SetRequest
from service.core.text import listed, shortened
from service.errors import InvalidRequest
from service.formats.records import ImageRecord

IMAGES = "images"
"""Folder of the images in the layout ``table``."""
BETWEEN = "__"
"""Between the values of a class of several attributes: ``red__black``."""
UNSAFE_IN_FOLDER = re.compile(r"[^\w .+'()&-]|_{2,}|^[ ._]|[ ._]$")
"""No name begins or ends with ``_``, so that different values make different classes."""
UNSAFE_IN_ENDING = re.compile(r"[^\w-]")
RESERVED = re.compile(r"(con|nul|aux|prn|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""
MAX_NAME_BYTES = 200
"""File systems allow 255, and temporary names are longer."""
MAX_CHARACTER_BYTES, HASHED_CHARACTERS = 4, 8
HASH_BITS = 64

Values = Mapping[str, Sequence[str]]
"""Values of each attribute, in the order of the model's manifest."""


@dataclass(frozen=True)
class Layout:
    """Places of the images and labels in a set."""

    values: Values
    by: tuple[str, ...] = ()
    """Attributes that make the class of an image; empty if there is none."""
    folders: bool = False
    shares: tuple[tuple[str, float], ...] = ()
    """Splits, each with its fraction."""
    names: bool = False
    """Labels in Parquet are strings, not indices."""
    only: str | None = None
    """The one split of a file; None for a file of all."""

    @classmethod
    def of(cls, request: SetRequest, values: Values) -> Layout:
        """Layout that ``request`` asks for. Raises ``InvalidRequest`` if the model lacks ``by``."""
        folders = request.layout == "folders"
        if not values and (folders or request.by_names):
            raise _unfit(
                f"{'layout' if folders else 'by'}: the model is unconditional, so its images have "
                "no classes: use the layout 'table'",
                [],
            )
        known = [*values]
        for name in request.by_names:
            if name not in values:
                raise _unfit(
                    f"by: unknown attribute {shortened(name)!r}; the model has: {listed(known)}",
                    known,
                )
        if folders and not request.by_names and len(known) > 1:
            raise _unfit(
                "by: name the attribute whose values become folders, or several; the model has: "
                f"{listed(known)}",
                known,
            )
        by = request.by_names or (known if len(known) == 1 else [])
        shares = tuple((request.splits or {}).items())
        return cls(values, tuple(by), folders, shares, request.labels == "names")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits of a file; a single empty one without splits."""
        if self.only is not None:
            return (self.only,)
        return tuple(name for name, _ in self.shares) or ("",)

    @property
    def identity(self) -> str:
        """Fields that the bytes of a set depend on, besides its images."""
        return repr((self.by, self.folders, self.shares, self.names))

    def of_split(self, name: str) -> Layout:
        """Layout of a file with the images of one split."""
        return replace(self, only=name or None)

    def split(self, url: str) -> str:
        """Split of the image at an address; empty without splits."""
        if not self.shares:
            return ""
        hashed = int.from_bytes(hashlib.sha256(url.encode()).digest()[: HASH_BITS // 8])
        return self.shares[bisect.bisect(self._ends, hashed)][0]

    def prefix(self, record: ImageRecord) -> str:
        """Folder of the split, with ``/`` at its end; empty without splits."""
        return f"{self.split(record.url)}/" if self.shares else ""

    def place(self, record: ImageRecord) -> tuple[str, str]:
        """Split of an image, and its path: ``images/KEY.png``, ``train/red/KEY.png``."""
        split = self.split(record.url)
        path = f"{self.class_name(record) if self.folders else IMAGES}/{record.file_name}"
        return split, f"{split}/{path}" if split else path

    def class_name(self, record: ImageRecord) -> str:
        """Class of an image as the name of a folder: ``red``, ``red__black``."""
        labels = record.labels or {}
        name = BETWEEN.join([self._safe_values[each][labels[each]] for each in self.by])
        if len(name) * MAX_CHARACTER_BYTES <= MAX_NAME_BYTES:
            return name
        raw = name.encode()
        if len(raw) <= MAX_NAME_BYTES:
            return name
        start = raw[: MAX_NAME_BYTES - HASHED_CHARACTERS - 1].decode("utf-8", "ignore")
        return f"{start}-{hashlib.sha256(raw).hexdigest()[:HASHED_CHARACTERS]}"

    def class_files(self, record: ImageRecord) -> list[tuple[str, bytes]]:
        """Endings and contents of the files of a WebDataset sample that hold its classes.

        ``.cls`` is the index of the class. With several attributes each also has a file,
        ``.hair.cls``, with the index of its value.
        """
        labels = record.labels
        if not labels:
            return []
        files = []
        if self.by:
            index = 0
            for name in self.by:
                index = index * len(self.values[name]) + self._ids[name][labels[name]]
            files.append((".cls", b"%d" % index))
        if len(self.values) > 1:
            files += [
                (ending, b"%d" % self._ids[name][labels[name]])
                for name, ending in self._endings.items()
            ]
        return files

    def ids(self, record: ImageRecord) -> list[int]:
        """Index of each label among the values of its attribute."""
        labels = record.labels
        return [of[labels[name]] for name, of in self._ids.items()] if labels else []

    @cached_property
    def _ends(self) -> list[int]:
        """Upper end of the hashes of each split but the last."""
        sums = itertools.accumulate(share for _, share in self.shares[:-1])
        return [round(each * 2**HASH_BITS) for each in sums]

    @cached_property
    def _ids(self) -> dict[str, dict[str, int]]:
        return {
            name: {value: i for i, value in enumerate(values)}
            for name, values in self.values.items()
        }

    @cached_property
    def _safe_values(self) -> dict[str, dict[str, str]]:
        return {name: _safe(self.values[name], UNSAFE_IN_FOLDER) for name in self.by}

    @cached_property
    def _endings(self) -> dict[str, str]:
        found = _safe(tuple(self.values), UNSAFE_IN_ENDING)
        return {name: f".{ending}.cls" for name, ending in found.items()}


def _safe(texts: Sequence[str], unsafe: re.Pattern[str]) -> dict[str, str]:
    """Names for ``texts`` that file systems accept, also those that ignore case."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in texts:
        name = unsafe.sub("-", unicodedata.normalize("NFC", text))
        if RESERVED.fullmatch(name):
            name = f"-{name}"
        while name.casefold() in taken:
            name += "-"
        taken.add(name.casefold())
        names[text] = name
    return names


def _unfit(why: str, attributes: list[str]) -> InvalidRequest:
    return InvalidRequest(why, kind="Fields disagree", attributes=attributes)
