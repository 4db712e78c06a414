"""Resumable stream of the images of a request, over as many connections as needed.

The server sends a WebDataset stream, in which each image is whole and has its address. After a
disconnect the next request starts at the index after the last received image, so the images are
those of an uninterrupted stream.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from service.client.http import HttpClient, RetryBudget, RetryLater, describe_error
from service.core.image_request import ImageRequest, explain
from service.datasets.manifest import ModelIdentity
from service.datasets.progress import MAX_IMAGES_PER_REQUEST, Progress
from service.errors import ClientError, InvalidRequest, ModelChanged, RequestRejected, UnknownModel
from service.formats.records import PNG_END, PNG_SIGNATURE, ImageRecord
from service.formats.registry import MEDIA_TYPES
from service.formats.webdataset import samples

PNG_START = PNG_SIGNATURE + b"\0\0\0\rIHDR"
PNG_HEAD = len(PNG_START) + 13
"""Bytes of the signature and the IHDR chunk: size and colour type."""


Asked = TypeVar("Asked", bound=ImageRequest)


def request_of(kind: type[Asked], **fields: Any) -> Asked:
    """Request from Python values: NumPy integers, tuples and mappings are accepted.

    Raises ``RequestRejected`` with the problem that the server would answer.
    """
    try:
        request = kind(**{name: _plain(value) for name, value in fields.items()})
        request.check_fields_agree()
    except ValidationError as error:
        raise RequestRejected(explain(error.errors()).problem()) from error
    except InvalidRequest as error:
        raise RequestRejected(error.problem()) from error
    return request


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool | float):
        return value
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    return operator.index(value) if hasattr(value, "__index__") else value


class ImageStream:
    """Iterator over the missing images: each record, and its bytes in a tar file.

    Raises ``ClientError``; ``progress`` then counts the received images.
    """

    def __init__(
        self,
        server: HttpClient,
        request: ImageRequest,
        progress: Progress,
        origin: ModelIdentity | None = None,
    ) -> None:
        """``origin``: identity of the images received earlier.

        Raises ``ClientError`` for more images than a server sends.
        """
        if request.may_skip and request.count > MAX_IMAGES_PER_REQUEST:
            raise ClientError(
                f"n: at most {MAX_IMAGES_PER_REQUEST:,} images of one seed can be verified, or "
                "counted for each label; fetch the rest from another seed"
            )
        self.origin = origin
        self.software: list[str] = []
        """Software that computed the images; several if the server was upgraded meanwhile."""
        self.progress = progress
        self._server = server
        self._request = request
        self._first: ImageRecord | None = None
        """First image, which the others must resemble."""

    def __iter__(self) -> Iterator[tuple[ImageRecord, bytes]]:
        budget = RetryBudget(self._server)
        while any(self.progress.missing):
            remaining = self.progress.remaining()
            try:
                with self._open(remaining) as answer:
                    for record, content in samples(answer.read):
                        # After the first sample: truncated headers look complete without a body.
                        self._check(answer.headers)
                        self._check_record(record)
                        self.progress.add(record.index)
                        budget.renew()
                        yield record, content
                if self.progress.next == remaining["offset"]:
                    raise ClientError("the server sent no images")
            except RetryLater as error:
                budget.wait(str(error), error.seconds)
            except (HTTPError, EOFError) as error:
                budget.wait(describe_error(error))
            except ValueError as error:
                raise ClientError(f"the server sent an invalid set of images: {error}") from error

    def _open(self, remaining: dict[str, Any]) -> Any:
        body = self._request.model_dump(include={*ImageRequest.model_fields}, exclude_none=True)
        if self.origin is not None:
            body |= {name: getattr(self.origin, name) for name in ("model", "version", "seed")}
        try:
            return self._server.request("/generate", body | remaining, MEDIA_TYPES["webdataset"])
        except RequestRejected as error:
            if self.origin is not None and error.problem.get("type") == UnknownModel.kind():
                raise ModelChanged(f"the server's models have changed: {error}") from error
            raise

    def _check(self, headers: Mapping[str, str]) -> None:
        """Raise ``ModelChanged`` if the images come from another model than the first."""
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
            raise ValueError(f"header {error} is missing") from error
        self.origin = self.origin or found
        if changes := self.origin.differences(found):
            raise ModelChanged(f"the server's model has changed: {'; '.join(changes)}")
        if software not in self.software:
            if self.software:
                self._server.on_message(
                    f"the server's software has changed from {self.software[-1]} to {software}: "
                    "its images may differ in their last bits"
                )
            self.software.append(software)

    def _check_record(self, record: ImageRecord) -> None:
        """Raise ``ValueError`` for an unexpected record: file names and tables are made from it."""
        assert self.origin is not None
        origin = self.origin.model, self.origin.version, self.origin.seed
        if (record.model, record.version, record.seed) != origin:
            raise ValueError(f"an image is of {record.model!r}, not of {self.origin.model!r}")
        self._first = self._first or record
        if (record.labels or {}).keys() != (self._first.labels or {}).keys():
            raise ValueError(f"image {record.index} has other attributes than the first")
        alike = record.image[:PNG_HEAD] == self._first.image[:PNG_HEAD]
        if not (alike and record.image.startswith(PNG_START) and record.image.endswith(PNG_END)):
            raise ValueError(f"image {record.index} is not a PNG file like the first")
