"""Content of a file by its first bytes, whatever its name ends with."""

from __future__ import annotations

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings under which a file is taken for an image without being opened first."""
UNREAD_EXTENSIONS = (
    *(".heic", ".heif", ".svg", ".psd", ".ico", ".tga", ".pcx", ".dds", ".jxl", ".exr", ".hdr"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
)
"""Endings of images that are not read. A camera's raw file begins as a TIFF of its thumbnail."""
HEAD_BYTES = 64
IMAGES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n", b"P5 ", b"P6 ", b"\0\0\0\x0cjP  "),
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def is_image(head: bytes) -> bool:
    """True if ``head`` begins a file that Pillow reads."""
    if head.startswith(IMAGES):
        return True
    if head.startswith(b"BM") and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (
        head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis")
    )


_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))


def is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def describe(head: bytes) -> str:
    """Reason why ``head`` begins no readable image, as a clause: ``it is an HTML page``."""
    if what := not_text(head):
        return what
    if head.lstrip(_BLANK).lower().startswith((b"<?xml", b"<svg")):
        return "it is XML or SVG, not pixels"
    if is_heic(head):
        return "it is HEIC: convert it to JPEG or PNG first"
    if head.startswith(b"{"):
        return "it is JSON"
    if not any(head):
        return "it holds nothing but zeros"
    return f"cannot identify its format; it begins with {head[:12]!r}"


def not_text(head: bytes) -> str | None:
    """Reason why ``head`` begins neither a table nor a list, as a clause; None if it may."""
    if not head:
        return "the file is empty"
    if head.lstrip(_BLANK).lower().startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, perhaps of a failed download"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: `git lfs pull` fetches the file"
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "it is a pickle, which can run programs and is not read"
    return next((f"it is {what}" for mark, what in _OTHERS.items() if head.startswith(mark)), None)


FOREIGN = {
    ".npz": "several arrays in one: save the images as NAME.npy, and their labels as NAME.csv",
    ".arrow": "a set that `datasets` saved to disk: save it with Dataset.to_parquet",
    ".tfrecord": "records of TensorFlow: save them as files, Parquet or WebDataset",
    ".mdb": "an LMDB database: save it as files, Parquet or WebDataset",
    ".zip": "a zip in an archive: unpack the outer one",
    ".tar": "a tar in an archive: unpack the outer one",
}
"""Endings of data that is not read, and what to do."""


_BLANK = b"\xef\xbb\xbf \r\n\t"
_OTHERS = {
    b"PK\x03\x04": "a zip, or a spreadsheet of Excel",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "a NumPy array",
    b"\0\x05\x16\x07": "an AppleDouble file of macOS, without the image itself",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x89HDF": "an HDF5 file: save its images as files, or as NAME.npy with NAME.csv",
    b"MATLAB": "a MATLAB file: save its images as files, or as NAME.npy with NAME.csv",
    b"ARROW1": "an Arrow file: save it with Dataset.to_parquet",
    b"8BPS": "a Photoshop document",
}
