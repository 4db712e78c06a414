"""State of one worker thread, and the batches and results that threads exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from service.core.image_info import ImageInfo
from service.engine.queue import BatchSlice, Job
from service.engine.throughput import ImageCost
from service.inference.source import ImageSource

Outcome = tuple[Job, Exception | None]
"""A finished job: with all its results, or with the error that failed it."""
RenderedSlice = tuple[list[ImageInfo], Any]
"""Descriptions and pixels ``[N, H, W, channels]`` of the images of one batch slice."""


class Render(Protocol):
    """Computes a batch of one model: for each slice, its descriptions and images.

    ``exclusive``: nothing else is being computed, so one image may use all cores.
    """

    def __call__(
        self, batch: Sequence[tuple[ImageSource, range]], *, exclusive: bool
    ) -> list[RenderedSlice]: ...


@dataclass(eq=False)
class Worker:
    """State of one worker thread. Times are of ``time.monotonic``."""

    encodes: bool = False
    """True for a thread that only encodes."""
    last_heartbeat: float | None = None
    """None until a warm-up succeeds: at the start, and after a failed batch."""
    batch: list[BatchSlice] = field(default_factory=list)
    """The batch in progress."""
    busy_since: float | None = None
    """Start of the batch, or of the warm-up after a failed batch; None in the first warm-up."""
    hung: bool = False
    """True once it was found in one batch for too long, or dead."""


class Rendered(NamedTuple):
    """A computed batch, queued for encoding."""

    batch: list[BatchSlice]
    slices: list[RenderedSlice]
    cost: ImageCost
    exclusive: bool
