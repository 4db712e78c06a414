"""Points of a request, resolved to the model and the images they stand for."""

from __future__ import annotations

from service.api.requests import InterpolateRequest, Point, VariationsRequest
from service.inference.model import Model
from service.inference.seeds import SeedImages
from service.models.model_set import ModelSet


def choose_model(
    models: ModelSet, body: InterpolateRequest | VariationsRequest, *points: Point
) -> Model:
    """Model of a request; by default the conditional one if a point has a label.

    Raises ``UnknownModel``.
    """
    labelled = any(point.label is not None for point in points)
    return models.resolve(body.model, body.version, labelled=labelled)


def sample(model: Model, point: Point) -> SeedImages:
    """The one image at ``point``. Raises ``InvalidLabel``."""
    return SeedImages(
        model=model,
        seed=point.seed,
        indices=range(point.index, point.index + 1),
        labels=[] if point.label is None else [model.vocabulary.resolve(point.label)],
        truncation=point.truncation,
    )
