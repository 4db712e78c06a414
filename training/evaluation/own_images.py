"""A user's labelled images, with the shape and the vocabulary of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from service.core.manifest import Attribute
from training.data import Dataset, load
from training.errors import DataError
from training.runs.run import Run


def load_own(run: Run, source: str) -> Dataset:
    """Load ``source`` with the labels of ``run``, as large as its images.

    Raises ``DataError`` if labels, values or shape do not fit.
    """
    attributes, shape = run.dataset.attributes, run.dataset.image_shape
    names = [attribute.name for attribute in attributes]
    config = run.config
    drawn = source.partition(":")[0] == "avatars"
    side = shape[0] if shape[0] == shape[1] and not drawn else None
    if source == config.data:
        found = load(source, **config.reading | {"attributes": names})
    else:
        found = load(
            source,
            names,
            size=config.size or side,
            crop=config.crop,
            pad=config.pad,
            skip_bad=config.on_bad == "skip",
        )
    if found.images.shape[1:] != shape:
        fits = "x".join(map(str, found.images.shape[1:]))
        asked = "x".join(map(str, shape))
        raise DataError(source, [f"images are {fits}, those of {config.name} are {asked}"])
    return replace(found, labels=_relabelled(found, attributes, source), attributes=attributes)


def _relabelled(
    found: Dataset, attributes: tuple[Attribute, ...], source: str
) -> npt.NDArray[np.int64]:
    """Labels of ``found`` as indices into the values of ``attributes``."""
    unknown = [
        f"{own.name}: the model has no value {value!r}; it has {', '.join(attribute.values)}"
        for own, attribute in zip(found.attributes, attributes, strict=True)
        for value in own.values
        if value not in attribute.values
    ]
    if unknown:
        raise DataError(source, unknown)
    columns = [
        np.array([attribute.values.index(value) for value in own.values])[column]
        for own, attribute, column in zip(found.attributes, attributes, found.labels.T, strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.int64)
