"""Errors of the service, and their HTTP status, title and headers.

FigmentError
├── StartupError                    the process exits with this message
├── InvalidModel                    one model file is not served; the others are
├── InvalidAlias                    aliases cannot be read or set
├── ClientError                     the client cannot continue
│   ├── RequestRejected             the server rejects the request
│   ├── Unreachable                 no answer, or busy, for longer than the retry budget
│   ├── ModelChanged                the server's model is not that of the first images
│   └── FetchFailed                 the folder cannot hold this set
├── DatasetError                    a set cannot be built as planned
└── RequestError                    application/problem+json (RFC 9457)
    ├── MalformedRequest            400, not HTTP/1.1
    ├── MalformedJson               400
    ├── Unauthorized                401
    ├── CrossSite                   403
    ├── UnknownModel                404
    ├── NotAcceptable               406
    ├── RequestTimeout              408
    ├── ReloadUnsupported           409, on a cluster, where replicas reload in another way
    ├── BodyTooLarge                413
    ├── BodyEncoded                 415
    ├── MisdirectedRequest          421
    ├── InvalidRequest              422
    │   ├── InvalidLabel            422, with the closest matches
    │   └── LabelNotVerified        422, with the images found
    ├── TooManyRequests             429, with Retry-After
    │   ├── QueueFull               too many images are queued
    │   ├── RateExceeded            rate limit of one API key
    │   └── TooManyStreams
    ├── ClientDisconnected          499, never sent
    ├── InferenceFailed             500
    ├── OutOfMemory                 503
    ├── NotReady                    503
    │   └── InsufficientStorage     no space for temporary files
    └── DeadlineExceeded            504
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

KIND = "urn:figment:"
"""Prefix of the ``type`` of every problem."""


class FigmentError(Exception):
    """Base of all errors that are shown as a sentence, never as a traceback."""


class StartupError(FigmentError):
    """The service cannot start with these settings."""


class InvalidModel(FigmentError):
    """A model file is malformed, unsafe or inconsistent."""


class InvalidAlias(FigmentError):
    """Aliases of a model's versions cannot be read or set."""


class ClientError(FigmentError):
    """The client cannot continue. Images received so far are kept."""


class RequestRejected(ClientError):
    """The server rejects the request. ``problem`` is its answer (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem))
        self.problem = problem


class Unreachable(ClientError):
    """The server is unreachable, failing or busy for longer than the retry budget."""


class ModelChanged(ClientError):
    """The server's model differs from the one that made the first images."""


class FetchFailed(ClientError):
    """The folder cannot hold this set."""


class DatasetError(FigmentError):
    """A set cannot be built from model files. Finished files are kept."""


class RequestError(FigmentError):
    """Base of all errors with an HTTP status.

    ``extra``: further members of the problem, such as the values that are allowed.
    """

    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.extra = extra

    @classmethod
    def kind(cls) -> str:
        """``type`` of the problem, a URN."""
        return urn_of(cls.title)

    @classmethod
    def reason(cls) -> str:
        """Value of the ``reason`` label in metrics: the URN without its prefix."""
        return cls.kind().removeprefix(KIND)

    def problem(self) -> dict[str, Any]:
        """Body of the answer, an RFC 9457 problem."""
        return problem(self.status, self.title, str(self), **self.extra)

    def headers(self) -> dict[str, str]:
        """Additional headers of the answer."""
        return {}


class MalformedRequest(RequestError):
    status = 400
    title = "Malformed request"


class MalformedJson(RequestError):
    status = 400
    title = "Malformed JSON"


class Unauthorized(RequestError):
    status = 401
    title = "No valid API key"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="figment"'}


class CrossSite(RequestError):
    status = 403
    title = "Cross-site request"


class UnknownModel(RequestError):
    status = 404
    title = "Unknown model or version"


class NoReport(RequestError):
    status = 404
    title = "No report"


class NotAcceptable(RequestError):
    status = 406
    title = "Format not available"


class RequestTimeout(RequestError):
    status = 408
    title = "Request not complete in time"


class ReloadUnsupported(RequestError):
    status = 409
    title = "One of many replicas"


class MisdirectedRequest(RequestError):
    status = 421
    title = "Not asked by its own name"


class BodyTooLarge(RequestError):
    status = 413
    title = "Body too large"


class BodyEncoded(RequestError):
    status = 415
    title = "Body encoded"

    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "identity"}


Unfit = Literal["Fields disagree", "Answer too large", "Model unfit", "Tensors unfit"]


class InvalidRequest(RequestError):
    """A field does not match the OpenAPI document.

    A request that raises a subclass, or an error with a ``kind``, matches it and is rejected for
    another reason. ``kind`` is the title of the problem.
    """

    status = 422
    title = "Invalid request"

    def __init__(self, detail: str, *, kind: Unfit | None = None, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self._kind = kind or self.title

    def problem(self) -> dict[str, Any]:
        return problem(self.status, self._kind, str(self), **self.extra)


class InvalidLabel(InvalidRequest):
    title = "Unknown or ambiguous label"


class LabelNotVerified(InvalidRequest):
    """The verifier rejected too many images of a label in a row.

    ``found``: addresses of the first of the ``taken`` images.
    """

    title = "Label not seen"

    def __init__(
        self, label: str | None, verify: float | None, tried: int, taken: int, found: list[str]
    ) -> None:
        missing = "the labels that were drawn" if label is None else repr(label)
        super().__init__(
            f"verify: the verifier never saw {missing} with a probability of {verify} or more in "
            f"a long row of images. {taken} images were found among {tried} tried. Use a lower "
            "probability or another label",
            label=label,
            verify=verify,
            tried=tried,
            found=found,
        )


class TooManyRequests(RequestError):
    """Rejected for now: a retry after ``retry_after`` whole seconds may succeed."""

    status = 429

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, retry_after=retry_after)
        self._retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after)}


class QueueFull(TooManyRequests):
    title = "Too many images are waiting"


class RateExceeded(TooManyRequests):
    title = "Too many images for this key"


class TooManyStreams(TooManyRequests):
    title = "Too many sets are being sent"


class ClientDisconnected(RequestError):
    status = 499
    title = "Caller gone"


class InferenceFailed(RequestError):
    status = 500
    title = "Inference failed"


class OutOfMemory(RequestError):
    status = 503
    title = "Not enough memory"


class NotReady(RequestError):
    status = 503
    title = "Not ready"


class InsufficientStorage(NotReady):
    title = "No room for temporary files"


class DeadlineExceeded(RequestError):
    status = 504
    title = "Deadline passed"


def problem(status: int, title: str, detail: str, **extra: Any) -> dict[str, Any]:
    """RFC 9457 problem whose ``type`` is a URN made from ``title``."""
    return {
        "type": urn_of(title),
        "title": title,
        "status": status,
        "detail": detail,
    } | extra


def problem_bytes(body: Mapping[str, Any]) -> bytes:
    """Encode a problem as ASCII JSON.

    A detail may quote half a surrogate pair from a request, which UTF-8 cannot encode.
    """
    return json.dumps(body).encode("ascii")


def urn_of(title: str) -> str:
    """``type`` of a problem with this title."""
    return f"{KIND}{title.lower().replace(' ', '-')}"
