"""Which files of an archive are images, by their content, and what the others are."""

from __future__ import annotations

from training.data.archive import Archive
from training.data.packed import UNREADABLE_ARCHIVE
from training.data.reading import NOT_AN_IMAGE, UNREAD_IMAGE
from training.data.sniffing import (
    EXTENSIONS,
    FOREIGN,
    HEAD_BYTES,
    UNREAD_EXTENSIONS,
    is_heic,
    is_image,
    not_text,
)


def images_of(archive: Archive) -> list[str]:
    """Names of the images; the other files are left out and counted by :func:`count_others`."""
    found = []
    for name in archive.names:
        lower = name.lower()
        if lower.endswith(UNREAD_EXTENSIONS):
            continue
        if lower.endswith(EXTENSIONS) or is_image(head_of(archive, name)):
            found.append(name)
    return found


def count_others(archive: Archive, used: set[str]) -> None:
    """Count every file that is neither in ``used`` nor counted already."""
    for name in archive.names:
        if name not in used:
            unread = name.lower().endswith(UNREAD_EXTENSIONS) or is_heic(head_of(archive, name))
            archive.reading.leave_out(UNREAD_IMAGE if unread else NOT_AN_IMAGE, (name,))


def foreign(archive: Archive, name: str) -> str | None:
    """Clause on data of another kind and what to do with it, or None."""
    ending = next((end for end in FOREIGN if name.lower().endswith(end)), "")
    return FOREIGN[ending] if ending else not_text(head_of(archive, name))


def head_of(archive: Archive, name: str) -> bytes:
    """First bytes of a file, empty if it cannot be read."""
    try:
        with archive.open(name) as file:
            return file.read(HEAD_BYTES)
    except UNREADABLE_ARCHIVE:
        return b""
