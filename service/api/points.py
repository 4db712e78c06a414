"""A point of a request as the image that it means."""

from __future__ import annotations

from service.api.responses import Point
from service.inference.model import Model
from service.inference.seeds import SeedImages


def sample(model: Model, point: Point) -> SeedImages:
    """The one image at ``point``. Raises ``InvalidLabel``."""
    return SeedImages(
        model=model,
        seed=point.seed,
        indices=range(point.index, point.index + 1),
        labels=[] if point.label is None else [model.vocabulary.resolve(point.label)],
        truncation=point.truncation,
    )
