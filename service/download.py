"""The images of a request, one after another, over as many connections as that takes.

They come as a WebDataset stream, in which each image stands whole with its address. Where the
stream is cut, the next one goes on behind the last image that came, so what comes is what one
stream would have brought.
"""

from __future__ import annotations

import json
import operator
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, LocationValueError, ReadTimeoutError

from service.errors import (
    ClientError,
    LabelNotSeen,
    OriginChanged,
    Refused,
    UnknownModel,
    Unreachable,
)
from service.formats.negotiation import MEDIA_TYPES
from service.formats.png import END, SIGNATURE
from service.formats.sets import Record
from service.formats.webdataset import samples
from service.manifest import NAME_PATTERN
from service.search import PATIENCE, quotas

MOST_AT_ONCE = 10_000_000
"""Images that a server puts into one set."""
CONNECT_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds between requests that fail, where the server does not say; doubled each time."""
PASSING = (429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed later."""

PNG_START = SIGNATURE + b"\0\0\0\rIHDR"
PNG_HEAD = len(PNG_START) + 13
"""Bytes that tell the size and the kind of the pixels."""

Label = str | Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Order:
    """Which images are asked for; see ``POST /generate``. Raises ``ClientError`` if it is none."""

    n: int | Sequence[int] = 1
    label: Label | Sequence[Label] | None = None
    seed: int | None = None
    offset: int = 0
    model: str | None = None
    version: int | None = None
    truncation: float = 1.0
    verify: float | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ClientError("label should hold one label at least, or be left out")
        if sum(self.counts) < 1:
            raise ClientError("n should ask for one image at least")
        if self.leaves_out and sum(self.counts) > MOST_AT_ONCE:
            raise ClientError(
                f"n: at most {MOST_AT_ONCE:,} images of one seed can be verified, or counted for "
                "each label; fetch the others from another seed"
            )

    @property
    def labels(self) -> list[Label | None]:
        """The entries that images take in turn."""
        if isinstance(self.label, Sequence) and not isinstance(self.label, str):
            return list(self.label)
        return [self.label]

    @property
    def counts(self) -> list[int]:
        """Images of each entry."""
        if isinstance(self.n, Sequence):
            return list(self.n)
        return quotas(operator.index(self.n), self.offset, len(self.labels))

    @property
    def leaves_out(self) -> bool:
        """Whether some indices may be left out."""
        return self.verify is not None or isinstance(self.n, Sequence)


@dataclass(frozen=True)
class Origin:
    """Where images come from. Raises ``ValueError`` for a name that no model has."""

    model: str
    version: int
    model_sha256: str
    verifier_sha256: str | None
    """Of the verifier, where it has a say in which images are taken."""
    latent_recipe: int
    seed: int

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.model):
            raise ValueError(f"{self.model!r} is no name of a model")


class Progress:
    """What of an order has come."""

    def __init__(self, order: Order) -> None:
        self.missing = list(order.counts)
        """Images of each entry."""
        self.tried = [0] * len(self.missing)
        """Images of each entry up to the last that came, those that were left out among them."""
        self.next = order.offset
        self._order = order

    def take(self, index: int) -> None:
        """Raises ``ClientError`` for an image that does not come next.

        Raises ``Refused`` where the server would have, had it not been asked anew in between.
        """
        entry = index % len(self.missing)
        gap = index - self.next
        if gap < 0 or (gap and not self._order.leaves_out) or not self.missing[entry]:
            raise ClientError(f"the server sent image {index} where {self.next} was next")
        if self._order.verify is not None:
            self._give_up_in_time(index)
        self.missing[entry] -= 1
        self.tried[entry] = self._up_to(index, entry) + 1
        self.next = index + 1

    def remaining(self) -> dict[str, Any]:
        """``n`` and ``offset`` of a request for what is missing."""
        n = self.missing if self._order.leaves_out else min(sum(self.missing), MOST_AT_ONCE)
        return {"n": n, "offset": self.next}

    def _up_to(self, index: int, entry: int) -> int:
        """How many images of an entry there are before ``index``."""
        return len(range(self._first(entry), index, len(self.missing)))

    def _first(self, entry: int) -> int:
        return self._order.offset + (entry - self._order.offset) % len(self.missing)

    def _give_up_in_time(self, index: int) -> None:
        for entry, missing in enumerate(self.missing):
            if missing and self._up_to(index, entry) - self.tried[entry] >= PATIENCE:
                taken = sum(self._order.counts) - sum(self.missing)
                label = self._order.labels[entry]
                raise Refused(
                    LabelNotSeen(
                        None if label is None else str(label),
                        self._order.verify,
                        sum(self._up_to(index, each) for each in range(len(self.missing))),
                        taken,
                        [],
                    ).problem()
                )


class Server:
    """Where to ask, and how patiently."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 60.0,
        patience: float = 300.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """``url`` may have a path.

        timeout: seconds without a byte after which a connection is given up.
        patience: seconds without an image during which requests are tried again.
        tell: is told in a sentence why nothing comes at the moment.
        """
        self.url = url.rstrip("/")
        self.patience = patience
        self.tell = tell or _keep_silent
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout)
        )

    def ask(self, path: str, body: Mapping[str, Any] | None, media: str) -> Any:
        """The answer (urllib3's, not yet read) to a POST of ``body``, or a GET where it is None.

        Raises ``Refused``, and ``Later`` where the same request may succeed later.
        """
        try:
            answer = self._pool.request(
                "GET" if body is None else "POST",
                self.url + path,
                body=None if body is None else json.dumps(body, default=operator.index),
                headers={"Accept": media, "Content-Type": MEDIA_TYPES["json"]},
                preload_content=False,
                redirect=False,
            )
            if answer.status == 200:
                return answer
            problem = _problem(answer)
        except LocationValueError as error:
            raise ClientError(
                f"{self.url} is no address of a server, such as http://localhost:8000: {error}"
            ) from error
        except HTTPError as error:
            raise Later(f"{self.url} cannot be reached: {error}") from error
        if problem is None:
            raise Later("the answer was cut")
        if answer.status not in PASSING:
            raise Refused(problem)
        raise Later(problem["detail"], _retry_after(answer))

    def json(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What is answered in JSON, however often it takes. Raises ``Refused``, ``Unreachable``."""
        patience = Patience(self)
        while True:
            try:
                with self.ask(path, body, MEDIA_TYPES["json"]) as answer:
                    if content := answer.read():
                        return json.loads(content)
                patience.wait("the answer was cut")
            except ValueError as error:
                raise ClientError(f"{self.url} does not answer in JSON: {error}") from error
            except Later as error:
                patience.wait(str(error), error.seconds)
            except HTTPError as error:
                patience.wait(_trouble(error))


class Later(Exception):
    """The same request may succeed in ``seconds``; None where the server does not say when."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class Patience:
    """How long there was nothing but trouble, and when to try again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.renew()

    def renew(self) -> None:
        """There was progress."""
        self._since = time.monotonic()
        self._wait = 0.0

    def wait(self, why: str, seconds: float | None = None) -> None:
        """Sleep for ``seconds`` at least; without, not at all at first and then ever longer.

        Raises ``Unreachable``.
        """
        seconds = max(seconds or 0, self._wait)
        self._wait = min(2 * self._wait or FIRST_WAIT, LONGEST_WAIT)
        patience = self._server.patience
        if time.monotonic() + seconds - self._since > patience:
            asked = f", and the server asks for {seconds:g} s" if seconds > LONGEST_WAIT else ""
            raise Unreachable(
                f"{why}; given up: there is patience for {patience:g} s without an image{asked}"
            )
        self._server.tell(f"{why}; asking again in {seconds:g} s")
        time.sleep(seconds)


class Download:
    """Iterate over it for the images that are missing, and their bytes in a tar file.

    Raises ``ClientError``; what has come until then is in ``progress``.
    """

    def __init__(
        self, server: Server, order: Order, progress: Progress, origin: Origin | None = None
    ) -> None:
        """``origin``: of what has come already."""
        self.origin = origin
        self.software: list[str] = []
        """What made the images: more than one where the server was exchanged for another."""
        self.progress = progress
        self._server = server
        self._order = order
        self._like: Record | None = None
        """The first image."""

    def __iter__(self) -> Iterator[tuple[Record, bytes]]:
        patience = Patience(self._server)
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
            except Later as error:
                patience.wait(str(error), error.seconds)
            except (HTTPError, EOFError) as error:
                patience.wait(_trouble(error))
            except ValueError as error:
                raise ClientError(f"the server sent what is no set of images: {error}") from error

    def _open(self, asked: dict[str, Any]) -> Any:
        body = {name: value for name, value in asdict(self._order).items() if value is not None}
        if self.origin is not None:
            body |= {name: getattr(self.origin, name) for name in ("model", "version", "seed")}
        try:
            return self._server.ask("/generate", body | asked, MEDIA_TYPES["webdataset"])
        except Refused as error:
            if self.origin is not None and error.problem.get("type") == UnknownModel.kind():
                raise OriginChanged(f"the server's models have changed: {error}") from error
            raise

    def _check(self, headers: Mapping[str, str]) -> None:
        """Whether images still come from where the others came from."""
        try:
            found = Origin(
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
            raise OriginChanged(f"the server's model has changed: {'; '.join(changed)}")
        if software not in self.software:
            if self.software:
                self._server.tell(
                    f"the server's software has changed from {self.software[-1]} to {software}: "
                    "its images may differ in their last bits"
                )
            self.software.append(software)

    def _check_record(self, record: Record) -> None:
        """Names of files are made of what a record says, and tables of its labels."""
        assert self.origin is not None
        origin = self.origin.model, self.origin.version, self.origin.seed
        if (record.model, record.version, record.seed) != origin:
            raise ValueError(f"an image is of {record.model!r}, not of {self.origin.model!r}")
        self._like = self._like or record
        if (record.labels or {}).keys() != (self._like.labels or {}).keys():
            raise ValueError(f"image {record.index} has other attributes than the first")
        alike = record.image[:PNG_HEAD] == self._like.image[:PNG_HEAD]
        if not (alike and record.image.startswith(PNG_START) and record.image.endswith(END)):
            raise ValueError(f"image {record.index} is no PNG file like the first")


def _keep_silent(message: str) -> None:
    pass


def _trouble(error: Exception) -> str:
    """In plain words."""
    if isinstance(error, ReadTimeoutError):
        return "nothing has come for a while"
    return "the connection was cut"


def _retry_after(answer: Any) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(answer)
    except InvalidHeader:
        return None


def _problem(answer: Any) -> dict[str, Any] | None:
    """What an error's answer says, or its status where it is none of ours; None if it was cut."""
    content = answer.read()
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "detail" in problem:
        return problem
    return (
        {"status": answer.status, "detail": f"the server answered {answer.status}"}
        if content
        else None
    )
