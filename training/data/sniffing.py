"""Content of a file by its first bytes, whatever its name ends with."""

from __future__ import annotations

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings under which a file is taken for an image without being opened first."""
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
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not head:
        return "the file is empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, perhaps of a failed download"
    if start.startswith((b"<?xml", b"<svg")):
        return "it is XML or SVG, not pixels"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: `git lfs pull` fetches the image"
    if is_heic(head):
        return "it is HEIC: convert it to JPEG or PNG first"
    for mark, name in _OTHERS.items():
        if head.startswith(mark):
            return f"it is {name}"
    if not any(head):
        return "it holds nothing but zeros"
    return f"cannot identify its format; it begins with {head[:12]!r}"


_OTHERS = {
    b"PK\x03\x04": "a zip",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "a NumPy array",
    b"\0\x05\x16\x07": "an AppleDouble file of macOS, without the image itself",
    b"{": "JSON",
    b"8BPS": "a Photoshop document",
}
