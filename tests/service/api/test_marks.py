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
import psutil
import pytest
from PIL import Image, PngImagePlugin

from service.formats import images
from tests.helpers.server import Server

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


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("address", [ADDRESS, "/images/digits/1/3/0.{}"])
def test_unchanged_image_is_made_again_exactly(
    client: httpx.Client, address: str, extension: str
) -> None:
    address = address.format(extension)
    found = detect(client, client.get(address).content)
    assert found == {
        "synthetic": True,
        "by": "pixels",
        "address": address,
        "max_difference": 0,
        "smoothed_difference": 0,
        "relative_difference": 0,
        "detail": "It is the image at this address.",
    }


def test_near_copies_are_told_from_the_image_itself(client: httpx.Client) -> None:
    original = client.get(ADDRESS.format("png")).content
    copies = [
        saved(original, "JPEG", quality=90),
        saved(original, "PNG", size=(128, 128)),
        saved(original, "WEBP", quality=75),
        saved(original, "PNG", size=(1500, 1500)),
    ]
    for copy in copies:
        found = detect(client, copy)
        assert (found["synthetic"], found["by"]) == (True, "pixels"), found
        assert found["max_difference"] > 0
        assert "no proof" in found["detail"]


def with_mark(content: bytes, address: str) -> bytes:
    """The pixels of another file under the mark of ``address``."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return images.encode(pixels.reshape(*pixels.shape[:2], -1), "png", address)


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("/images/digits/1/0/0.png?label=1", "/images/digits/1/0/{}.png?label=1"),
        ("/images/anime-faces/2/3/0.png?label=red+eyes", "/images/anime-faces/2/3/{}.png"),
    ],
)
def test_similar_image_is_no_copy(client: httpx.Client, address: str, other: str) -> None:
    for index in range(1, 25):
        content = client.get(other.format(index)).content
        assert detect(client, with_mark(content, address))["by"] == "metadata"


def test_other_eyes_and_black_are_no_copy(client: httpx.Client) -> None:
    for index in range(8):
        red, blue = (
            f"/images/anime-faces/2/3/{index}.png?label={eyes}+eyes" for eyes in ("red", "blue")
        )
        assert detect(client, with_mark(client.get(blue).content, red))["by"] == "metadata"
    black = images.encode(np.zeros((28, 28, 1), np.uint8), "png", "/images/digits/1/0/0.png")
    assert detect(client, black)["by"] == "metadata"


def test_another_image_under_a_forged_mark(client: httpx.Client) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = detect(client, images.encode(noise, "png", ADDRESS.format("png")))
    assert (found["by"], found["max_difference"] > 100) == ("metadata", True)
    assert found["detail"].startswith("It is not the image at this address")


@pytest.mark.parametrize(
    "text", ["/images/NAME/1/2/3.png", "https://example.com/images/anime-faces/2/3/0.png"]
)
def test_address_without_marker_is_no_mark(client: httpx.Client, text: str) -> None:
    for marker in ("", " synthetic"):
        buffer = io.BytesIO()
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Comment", text + marker)
        Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
        assert detect(client, buffer.getvalue())["synthetic"] is False


def test_address_of_another_host_is_left_out(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Source", "synthetic")
    chunks.add_text("Comment", "https://example.com/images/anime-faces/2/3/0.png")
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
    found = detect(client, buffer.getvalue())
    assert (found["by"], found["address"]) == ("metadata", None)


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
    form = {"image": ("face.png", content)}
    wrong: list[dict[str, Any]] = [
        {"files": {"picture": ("face.png", content)}},
        {"files": form, "data": {"x": "1"}},
        {"files": {"image": (None, "text")}},
        {"files": [("image", ("face.png", content))] * 2},
        {"content": content, "headers": {"Content-Type": "multipart/form-data"}},
    ]
    for options in wrong:
        answer = client.post("/detect", **options)
        assert answer.status_code == 422
        assert "one file, in the field `image`, and no other" in answer.json()["detail"]


def texts(count: int, characters: int) -> bytes:
    """PNG file with much text in a few kilobytes."""
    buffer = io.BytesIO()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Source", "synthetic")
    for number in range(count):
        chunks.add_text(f"Comment {number}", "&a" * (characters // 2), zip=True)
    Image.new("L", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def cut(format_: str) -> bytes:
    """First half of an image file without a mark."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format_)
    return buffer.getvalue()[: buffer.tell() // 2]


def scans(count: int, format_: str = "JPEG") -> bytes:
    """Progressive JPEG file of a few kilobytes that draws its last scan ``count`` more times."""
    buffer = io.BytesIO()
    image = Image.new("L", (2048, 2048))
    more = {"save_all": True, "append_images": [image.resize((8, 8))]} if format_ == "MPO" else {}
    image.save(buffer, format_, progressive=True, **more)
    content = buffer.getvalue()
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * count + content[-2:]


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
        pytest.param(b"", "not a readable image", id="empty"),
        pytest.param(b"not an image", "not a readable image", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "not a readable image", id="signature"),
        pytest.param(bomb(60_000), "too large", id="bomb"),
        pytest.param(bomb(2_050), "too large", id="large"),
        pytest.param(bomb(2_000), "damaged", id="truncated pixels"),
        pytest.param(texts(1, 2_000_000), "1 MiB", id="long text"),
        pytest.param(scans(1_500), "at most 100", id="scans"),
        pytest.param(scans(1_500, "MPO"), "at most 100", id="scans of a multi-picture file"),
        *(pytest.param(cut(kind), "image", id=kind) for kind in ("PNG", "WEBP", "JPEG", "GIF")),
    ],
)
def test_what_is_no_image_is_rejected(client: httpx.Client, content: bytes, words: str) -> None:
    answer = client.post("/detect", content=content)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text


@pytest.mark.parametrize(
    "content",
    [scans(98), texts(60, 1 << 20), b"\xff\xd8" + b"\xff" * ((2 << 20) - 2)],
    ids=["scans", "texts", "markers"],
)
def test_hostile_image_takes_little_time(server: Server, content: bytes) -> None:
    def used() -> float:
        times = psutil.Process(server.process.pid).cpu_times()
        return times.user + times.system

    before = used()
    assert server.client.post("/detect", content=content).status_code in (200, 422)
    assert used() - before < 4  # seconds, on a slow machine


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
    answer = client.post("/detect", content=bytes((2 << 20) + 1))
    assert answer.status_code == 413
