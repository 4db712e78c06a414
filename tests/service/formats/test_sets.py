"""Sets in the formats that loaders read, read back by what their users read them with."""

from __future__ import annotations

import csv
import gc
import io
import json
import resource
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.formats.layout import Layout
from service.formats.records import ImageRecord, columns, table_header
from service.formats.registry import SUFFIXES, open_writer
from service.formats.webdataset import samples
from service.formats.zip import Zip
from tests.conftest import attribute, manifest
from tests.helpers.onnx_files import model, put
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until

Body = dict[str, Any]

FACES = {"label": ["red eyes", {"eyes": "blue"}], "n": 200, "seed": 3, "offset": 1}
DIGITS = {"model": "digits", "label": "7", "n": 20, "seed": 3}
FREE = {"n": 20, "seed": 3}
FORMATS = sorted(SUFFIXES)
HAIR = Layout({"hair": ["black", "red"]}, by=("hair",))


@dataclass
class Found:
    """One image as a reader returns it."""

    file_name: str
    labels: dict[str, str] | None
    address: str
    pixels: npt.NDArray[np.uint8]
    file: bytes


def fetch(client: httpx.Client, format_: str, body: Body) -> bytes:
    answer = client.post("/generate", params={"format": format_}, json=body)
    assert answer.status_code == 200, answer.text
    return answer.content


def as_found(file_name: str, labels: dict[str, str], address: str, file: bytes) -> Found:
    with Image.open(io.BytesIO(file)) as image:
        return Found(file_name, labels or None, address, np.asarray(image), file)


def from_zip(content: bytes) -> list[Found]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode())))
        assert {row["file_name"] for row in rows} | {"metadata.csv"} == set(archive.namelist())
        return [
            as_found(
                row["file_name"].removeprefix("images/"),
                {k: v for k, v in row.items() if k not in ("file_name", "address")},
                row["address"],
                archive.read(row["file_name"]),
            )
            for row in rows
        ]


def from_webdataset(content: bytes) -> list[Found]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [each for each in archive.getmembers() if not each.name.endswith(".cls")]
        found = []
        for image, description in zip(members[::2], members[1::2], strict=True):
            assert description.name == image.name.removesuffix("png") + "json"
            described, encoded = archive.extractfile(description), archive.extractfile(image)
            assert described is not None and encoded is not None
            about, file = json.loads(described.read()), encoded.read()
            found.append(as_found(image.name, about["labels"], about["url"], file))
        return found


def from_parquet(content: bytes) -> list[Found]:
    ours = ("image", "model", "version", "seed", "index", "address")
    table = pq.read_table(io.BytesIO(content))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    return [
        as_found(
            row["image"]["path"],
            {k: features[k]["names"][v] for k, v in row.items() if k not in ours},
            row["address"],
            row["image"]["bytes"],
        )
        for row in table.to_pylist()
    ]


@pytest.mark.parametrize("body", [FACES, DIGITS, FREE], ids=["faces", "digits", "free"])
def test_formats_agree_with_each_other_and_with_single_images(
    client: httpx.Client, body: Body
) -> None:
    zipped = from_zip(fetch(client, "zip", body))
    tarred = from_webdataset(fetch(client, "webdataset", body))
    tabled = from_parquet(fetch(client, "parquet", body))
    array = np.load(io.BytesIO(fetch(client, "npy", body)))
    small = body | {"n": 20}
    rows = client.post("/generate", json=small).json()["images"]
    assert len(zipped) == len(tarred) == len(tabled) == len(array) == body["n"]
    for i, (one, other, third, pixels) in enumerate(
        zip(zipped, tarred, tabled, array, strict=True)
    ):
        assert one.file_name == other.file_name == third.file_name
        assert one.labels == other.labels == third.labels
        assert one.address == other.address == third.address
        assert one.file == other.file == third.file
        assert np.array_equal(one.pixels.reshape(pixels.shape), pixels)
        if i < len(rows):
            assert (rows[i]["url"], rows[i]["labels"]) == (one.address, one.labels)
    assert len({one.file_name for one in zipped}) == body["n"]
    for one in zipped[:3]:
        assert client.get(one.address).content == one.file


def test_a_cut_set_goes_on_with_offset(client: httpx.Client) -> None:
    whole = from_webdataset(fetch(client, "webdataset", FACES))
    start = from_zip(fetch(client, "zip", FACES | {"n": 117}))
    rest = from_parquet(fetch(client, "parquet", FACES | {"n": 83, "offset": 118}))
    assert [one.file for one in start + rest] == [one.file for one in whole]
    assert [one.address for one in start + rest] == [one.address for one in whole]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_request_gives_the_same_bytes(client: httpx.Client, format_: str) -> None:
    first, second = (fetch(client, format_, FACES) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("format_", "media"),
    [
        ("zip", "application/zip"),
        ("webdataset", "application/x-tar"),
        ("parquet", "application/vnd.apache.parquet"),
        ("npy", "application/x-npy"),
    ],
)
def test_accept_chooses_a_format_and_the_head_says_where_it_comes_from(
    client: httpx.Client, format_: str, media: str
) -> None:
    answer = client.post("/generate/conditional", json=FACES, headers={"Accept": media})
    assert answer.headers["content-type"] == media
    assert answer.content == fetch(client, format_, FACES)
    about = client.get("/models/anime-faces/2").json()
    assert answer.headers["figment-model-sha256"] == about["sha256"]
    assert answer.headers["figment-seed"] == "3"
    suffix = SUFFIXES[format_]
    assert f"anime-faces-2-3-1{suffix}" in answer.headers["content-disposition"]


def test_hugging_face_reads_all_of_them(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets  # takes 1.5 s

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    found = {}
    for kind, format_ in (("imagefolder", "zip"), ("parquet", "parquet"), ("webdataset",) * 2):
        path = tmp_path / f"faces{SUFFIXES[format_]}"
        path.write_bytes(fetch(client, format_, FACES))
        found[format_] = datasets.load_dataset(kind, data_files=str(path), split="train")
        assert found[format_].num_rows == 200
    array = np.load(io.BytesIO(fetch(client, "npy", FACES)))
    for i in (0, 100, 199):
        eyes = ("blue", "red")[i % 2]  # the first index is 1
        assert np.array_equal(np.asarray(found["zip"][i]["image"]), array[i])
        assert np.array_equal(np.asarray(found["parquet"][i]["image"]), array[i])
        assert np.array_equal(np.asarray(found["webdataset"][i]["png"]), array[i])
        assert found["zip"][i]["eyes"] == eyes
        names = found["parquet"].features["eyes"]
        assert names.int2str(found["parquet"][i]["eyes"]) == eyes
        assert found["webdataset"][i]["json"]["labels"]["eyes"] == eyes
        assert found["parquet"][i]["index"] == i + 1


def test_webdataset_feeds_a_data_loader(client: httpx.Client, tmp_path: Path) -> None:
    import torch  # takes 2 s
    import webdataset

    for shard in range(2):
        body = FACES | {"n": 100, "offset": 100 * shard}
        (tmp_path / f"{shard}.tar").write_bytes(fetch(client, "webdataset", body))
    shards = [str(tmp_path / f"{shard}.tar") for shard in range(2)]
    loaded = (
        webdataset.WebDataset(shards, shardshuffle=False)
        .decode("torchrgb8")
        .to_tuple("png", "json")
        .map_tuple(lambda image: image, lambda about: int(about["index"]))
    )
    loader = torch.utils.data.DataLoader(loaded, batch_size=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves files open
        images, indices = zip(*loader, strict=True)
        del loaded, loader
        gc.collect()
    assert torch.cat(indices).tolist() == list(range(200))
    array = np.load(io.BytesIO(fetch(client, "npy", FACES | {"n": 200, "offset": 0})))
    assert np.array_equal(torch.cat(images).permute(0, 2, 3, 1).numpy(), array)


def test_the_trainer_reads_a_zip(client: httpx.Client, tmp_path: Path) -> None:
    from training.data import load

    path = tmp_path / "faces.zip"
    path.write_bytes(fetch(client, "zip", FACES))
    data = load(str(path), attributes=["eyes"])
    assert data.images.shape == (200, 64, 64, 3)
    assert data.attributes[0].values == ("blue", "red")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model whose attributes are called like columns of a table."""
    folder = tmp_path_factory.mktemp("models")
    attributes = (
        attribute("seed", "a", "b"),
        attribute("address", "c, d", 'e"f'),
        attribute("index", "é", "z"),
    )
    put(folder, "tiny", 1, model(manifest(*attributes)))
    with serve("--models", str(folder)) as running:
        yield running


@pytest.mark.server
def test_attributes_may_be_called_like_our_columns(odd: Server) -> None:
    body = {"label": {"seed": "b", "address": 'e"f', "index": "é"}, "n": 3, "seed": 1}
    table = pq.read_table(io.BytesIO(fetch(odd.client, "parquet", body)))
    row = table.to_pylist()[2]
    assert (row["seed_"], row["address_"], row["index_"]) == (1, 1, 0)
    assert (row["seed"], row["index"]) == (1, 2)
    content = fetch(odd.client, "zip", body)
    (first, *_) = from_zip(content)
    assert first.labels == {"seed": "b", "address_": 'e"f', "index": "é"}
    (first, *_) = from_webdataset(fetch(odd.client, "webdataset", body))
    assert first.labels == {"seed": "b", "address": 'e"f', "index": "é"}


def test_columns_are_unique() -> None:
    assert columns(["a", "file_name", "file_name_"], ("file_name",)) == [
        "a",
        "file_name_",
        "file_name__",
    ]
    assert table_header(["address"]) == b"file_name,address_,address\n"


def records(count: int, image: bytes = b"png") -> Iterator[ImageRecord]:
    for index in range(count):
        yield ImageRecord("m", 1, 3, index, {"hair": "red"}, f"/images/m/1/3/{index}.png", image)


def test_a_zip_of_more_files_than_16_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    packing = Zip(HAIR)
    with path.open("wb") as file:
        for record in records(66_000):
            file.write(packing.add([record]))
        file.writelines(packing.end())
    packing.close()
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 66_001
        assert archive.read("images/m-1-3-00065999.png") == b"png"
        assert archive.read("metadata.csv").count(b"\n") == 66_001


def test_a_zip_whose_table_is_larger_than_32_bits_count() -> None:
    packing = Zip(HAIR)
    local = packing._enter("metadata.csv", 0, 5 << 30)
    size, stored = struct.unpack("<QQ", local[-16:])
    assert size == stored == 5 << 30
    packing.close()


def test_long_names_come_through(tmp_path: Path) -> None:
    long = ImageRecord("m" * 64, 999_999_999, 2**53 - 1, 10**15, None, "/", b"png")
    packing = open_writer("webdataset", Layout({}), (1, 1, 1, 1))
    whole = packing.add([long]) + b"".join(packing.end())
    assert [record for record, _ in samples(io.BytesIO(whole).read)] == [long]
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert archive.getnames() == [long.file_name, f"{long.key}.json"]


def test_a_zip_of_more_bytes_than_32_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    packing = Zip(HAIR)
    first, second = records(2)
    with path.open("wb") as file:
        file.write(packing.add([first]))
        # A hole instead of the images between, which takes no room on the disk.
        packing._position += 1 << 32
        file.seek(1 << 32, io.SEEK_CUR)
        file.write(packing.add([second]))
        file.writelines(packing.end())
    packing.close()
    assert path.stat().st_size > 1 << 32
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("images/m-1-3-00000001.png").header_offset > 1 << 32
        assert archive.read("images/m-1-3-00000001.png") == b"png"
        assert archive.read("metadata.csv").count(b"\n") == 3


def packed(format_: str, count: int) -> bytes:
    packing = open_writer(format_, HAIR, (count, 1, 1, 1))
    whole = packing.add(list(records(count))) + b"".join(packing.end())
    packing.close()
    return whole


@pytest.mark.parametrize(
    ("format_", "read", "error"),
    [
        ("zip", zipfile.ZipFile, zipfile.BadZipFile),
        ("parquet", pq.ParquetFile, pa.ArrowInvalid),
        ("webdataset", lambda file: list(samples(file.read)), EOFError),
    ],
)
def test_a_file_that_was_cut_is_seen_to_be(
    format_: str, read: Callable[[IO[bytes]], Any], error: type[Exception]
) -> None:
    whole = packed(format_, 2000)
    read(io.BytesIO(whole))
    for size in (len(whole) // 2, len(whole) - 1600):
        with pytest.raises(error):
            read(io.BytesIO(whole[:size]))


def test_a_tar_file_of_others_is_told_from_ours() -> None:
    for content in (b"x" * 4096, packed("webdataset", 3).replace(b'"url"', b'"uri"')):
        with pytest.raises(ValueError):
            list(samples(io.BytesIO(content).read))


@pytest.mark.server
def test_a_server_holds_little_of_a_set(odd: Server) -> None:
    """Whatever its length: the standard library's writer of zips would add 20 MB here."""
    process = psutil.Process(odd.process.pid)
    body = {"n": 40_000, "seed": 1}
    resident = []
    with odd.client.stream("POST", "/generate?format=zip", json=body) as answer:
        for size, _ in enumerate(answer.iter_bytes(1 << 20)):
            if size % 3 == 2:
                resident.append(process.memory_info().rss)
    assert len(resident) > 4
    assert max(resident) - resident[0] < 10 << 20


@pytest.mark.server
@pytest.mark.parametrize("format_", FORMATS)
def test_readers_who_leave_leave_nothing_behind(odd: Server, format_: str) -> None:
    process = psutil.Process(odd.process.pid)
    fetch(odd.client, format_, {"n": 10, "seed": 1})  # what is loaded at the first one
    before = process.num_fds()
    for _ in range(10):
        body = {"n": 1_000_000, "seed": 1}
        with odd.client.stream("POST", f"/generate?format={format_}", json=body) as answer:
            next(answer.iter_raw())
    wait_until(lambda: odd.client.get("/info").json()["admitted_images"] == 0)
    wait_until(lambda: process.num_fds() <= before)


@pytest.mark.server
def test_a_set_that_fails_half_way_is_cut_and_counted(tmp_path: Path) -> None:
    """Its status was 200: nothing else would tell."""
    put(tmp_path, "tiny", 1, model(manifest()))
    with serve("--models", str(tmp_path)) as server:
        # Its temporary files may not grow, as if the disk were full.
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(httpx.RemoteProtocolError):
            server.client.post("/generate?format=zip", json={"n": 2000})
        told = server.client.get("/metrics").text
        reason = "no-room-for-temporary-files"
        assert f'figment_streams_cut_total{{reason="{reason}"}} 1.0' in told
        assert any("aborted a stream: the temporary files" in line for line in server.log)
