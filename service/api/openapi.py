"""The OpenAPI document, completed with what only this server knows.

FastAPI makes it from the routes. Bounds follow from the settings, examples from the models.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.api.image_responses import PROBLEMS
from service.api.oip.schemas import FLOAT, InferRequest
from service.api.responses import MAX_STEPS, Problem
from service.api.state import State
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.models.model_set import ModelSet
from service.settings import Settings

FORMATS = {media: format_ for format_, media in MEDIA_TYPES.items()}


def install(app: FastAPI) -> None:
    """Have ``app``, whose state is in its place, give the completed document."""
    generated = app.openapi

    def document() -> dict[str, Any]:
        state: State = app.state.figment
        found = generated()  # always the same object, which may be completed again
        schemas = found["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        _add(schemas, InferRequest)
        for theirs in ("HTTPValidationError", "ValidationError"):
            schemas.pop(theirs, None)
        _bound(schemas, state.settings)
        model = _shown(state.library)
        for name, body in _bodies(model, state.settings).items():
            schemas[name]["examples"] = [body]
        for methods in found["paths"].values():
            for operation in methods.values():
                _complete(operation, model)
        return found

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _bound(schemas: dict[str, Any], settings: Settings) -> None:
    single, several = schemas["GenerateRequest"]["properties"]["n"]["anyOf"]
    single["maximum"] = several["items"]["maximum"] = max(settings.max_images, settings.max_set)
    several["contains"] = {"minimum": 1}
    schemas["VariationsRequest"]["properties"]["n"]["maximum"] = settings.max_images
    steps = schemas["InterpolateRequest"]["properties"]["steps"]
    steps["maximum"] = min(MAX_STEPS, settings.max_images)


def _add(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    """One that no signature tells FastAPI of, with those that it is made of."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs")
    schemas[model.__name__] = schema


def _complete(operation: dict[str, Any], model: Model) -> None:
    responses = operation["responses"]
    if operation.get("security"):
        responses["401"] = PROBLEMS[401]
    # FastAPI documents its own form of this error, in JSON, wherever there are parameters.
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"] = PROBLEMS[422]
    examples = {"model": model.name, "name": model.name, "version": model.version}
    if labels := _labels(model):
        examples["label"] = labels[0]
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if name == "format":
            offered = [FORMATS[media] for media in responses["200"]["content"]]
            parameter["schema"] = {"type": "string", "enum": offered}
        elif name in examples:
            parameter["schema"]["examples"] = [examples[name]]


def _shown(library: ModelSet) -> Model:
    """The model of the examples: one that takes labels, where there is any."""
    if library.names("conditional"):
        return library.default("conditional")
    return library.default("unconditional")


def _labels(model: Model) -> list[str]:
    """Phrases of one attribute, two or more; none of an unconditional model."""
    attributes = model.vocabulary.attributes
    return model.vocabulary.canonical(len(attributes) - 1) if attributes else []


def _bodies(model: Model, settings: Settings) -> dict[str, Any]:
    """A request of each kind that is answered here."""
    images: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2}]
    for image, label in zip(images, _labels(model), strict=False):
        image["label"] = label
    most = settings.max_images
    return {
        "GenerateRequest": images[0] | {"n": min(4, most)},
        "InterpolateRequest": {"from": images[0], "to": images[1], "steps": min(8, most)},
        "InferRequest": {
            "inputs": [
                {"name": name, "datatype": FLOAT, "shape": [1, size], "data": [0.0] * size}
                for name, size in model.manifest.inputs.items()
            ]
        },
        "VariationsRequest": {"of": images[0], "strength": 0.3, "n": min(4, most)},
    }
