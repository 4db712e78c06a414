"""Files that systems put beside data: hidden and deleted files, thumbnails, AppleDouble files."""

from __future__ import annotations

from collections.abc import Iterable

from training.data.reading import (
    APPLE_DOUBLE,
    EMPTY_FOLDER,
    HIDDEN,
    SYSTEM,
    THUMBNAIL,
    Reading,
)

THUMBNAIL_FOLDERS = ("@eadir", "@thumb")
SYSTEM_FOLDERS = (
    *("#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information"),
    *("#snapshot", "@recently-snapshot", "@synoresource", "@tmp", "__pycache__"),
)
THUMBNAIL_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "picasa.ini")


def reason_for(name: str) -> str | None:
    """Reason to leave out ``name``, or None."""
    *folders, file = name.lower().split("/")
    if file in THUMBNAIL_FILES or any(part in THUMBNAIL_FOLDERS for part in folders):
        return THUMBNAIL
    if any(part in SYSTEM_FOLDERS for part in folders):
        return SYSTEM
    if "__macosx" in folders or file.startswith("._"):
        return APPLE_DOUBLE
    if any(part.startswith(".") for part in (*folders, file)):
        return HIDDEN
    return None


def without_junk(names: Iterable[str], folders: set[str], reading: Reading) -> list[str]:
    """``names`` without junk, sorted. Junk, and ``folders`` that hold nothing else, are noted."""
    kept = []
    for name in names:
        if reason := reason_for(name):
            shown = [part for part in name.split("/") if part.lower() not in THUMBNAIL_FOLDERS]
            reading.leave_out(reason, ("/".join(shown),))
        else:
            kept.append(name)
    filled = {""}
    for folder in {name.rpartition("/")[0] for name in kept}:
        while folder not in filled:
            filled.add(folder)
            folder = folder.rpartition("/")[0]
    for folder in sorted(folders - filled):
        if folder.rpartition("/")[0] in filled and not reason_for(f"{folder}/file"):
            reading.note(EMPTY_FOLDER, folder)
    return sorted(kept)
