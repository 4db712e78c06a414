"""Sets as URLs, and the loaders that read them without a client of ours."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import duckdb_extension_httpfs
import httpx
import numpy as np
import pyarrow.parquet
import pytest

pytestmark = pytest.mark.server

SET = "/sets/anime-faces/2/3"
LABELS = {"label": ["red eyes", "blue eyes"]}
FORMATS = {"tar": "webdataset", "zip": "zip", "parquet": "parquet", "npy": "npy"}


@pytest.mark.parametrize("extension", FORMATS)
def test_bytes_are_those_of_the_post(client: httpx.Client, extension: str) -> None:
    body = {"model": "anime-faces", "version": 2, "seed": 3, "offset": 5, "n": 20} | LABELS
    posted = client.post(f"/generate?format={FORMATS[extension]}", json=body)
    got = client.get(f"{SET}/5-24.{extension}", params=LABELS)
    assert (got.status_code, got.content) == (200, posted.content)
    assert got.headers["content-type"] == posted.headers["content-type"]
    assert got.headers["content-disposition"] == posted.headers["content-disposition"]


@pytest.mark.parametrize(
    ("extension", "query", "fields"),
    [
        ("zip", {"layout": "folders", "by": "eyes"}, {"layout": "folders", "by": "eyes"}),
        (
            *("zip", {"layout": "folders", "by": ["eyes", "hair"], "splits": "train:0.9,val:0.1"}),
            {"layout": "folders", "by": ["eyes", "hair"], "splits": {"train": 0.9, "val": 0.1}},
        ),
        ("zip", {"splits": '{"a": 0.5, "b": 0.5}'}, {"splits": {"a": 0.5, "b": 0.5}}),
        (
            *("tar", {"by": "hair", "splits": "train:0.5,val:0.5"}),
            {"by": "hair", "splits": {"train": 0.5, "val": 0.5}},
        ),
        ("parquet", {"labels": "names"}, {"labels": "names"}),
    ],
)
def test_layouts_are_those_of_the_post(
    client: httpx.Client, extension: str, query: dict[str, Any], fields: dict[str, Any]
) -> None:
    body = {"model": "anime-faces", "version": 2, "seed": 3, "n": 20} | LABELS
    posted = client.post(f"/generate?format={FORMATS[extension]}", json=body | fields)
    plain = client.post(f"/generate?format={FORMATS[extension]}", json=body)
    assert posted.status_code == 200, posted.text
    got = client.get(f"{SET}/0-19.{extension}", params=LABELS | query)
    assert (got.status_code, got.content) == (200, posted.content)
    assert got.content != plain.content
    etag = client.head(f"{SET}/0-19.{extension}", params=LABELS).headers["etag"]
    assert got.headers["etag"] != etag


@pytest.mark.parametrize(
    ("format_", "fields", "words"),
    [
        ("json", {"layout": "folders"}, "it is for zip"),
        ("zip", {"layout": "folders"}, "the model has: hair, eyes"),
        ("zip", {"layout": "tree"}, "layout"),
        ("webdataset", {"by": "nose"}, "the model has: hair, eyes"),
        ("zip", {"splits": {"train": 0.9, "val": 0.2}}, "sum to 1"),
        ("parquet", {"labels": "numbers"}, "'ids' or 'names'"),
    ],
)
def test_layouts_that_do_not_fit(
    client: httpx.Client, format_: str, fields: dict[str, Any], words: str
) -> None:
    answer = client.post(f"/generate?format={format_}", json={"label": "red eyes"} | fields)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("extension", FORMATS)
def test_caching_needs_no_computation(client: httpx.Client, extension: str) -> None:
    url = f"{SET}/0-9999999.{extension}"
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["cache-control"] == "public, max-age=31536000, immutable"
    etag = head.headers["etag"]
    assert etag.startswith('"')
    current = client.get(url, headers={"If-None-Match": etag})
    assert (current.status_code, current.content, current.headers["etag"]) == (304, b"", etag)
    if extension == "npy":
        assert int(head.headers["content-length"]) > 10_000_000 * 64 * 64 * 3
    else:
        assert "content-length" not in head.headers, "the size is not known"


def test_etag_tells_sets_apart(client: httpx.Client) -> None:
    urls = [
        f"{SET}/0-3.tar",
        f"{SET}/0-4.tar",
        f"{SET}/0-3.zip",
        f"{SET}/0-3.tar?label=red+eyes",
        f"{SET}/0-3.tar?label=red+eyes&label=blue+eyes",
        f"{SET}/0-3.tar?label=blue+eyes&label=red+eyes",
        f"{SET}/0-3.tar?truncation=0.5",
        f"{SET}/0-3.tar?by=eyes",
        f"{SET}/0-3.tar?by=eyes&by=hair",
        f"{SET}/0-3.tar?splits=train:0.5,val:0.5",
        "/sets/anime-faces/2/4/0-3.tar",
    ]
    etags = [client.head(url).headers["etag"] for url in urls]
    assert len(set(etags)) == len(urls)
    assert client.get(urls[0]).headers["etag"] == etags[0]
    assert client.head(f"{SET}/0-3.tar?layout=table").headers["etag"] == etags[0]
    assert client.head(f"{SET}/0-3.tar?label=EYES:red").headers["etag"] == etags[3]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"{SET}/9-3.tar", 422, "before the first"),
        (f"{SET}/0-10000000.tar", 422, "at most 10000000"),
        (f"{SET}/00-3.tar", 422, "whole number"),
        (f"{SET}/0-3.rar", 422, "tar"),
        (f"{SET}/0-3.tar?labels=red+eyes", 422, "labels"),
        (f"{SET}/0-3.tar?colour=red", 422, "colour"),
        (f"{SET}/0-3.tar?by=nose", 422, "the model has: hair, eyes"),
        (f"{SET}/0-3.zip?layout=folders", 422, "the model has: hair, eyes"),
        (f"{SET}/0-3.npy?layout=folders&by=eyes", 422, "it is for zip"),
        (f"{SET}/0-3.tar?splits=train:0.9", 422, "sum to 1"),
        (f"{SET}/0-3.tar?splits=train", 422, "sum to 1"),
        (f"{SET}/0-3.tar?splits=a:0.3,a:0.5,b:0.5", 422, "different names"),
        (f'{SET}/0-3.tar?splits={{"a":0.5,"a":0.5,"b":0.5}}', 422, "different names"),
        ("/sets/anime-faces-free/2/3/0-3.zip?layout=folders", 422, "unconditional"),
        (f"{SET}/0-3.tar?truncation=1&truncation=1", 422, "twice"),
        (f"{SET}/0-3.tar?label=purple+feet", 422, "purple feet"),
        ("/sets/anime-faces/77/3/0-3.tar", 404, "77"),
        ("/sets/nobody/2/3/0-3.tar", 404, "nobody"),
    ],
)
def test_invalid_urls(client: httpx.Client, path: str, status: int, words: str) -> None:
    for answer in (client.get(path), client.head(path)):
        assert answer.status_code == status, answer.text
    problem = client.get(path).json()
    assert words in problem["detail"], problem


def test_pandas_and_pyarrow_read_the_url(client: httpx.Client) -> None:
    pandas = pytest.importorskip("pandas")
    url = f"{client.base_url}{SET}/0-9.parquet?label=red+eyes"
    frame = pandas.read_parquet(url)
    table = pyarrow.parquet.read_table(io.BytesIO(client.get(url).content))
    assert len(frame) == table.num_rows == 10
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert {features["eyes"]["names"][each] for each in frame["eyes"]} == {"red"}
    assert set(pandas.read_parquet(f"{url}&labels=names")["eyes"]) == {"red"}


def test_duckdb_reads_the_url(client: httpx.Client) -> None:
    # Installed from PyPI, as DuckDB would download the same file.
    (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
    url = f"{client.base_url}{SET}/0-9.parquet"
    with duckdb.connect() as connection:
        connection.install_extension(str(extension))
        connection.load_extension("httpfs")
        query = f"select count(*), min(seed), min(eyes) from read_parquet('{url}?label=red+eyes')"
        assert connection.sql(query).fetchone() == (10, 3, 8)


def test_numpy_reads_the_url(client: httpx.Client) -> None:
    images = np.load(io.BytesIO(client.get(f"{SET}/0-9.npy").content))
    assert images.shape == (10, 64, 64, 3)


def test_datasets_streams_the_url(client: httpx.Client) -> None:
    datasets = pytest.importorskip("datasets")
    url = f"{client.base_url}{SET}/0-9.tar"
    stream = datasets.load_dataset(
        "webdataset", data_files={"train": [url]}, split="train", streaming=True
    )
    rows = list(stream)
    assert [row["json"]["index"] for row in rows] == [*range(10)]
    assert rows[0]["png"].size == (64, 64)
    assert {*rows[0]} >= {"json", "png", "hair.cls", "eyes.cls"}


def test_webdataset_streams_the_url(client: httpx.Client) -> None:
    webdataset = pytest.importorskip("webdataset")
    url = f"{client.base_url}{SET}/0-9.tar?by=eyes"

    def samples() -> Iterator[dict[str, object]]:
        yield from webdataset.WebDataset(url, shardshuffle=False).decode("rgb8")

    rows = list(samples())
    eyes = client.get("/models/anime-faces/2").json()["manifest"]["attributes"][1]
    labels = [cast(dict[str, Any], row["json"])["labels"]["eyes"] for row in rows]
    assert [row["cls"] for row in rows] == [eyes["values"].index(value) for value in labels]
    assert len(rows) == 10
    assert np.asarray(rows[0]["png"]).shape == (64, 64, 3)
