"""What a client asks for, where it comes from, and what of it has come."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.manifest import NAME_PATTERN
from service.core.quotas import MAX_MISSES, quotas
from service.errors import ClientError, LabelNotVerified, RequestRejected

MAX_IMAGES_PER_REQUEST = 10_000_000
"""Images that a server puts into one set."""

Label = str | Mapping[str, str | int | bool]


@dataclass(frozen=True)
class ImageRequest:
    """Which images are asked for; see ``POST /generate``. Raises ``ClientError`` if it is none."""

    n: int | Sequence[int] = 1
    label: Label | Sequence[Label] | None = None
    seed: int | None = None
    offset: int = 0
    model: str | None = None
    version: int | str | None = None
    """A number or an alias."""
    truncation: float = 1.0
    verify: float | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ClientError("label should hold one label at least, or be left out")
        if sum(self.counts) < 1:
            raise ClientError("n should ask for one image at least")

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
class ModelIdentity:
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

    def __init__(self, order: ImageRequest) -> None:
        self.missing = list(order.counts)
        """Images of each entry."""
        self.tried = [0] * len(self.missing)
        """Images of each entry up to the last that came, those that were left out among them."""
        self.next = order.offset
        self._order = order

    def take(self, index: int) -> None:
        """Raises ``ClientError`` for an image that does not come next.

        Raises ``RequestRejected`` when a label was skipped 1,000 times in a row, counted across
        reconnects.
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
        n = (
            self.missing
            if self._order.leaves_out
            else min(sum(self.missing), MAX_IMAGES_PER_REQUEST)
        )
        return {"n": n, "offset": self.next}

    def _up_to(self, index: int, entry: int) -> int:
        """How many images of an entry there are before ``index``."""
        return len(range(self._first(entry), index, len(self.missing)))

    def _first(self, entry: int) -> int:
        return self._order.offset + (entry - self._order.offset) % len(self.missing)

    def _give_up_in_time(self, index: int) -> None:
        for entry, missing in enumerate(self.missing):
            if missing and self._up_to(index, entry) - self.tried[entry] >= MAX_MISSES:
                taken = sum(self._order.counts) - sum(self.missing)
                label = self._order.labels[entry]
                raise RequestRejected(
                    LabelNotVerified(
                        None if label is None else str(label),
                        self._order.verify,
                        sum(self._up_to(index, each) for each in range(len(self.missing))),
                        taken,
                        [],
                    ).problem()
                )
