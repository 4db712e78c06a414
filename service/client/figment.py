"""Images for Python programs: arrays and labels from a running service.

from service.client import Figment

images, labels = Figment("http://localhost:8000").generate(16, label="red eyes", seed=3)
"""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.client.http import HttpClient
from service.client.stream import ImageStream
from service.datasets.request import ImageRequest, Label, Progress
from service.errors import ClientError
from service.formats.records import ImageRecord

Labels = dict[str, Any] | None
"""A value for each attribute; None for an unconditional model."""
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
    """Its permanent address, below the service's."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.image, self.labels))


@dataclass(frozen=True)
class Batch:
    """Several images. Unpacks into the images and their labels."""

    images: npt.NDArray[np.uint8]
    """``[N, H, W, channels]``."""
    labels: list[Labels]
    urls: list[str | None]
    """Permanent addresses, below the service's; None between those of an interpolation."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.images, self.labels))


class Figment:
    """A running service. Every request is tried again while the service is busy or away.

    All methods raise ``ClientError``: ``RequestRejected``, with what would have been right,
    ``Unreachable`` when ``patience`` is at its end, ``ModelChanged`` when the service's model is
    exchanged in the middle.
    """

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        timeout: float = 60,
        patience: float = 300,
        api_key: str | None = None,
    ) -> None:
        """``timeout``: seconds without a byte; ``patience``: seconds without an image.

        ``api_key``: left out, what the environment variable FIGMENT_API_KEY holds.
        """
        self._url = url
        self._given = {"timeout": timeout, "patience": patience, "api_key": api_key}
        self._server = HttpClient(url, timeout=timeout, patience=patience, api_key=api_key)

    def __reduce__(self) -> Any:  # for datasets that are handed to other processes
        return partial(Figment, **cast(Any, self._given)), (self._url,)

    def generate(
        self,
        n: int | Sequence[int] = 1,
        *,
        label: Label | Sequence[Label] | None = None,
        seed: int | None = None,
        offset: int = 0,
        model: str | None = None,
        version: int | None = None,
        truncation: float = 1.0,
        verify: float | None = None,
    ) -> Batch:
        """``n`` images, held in memory: see ``POST /generate`` for the arguments."""
        samples = list(
            self.stream(
                n,
                label=label,
                seed=seed,
                offset=offset,
                model=model,
                version=version,
                truncation=truncation,
                verify=verify,
            )
        )
        return Batch(
            np.stack([sample.image for sample in samples]),
            [sample.labels for sample in samples],
            [sample.url for sample in samples],
        )

    def stream(
        self,
        n: int | Sequence[int],
        *,
        label: Label | Sequence[Label] | None = None,
        seed: int | None = None,
        offset: int = 0,
        model: str | None = None,
        version: int | None = None,
        truncation: float = 1.0,
        verify: float | None = None,
    ) -> Generator[Sample, None, None]:
        """The same one by one, as many as one likes; goes on by itself where a stream is cut."""
        order = ImageRequest(n, label, seed, offset, model, version, truncation, verify)
        for record, _ in ImageStream(self._server, order, Progress(order)):
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
        """The way from one image to another: see ``POST /interpolate``."""
        way = {"from": start, "to": end, "steps": steps, "method": method, "loop": loop}
        return self._batch("/interpolate", way, model, version)

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
        """Neighbours of one image: see ``POST /variations``."""
        around = {"of": of, "n": n, "strength": strength}
        if seed is not None:
            around["seed"] = seed
        return self._batch("/variations", around, model, version)

    def labels(self, model: str, version: int | None = None) -> dict[str, list[str]]:
        """The attributes of a model, and the phrases that can be asked for."""
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
    """The image of a record, ``[H, W, channels]``. Raises ``ClientError``."""
    return _decode(record.image)


def _decode(file: bytes) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(file)) as image:
            found = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ClientError(f"the server sent an image that cannot be read: {error}") from error
    return found if found.ndim == 3 else found[..., None]
