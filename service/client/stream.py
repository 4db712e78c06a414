"""The images of a request, one after another, over as many connections as that takes.

They come as a WebDataset stream, in which each image stands whole with its address. Where the
stream is cut, the next one goes on behind the last image that came, so what comes is what one
stream would have brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from urllib3.exceptions import HTTPError

from service.client.http import HttpClient, RetryBudget, RetryLater, describe_error
from service.datasets.request import MAX_IMAGES_PER_REQUEST, ImageRequest, ModelIdentity, Progress
from service.errors import ClientError, ModelChanged, RequestRejected, UnknownModel
from service.formats.negotiation import MEDIA_TYPES
from service.formats.records import PNG_END, PNG_SIGNATURE, ImageRecord
from service.formats.webdataset import samples

PNG_START = PNG_SIGNATURE + b"\0\0\0\rIHDR"
PNG_HEAD = len(PNG_START) + 13
"""Bytes that tell the size and the kind of the pixels."""


class ImageStream:
    """Iterate over it for the images that are missing, and their bytes in a tar file.

    Raises ``ClientError``; what has come until then is in ``progress``.
    """

    def __init__(
        self,
        server: HttpClient,
        order: ImageRequest,
        progress: Progress,
        origin: ModelIdentity | None = None,
    ) -> None:
        """``origin``: of what has come already. Raises ``ClientError`` for what no server sends."""
        if order.leaves_out and sum(order.counts) > MAX_IMAGES_PER_REQUEST:
            raise ClientError(
                f"n: at most {MAX_IMAGES_PER_REQUEST:,} images of one seed can be verified, or "
                "counted for each label; fetch the others from another seed"
            )
        self.origin = origin
        self.software: list[str] = []
        """What made the images: more than one where the server was exchanged for another."""
        self.progress = progress
        self._server = server
        self._order = order
        self._like: ImageRecord | None = None
        """The first image."""

    def __iter__(self) -> Iterator[tuple[ImageRecord, bytes]]:
        patience = RetryBudget(self._server)
        while any(self.progress.missing):
            asked = self.progress.remaining()
            try:
                with self._open(asked) as answer:
                    for record, content in samples(answer.read):
                        # Not before: a head that was cut looks whole, but nothing comes after it.
                        self._check(answer.headers)
                        self._check_record(record)
                        self.progress.take(record.index)
                        patience.renew()
                        yield record, content
                if self.progress.next == asked["offset"]:
                    raise ClientError("the server sent no images")
            except RetryLater as error:
                patience.wait(str(error), error.seconds)
            except (HTTPError, EOFError) as error:
                patience.wait(describe_error(error))
            except ValueError as error:
                raise ClientError(f"the server sent what is no set of images: {error}") from error

    def _open(self, asked: dict[str, Any]) -> Any:
        body = {name: value for name, value in asdict(self._order).items() if value is not None}
        if self.origin is not None:
            body |= {name: getattr(self.origin, name) for name in ("model", "version", "seed")}
        try:
            return self._server.ask("/generate", body | asked, MEDIA_TYPES["webdataset"])
        except RequestRejected as error:
            if self.origin is not None and error.problem.get("type") == UnknownModel.kind():
                raise ModelChanged(f"the server's models have changed: {error}") from error
            raise

    def _check(self, headers: Mapping[str, str]) -> None:
        """Whether images still come from where the others came from."""
        try:
            found = ModelIdentity(
                model=headers["Figment-Model"],
                version=int(headers["Figment-Version"]),
                model_sha256=headers["Figment-Model-Sha256"],
                verifier_sha256=headers.get("Figment-Verifier-Sha256"),
                latent_recipe=int(headers["Figment-Latent-Recipe"]),
                seed=int(headers["Figment-Seed"]),
            )
            software = headers["Figment-Software"]
        except KeyError as error:
            raise ValueError(f"its head lacks {error}") from error
        self.origin = self.origin or found
        if found != self.origin:
            before, now = asdict(self.origin), asdict(found)
            changed = [
                f"{name} is {now[name]}, and was {before[name]}"
                for name in now
                if now[name] != before[name]
            ]
            raise ModelChanged(f"the server's model has changed: {'; '.join(changed)}")
        if software not in self.software:
            if self.software:
                self._server.tell(
                    f"the server's software has changed from {self.software[-1]} to {software}: "
                    "its images may differ in their last bits"
                )
            self.software.append(software)

    def _check_record(self, record: ImageRecord) -> None:
        """Names of files are made of what a record says, and tables of its labels."""
        assert self.origin is not None
        origin = self.origin.model, self.origin.version, self.origin.seed
        if (record.model, record.version, record.seed) != origin:
            raise ValueError(f"an image is of {record.model!r}, not of {self.origin.model!r}")
        self._like = self._like or record
        if (record.labels or {}).keys() != (self._like.labels or {}).keys():
            raise ValueError(f"image {record.index} has other attributes than the first")
        alike = record.image[:PNG_HEAD] == self._like.image[:PNG_HEAD]
        if not (alike and record.image.startswith(PNG_START) and record.image.endswith(PNG_END)):
            raise ValueError(f"image {record.index} is no PNG file like the first")
