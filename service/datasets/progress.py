"""Progress of a request whose images arrive in order, possibly over several connections."""

from __future__ import annotations

from typing import Any

from service.core.image_request import ImageRequest
from service.core.quotas import MAX_MISSES
from service.errors import ClientError, LabelNotVerified, RequestRejected

MAX_IMAGES_PER_REQUEST = 10_000_000
"""Default limit of a server for one set."""


class Progress:
    """Images received so far and still missing, for each label."""

    def __init__(self, request: ImageRequest) -> None:
        self.missing = list(request.counts)
        """Images still missing, for each entry."""
        self.tried = [0] * len(self.missing)
        """Images of each entry up to the last received one, including skipped ones."""
        self.next = request.offset
        self._request = request

    def add(self, index: int) -> None:
        """Count the image at ``index``. Raises ``ClientError`` if it is not the next one.

        Raises ``RequestRejected`` when a label was skipped 1,000 times in a row, counted across
        reconnects.
        """
        entry = index % len(self.missing)
        gap = index - self.next
        if gap < 0 or (gap and not self._request.may_skip) or not self.missing[entry]:
            raise ClientError(f"the server sent image {index} where {self.next} was next")
        if self._request.verify is not None:
            self._check_misses(index)
        self.missing[entry] -= 1
        self.tried[entry] = self._up_to(index, entry) + 1
        self.next = index + 1

    def remaining(self) -> dict[str, Any]:
        """``n`` and ``offset`` of a request for the missing images."""
        n = (
            self.missing
            if self._request.may_skip
            else min(sum(self.missing), MAX_IMAGES_PER_REQUEST)
        )
        return {"n": n, "offset": self.next}

    def _up_to(self, index: int, entry: int) -> int:
        """Number of images of an entry before ``index``."""
        return len(range(self._first(entry), index, len(self.missing)))

    def _first(self, entry: int) -> int:
        return self._request.offset + (entry - self._request.offset) % len(self.missing)

    def _check_misses(self, index: int) -> None:
        for entry, missing in enumerate(self.missing):
            if missing and self._up_to(index, entry) - self.tried[entry] >= MAX_MISSES:
                taken = sum(self._request.counts) - sum(self.missing)
                label = self._request.entries[entry]
                raise RequestRejected(
                    LabelNotVerified(
                        None if label is None else str(label),
                        self._request.verify,
                        sum(self._up_to(index, each) for each in range(len(self.missing))),
                        taken,
                        [],
                    ).problem()
                )
