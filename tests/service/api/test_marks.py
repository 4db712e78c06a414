"""Marks of synthetic images, and the route that reads them, over a real socket."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.formats import images

pytestmark = pytest.mark.server

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ADDRESS = "/images/anime-faces/2/3/0.{}?label=red+eyes&truncation=0.8"
EXTENSIONS = ("png", "webp", "jpeg")


def detect(client: httpx.Client, content: bytes) -> dict[str, Any]:
    answer = client.post("/detect", content=content)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def saved(
    content: bytes, format_: str, size: tuple[int, int] | None = None, **options: Any
) -> bytes:
    """A copy as an image editor writes it, with the XMP of the original."""
    with Image.open(io.BytesIO(content)) as image:
        xmp = image.info["xmp"]
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        metadata = {"pnginfo": chunks} if format_ == "PNG" else {"xmp": xmp}
        buffer = io.BytesIO()
        copy = image.resize(size) if size else image
        copy.save(buffer, format_, **metadata | options)
    return buffer.getvalue()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_exiftool_reads_source_generator_and_address(
    client: httpx.Client, tmp_path: Path, extension: str
) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("NOT TESTED with exiftool: install libimage-exiftool-perl")
    address = ADDRESS.format(extension)
    path = tmp_path / f"image.{extension}"
    path.write_bytes(client.get(address).content)
    output = subprocess.run(["exiftool", "-json", "-G", path], check=True, capture_output=True)
    (tags,) = json.loads(output.stdout)
    assert tags["XMP:DigitalSourceType"] == SOURCE
    assert tags["XMP:AISystemUsed"] == "Figment anime-faces"
    assert tags["XMP:AISystemVersionUsed"] == 2
    assert tags["XMP:Identifier"] == address


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_pillow_reads_the_mark_without_xmp(client: httpx.Client, extension: str) -> None:
    address = ADDRESS.format(extension)
    with Image.open(io.BytesIO(client.get(address).content)) as image:
        if extension == "png":
            assert (image.info["Source"], image.info["Address"]) == ("synthetic", address)
        else:
            assert {"synthetic", address} <= set(image.getexif().values())


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_lossless_image_is_made_again_exactly(client: httpx.Client, extension: str) -> None:
    address = ADDRESS.format(extension)
    found = detect(client, client.get(address).content)
    assert found == {
        "synthetic": True,
        "by": "pixels",
        "address": address,
        "max_difference": 0,
        "mean_difference": 0.0,
        "detail": "It is the image at this address.",
    }


def test_jpeg_and_copies_are_told_by_their_distance(client: httpx.Client) -> None:
    original = client.get(ADDRESS.format("png")).content
    copies = [
        client.get(ADDRESS.format("jpeg")).content,
        saved(original, "JPEG", quality=50),
        saved(original, "PNG", size=(128, 128)),
        saved(original, "WEBP", size=(40, 40)),
    ]
    for copy in copies:
        found = detect(client, copy)
        assert (found["synthetic"], found["by"]) == (True, "pixels")
        assert 0 < found["mean_difference"] < 16 <= found["max_difference"]


def test_another_image_under_a_forged_mark(client: httpx.Client) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = detect(client, images.encode(noise, "png", ADDRESS.format("png")))
    assert (found["by"], found["max_difference"] > 100) == ("metadata", True)
    assert found["detail"] == "It is not the image at this address."


@pytest.mark.parametrize(
    "address",
    [
        "/images/no-such-model/1/3/0.png",
        "/images/anime-faces/77/3/0.png",
        "/images/anime-faces/2/3/0.png?label=purple+feet",
        "/images/anime-faces/2/3/0.png?truncation=7",
        f"/images/anime-faces/2/{'9' * 400}/0.png",
        None,
    ],
)
def test_mark_of_an_image_that_cannot_be_made_here(client: httpx.Client, address: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = detect(client, images.encode(noise, "png", address))
    assert (found["synthetic"], found["by"], found["address"]) == (True, "metadata", address)
    assert found["max_difference"] is None


def test_sheets_and_films_have_marks(client: httpx.Client) -> None:
    sheet = client.post("/generate?format=png", json={"n": 4, "seed": 3, "model": "digits"})
    ends = {"from": {"seed": 1}, "to": {"seed": 2}, "steps": 3}
    films = [client.post(f"/interpolate?format={f}", json=ends) for f in ("gif", "webp")]
    for answer in (sheet, *films):
        found = detect(client, answer.content)
        assert (found["synthetic"], found["by"]) == (True, "metadata")
        assert found["address"].startswith("/images/")


def test_no_mark_is_said_to_be_no_proof(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    found = detect(client, buffer.getvalue())
    assert (found["synthetic"], found["by"], found["address"]) == (False, None, None)
    assert "does not prove" in found["detail"]


def test_image_in_a_form(client: httpx.Client) -> None:
    content = client.get(ADDRESS.format("png")).content
    answer = client.post("/detect", files={"image": ("face.png", content)})
    assert answer.json()["by"] == "pixels"
    wrong = client.post("/detect", files={"picture": ("face.png", content)})
    assert (wrong.status_code, "image" in wrong.json()["detail"]) == (422, True)
    broken = client.post(
        "/detect", content=content, headers={"Content-Type": "multipart/form-data"}
    )
    assert broken.status_code == 422


def bomb(side: int) -> bytes:
    """PNG file of a few kilobytes that claims to have ``side`` times ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    text = b"Address\0" + ADDRESS.format("png").encode()
    pixels = zlib.compress(bytes(1 << 20), 9)
    parts = (chunk(b"IHDR", head), chunk(b"tEXt", text), chunk(b"IDAT", pixels))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no image"),
        (b"not an image", "no image"),
        (b"\x89PNG\r\n\x1a\n", "no image"),
        (bomb(60_000), "too large"),
        (bomb(4_000), "damaged"),
    ],
    ids=["empty", "text", "only a signature", "bomb", "truncated pixels"],
)
def test_what_is_no_image_is_rejected(client: httpx.Client, content: bytes, words: str) -> None:
    answer = client.post("/detect", content=content)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text


def test_damaged_images_never_fail_the_service(client: httpx.Client) -> None:
    draw = random.Random(0)
    for extension in EXTENSIONS:
        content = client.get(ADDRESS.format(extension)).content
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(draw.randrange(1, 8)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            end = draw.randrange(len(damaged))
            answer = client.post("/detect", content=bytes(damaged[: max(end, 20)]))
            assert answer.status_code in (200, 422), answer.text


def test_body_is_bounded(client: httpx.Client) -> None:
    answer = client.post("/detect", content=bytes(17 << 20))
    assert answer.status_code == 413
