"""Account of what was read: the layout, the split, the tables, and every file that was left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

EXAMPLES = 3
HIDDEN = "hidden"
THUMBNAIL = "thumbnail of a NAS or a viewer"
SYSTEM = "deleted file or snapshot that the system keeps"
APPLE_DOUBLE = "AppleDouble file of macOS"
LOOP = "link to a folder that was read already"
BROKEN_LINK = "link to nothing"
NO_FILE = "pipe, socket or device"
NOT_AN_IMAGE = "not an image"
UNREAD_IMAGE = "image in a format that is not read, such as HEIC or camera raw"
DAMAGED = "damaged image"
NOT_IN_TABLE = "image that the table does not list"
NESTED_COPY = "nested copy of the splits"
EMPTY_FOLDER = "folders without files that are read"


@dataclass
class LeftOut:
    """Number of files left out for one reason, and the first few of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Reading:
    """Account of one source; readers add to it as they go."""

    layout: str = ""
    split: str = ""
    """Kind of the split that was read, such as ``train``; empty without splits."""
    tables: list[str] = field(default_factory=list)
    """Files that the labels come from."""
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    """Reason to files."""
    unread: dict[str, str] = field(default_factory=dict)
    """Reason for each label-like column or file that was not read."""
    notes: dict[str, LeftOut] = field(default_factory=dict)
    """Changes to images that were read, such as an animation's first frame."""
    sides: list[int] = field(default_factory=list)
    """Smaller side in pixels of each image, as it is in its file."""

    def leave_out(self, reason: str, names: Iterable[str]) -> None:
        _add(self.left_out, reason, names)

    def note(self, what: str, name: str) -> None:
        _add(self.notes, what, (name,))

    def include(self, part: Reading) -> None:
        """Add what an archive in the folder left out and noted."""
        for groups, added in ((self.left_out, part.left_out), (self.notes, part.notes)):
            for reason, files in added.items():
                _add(groups, reason, files.examples)
                groups[reason].count += files.count - len(files.examples)

    @property
    def files_left_out(self) -> int:
        return sum(files.count for files in self.left_out.values())

    def lines(self) -> list[str]:
        """Sentences for people, without the images and labels themselves."""
        found = []
        if self.layout:
            origin = f"read as: {self.layout}"
            origin += f"; split {self.split}" if self.split else ""
            if self.tables:
                shown = ", ".join(self.tables[:EXAMPLES])
                more = len(self.tables) - EXAMPLES
                origin += f"; labels from {shown}" + (f" and {more} more" if more > 0 else "")
            found.append(origin)
        found += [f"seen, not read as a label: {what} ({why})" for what, why in self.unread.items()]
        found += [f"{files.count:,} {what}: {_shown(files)}" for what, files in self.notes.items()]
        found += [
            f"left out {files.count:,}: {reason}: {_shown(files)}"
            for reason, files in self.left_out.items()
        ]
        return found


def _add(groups: dict[str, LeftOut], reason: str, names: Iterable[str]) -> None:
    for name in names:
        group = groups.setdefault(reason, LeftOut())
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(name)


def _shown(files: LeftOut) -> str:
    return ", ".join(files.examples) + (", ..." if files.count > len(files.examples) else "")
