"""Python client: images as arrays, with labels, from a running service.

from service.client import Figment

images, labels = Figment("http://localhost:8000").generate(16, label="red eyes", seed=3)
"""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.client.http import HttpClient
from service.client.stream import ImageStream, request_of
from service.core.image_request import ImageRequest
from service.datasets.progress import Progress
from service.errors import ClientError
from service.formats.records import ImageRecord

Labels = dict[str, Any] | None
"""One value for each attribute; None for an unconditional model."""
Label = str | Mapping[str, str | int | bool]
"""A phrase such as ``"red eyes"``, or a mapping such as ``{"eyes": "red"}``."""
Point = Mapping[str, Any]
"""One image of a seed: ``{"seed": 1, "index": 0, "label": "red eyes", "truncation": 1}``."""


@dataclass(frozen=True)
class Sample:
    """One image. Unpacks into the image and its labels."""

    image: npt.NDArray[np.uint8]
    """``[H, W, channels]``."""
    labels: Labels
    index: int
    url: str
    """Permanent address, relative to the URL of the service."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.image, self.labels))


@dataclass(frozen=True)
class Batch:
    """Several images. Unpacks into the images and their labels."""

    images: npt.NDArray[np.uint8]
    """``[N, H, W, channels]``."""
    labels: list[Labels]
    urls: list[str | None]
    """Permanent addresses, relative to the URL of the service; None within an interpolation."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.images, self.labels))


class RequestFields(TypedDict, total=False):
    """Optional fields of ``POST /generate`` besides ``n``."""

    label: Label | Sequence[Label] | None
    seed: int | None
    offset: int
    model: str | None
    version: int | str | None
    truncation: float
    verify: float | None


class Figment:
    """Client of a running service. Requests are retried while it is busy or unreachable.

    All methods raise ``ClientError``: ``RequestRejected`` with the allowed values, ``Unreachable``
    after ``patience`` seconds, ``ModelChanged`` if the model is replaced during a stream.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 60,
        patience: float = 300,
        api_key: str | None = None,
    ) -> None:
        """``url``: by default the variable FIGMENT_SERVER, or this machine at FIGMENT_PORT or 8000.

        ``timeout``: read timeout in seconds. ``patience``: seconds without an image, at most 4
        until the server has answered once. ``api_key``: by default the variable FIGMENT_API_KEY.
        """
        self._options = {"timeout": timeout, "patience": patience, "api_key": api_key}
        self._server = HttpClient(url, timeout=timeout, patience=patience, api_key=api_key)

    def __reduce__(self) -> Any:  # for data loaders that send it to other processes
        return _copy, (self._server.url, self._options, self._server.has_answered)

    def generate(self, n: int | Sequence[int] = 1, **fields: Unpack[RequestFields]) -> Batch:
        """Images held in memory; ``fields`` are those of ``POST /generate``.

        n: number of images; or, with a list of labels, the number for each.
        """
        samples = list(self.stream(n, **fields))
        return Batch(
            np.stack([sample.image for sample in samples]),
            [sample.labels for sample in samples],
            [sample.url for sample in samples],
        )

    def stream(
        self, n: int | Sequence[int], **fields: Unpack[RequestFields]
    ) -> Generator[Sample, None, None]:
        """Images one by one, in any number; reconnects and resumes after a disconnect."""
        request = request_of(ImageRequest, n=n, **fields)
        for record, _ in ImageStream(self._server, request, Progress(request)):
            yield Sample(pixels(record), record.labels, record.index, record.url)

    def interpolate(
        self,
        start: Point,
        end: Point,
        steps: int = 16,
        *,
        method: str = "slerp",
        loop: bool = False,
        model: str | None = None,
        version: int | None = None,
    ) -> Batch:
        """Interpolation between two images: see ``POST /interpolate``."""
        body = {"from": start, "to": end, "steps": steps, "method": method, "loop": loop}
        return self._batch("/interpolate", body, model, version)

    def variations(
        self,
        of: Point,
        n: int = 16,
        *,
        strength: float = 0.2,
        seed: int | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Batch:
        """Images near a given one: see ``POST /variations``."""
        body = {"of": of, "n": n, "strength": strength}
        if seed is not None:
            body["seed"] = seed
        return self._batch("/variations", body, model, version)

    def labels(self, model: str, version: int | None = None) -> dict[str, list[str]]:
        """Attributes of a model, each with the label phrases that requests may use."""
        query = "" if version is None else f"?version={version}"
        answer = self._server.json(f"/models/{model}/labels{query}")
        return {attribute["name"]: attribute["labels"] for attribute in answer["attributes"]}

    def _batch(
        self, path: str, body: dict[str, Any], model: str | None, version: int | None
    ) -> Batch:
        chosen = {"model": model, "version": version}
        body = body | {name: value for name, value in chosen.items() if value is not None}
        rows = self._server.json(path, body)["images"]
        return Batch(
            np.stack([_decode(base64.b64decode(row["data"])) for row in rows]),
            [row["labels"] for row in rows],
            [row["url"] for row in rows],
        )


def pixels(record: ImageRecord) -> npt.NDArray[np.uint8]:
    """Pixels of a record, ``uint8 [H, W, channels]``. Raises ``ClientError``."""
    return _decode(record.image)


def _decode(file: bytes) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(file)) as image:
            found = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ClientError(f"the server sent an image that cannot be read: {error}") from error
    return found if found.ndim == 3 else found[..., None]


def _copy(url: str, options: Mapping[str, Any], has_answered: bool) -> Figment:
    copied = Figment(url, **options)
    copied._server.has_answered = has_answered
    return copied
