"""A search, carried out by the engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from service.core.image_info import ImageInfo, Pixels
from service.core.latents import MAX_INDEX
from service.engine.engine import Engine, ImageBudget
from service.engine.search import Search
from service.errors import FieldsDisagree, LabelNotVerified
from service.inference.seeds import SeedImages

MAX_ADDRESSES = 1024
"""Addresses in an error."""

Result = TypeVar("Result")


async def search_images(
    engine: Engine,
    samples: SeedImages,
    search: Search,
    threshold: float | None,
    finish: Callable[[ImageInfo, Pixels], Result],
    payer: ImageBudget,
) -> AsyncGenerator[list[Result], None]:
    """``finish`` of the images that are taken, batch by batch, in the order of their indices.

    ``samples`` at whatever indices; with a ``threshold``, those are taken in which the verifier
    sees every value that it looks for with at least this probability. ``payer`` pays for all that
    are tried.

    Raises ``LabelNotVerified``, ``FieldsDisagree`` where no index is left, and what the engine
    raises.
    """
    samples = replace(samples, verify=threshold is not None)
    found: list[str] = []  # the first of them

    def finish_good(frame: ImageInfo, pixels: Pixels) -> tuple[ImageInfo, Result | None]:
        probabilities = (frame.verified or {}).values()
        good = all(probability >= (threshold or 0) for probability in probabilities)
        return frame, finish(frame, pixels) if good else None

    batches = engine.stream_batches(_candidates(samples, search), finish_good, payer)
    async with aclosing(batches):
        async for batch in batches:
            taken, missed = [], None
            for frame, result in batch:
                try:
                    if search.judge(frame.index, result is not None):
                        taken.append(result)
                        if len(found) < MAX_ADDRESSES:
                            found.append(samples.address(frame.index).url())
                except LookupError as error:
                    (missed,) = error.args
                    break
            yield taken
            if missed is not None:
                phrase = samples.asked[missed].phrase if samples.asked else None
                raise LabelNotVerified(phrase, threshold, search.tried, search.taken, found)
            if not search.missing:
                return


def _candidates(samples: SeedImages, search: Search) -> Iterator[tuple[SeedImages, range] | None]:
    while search.missing:
        indices = search.candidates(samples.model.largest_batch)
        if indices:
            yield replace(samples, indices=indices), range(len(indices))
        elif search.under_way:
            yield None
        else:
            raise FieldsDisagree(
                f"offset: the last index is {MAX_INDEX}, and {search.missing} images are missing"
            )
