"""OpenAPI document, completed with bounds from the settings and examples from the models.

FastAPI generates the rest from the routes.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.api.openapi_tables import PROBLEMS
from service.api.paths import OPENAI
from service.api.state import State
from service.core.latent_requests import MAX_STEPS
from service.formats.json_answers import Problem
from service.formats.oip_schemas import FLOAT, InferRequest
from service.formats.openai_schemas import ImagesRequest, OpenaiError
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.models.model_set import ModelSet
from service.settings import Settings

FORMATS = {media: format_ for format_, media in MEDIA_TYPES.items()}


def install(app: FastAPI) -> None:
    """Replace the document of ``app``, whose ``state.figment`` is set before the first request."""
    generated = app.openapi

    def completed() -> dict[str, Any]:
        state: State = app.state.figment
        document = generated()  # always the same object; completing it again changes nothing
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for body in (InferRequest, ImagesRequest, OpenaiError):
            _add(schemas, body)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _set_bounds(schemas, state.settings)
        model = _example_model(state.models)
        for name, body in _example_bodies(model, state.settings).items():
            schemas[name]["examples"] = [body]
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _complete(operation, model)
                if path.startswith(f"{OPENAI}/"):
                    _answer_as_openai(operation["responses"])
        return document

    app.openapi = completed  # type: ignore[method-assign]  # documented way to extend it


def _set_bounds(schemas: dict[str, Any], settings: Settings) -> None:
    single, several = schemas["GenerateRequest"]["properties"]["n"]["anyOf"]
    single["maximum"] = several["items"]["maximum"] = max(settings.max_images, settings.max_set)
    several["contains"] = {"minimum": 1}
    schemas["VariationsRequest"]["properties"]["n"]["maximum"] = settings.max_images
    schemas["ImagesRequest"]["properties"]["n"]["anyOf"][0]["maximum"] = settings.max_images
    steps = schemas["InterpolateRequest"]["properties"]["steps"]
    steps["maximum"] = min(MAX_STEPS, settings.max_images)


def _add(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    """Add a model that appears in no signature, with the models it contains."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema


def _complete(operation: dict[str, Any], model: Model) -> None:
    responses = operation["responses"]
    if operation.get("security"):
        responses["401"] = PROBLEMS[401]
    # FastAPI documents its own form of this error for every route with parameters.
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"] = PROBLEMS[422]
    body = operation.get("requestBody", {})
    if fields := body.get("content", {}).get("application/json"):
        schema = fields["schema"]["$ref"]
        body["required"] = not schema.endswith("/GenerateRequest")  # no body is the same as {}
    examples = {"model": model.name, "name": model.name, "version": model.version}
    if labels := _labels(model):
        examples["label"] = labels[0]
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if name == "format":
            offered = [FORMATS[media] for media in responses["200"]["content"]]
            parameter["schema"] = {"type": "string", "enum": offered}
        elif name in examples:
            several = parameter["schema"].get("type") == "array"
            parameter["schema"]["examples"] = [[examples[name]] if several else examples[name]]


def _answer_as_openai(responses: dict[str, Any]) -> None:
    """Describe errors as they are below ``/v1``."""
    schema = {"schema": {"$ref": f"#/components/schemas/{OpenaiError.__name__}"}}
    responses.pop("422", None)
    for status in [status for status in responses if status >= "400"]:
        responses[status] = {**responses[status], "content": {MEDIA_TYPES["json"]: schema}}


def _example_model(models: ModelSet) -> Model:
    """Model of the examples: a conditional one if there is any."""
    if models.names("conditional"):
        return models.default("conditional")
    return models.default("unconditional")


def _labels(model: Model) -> list[str]:
    """At least two phrases, for the values of one attribute; none for an unconditional model."""
    attributes = model.vocabulary.attributes
    return model.vocabulary.canonical(len(attributes) - 1) if attributes else []


def _example_bodies(model: Model, settings: Settings) -> dict[str, Any]:
    """Example of each kind of request, which this server answers."""
    images: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2}]
    for image, label in zip(images, _labels(model), strict=False):
        image["label"] = label
    limit = settings.max_images
    return {
        "GenerateRequest": images[0] | {"n": min(4, limit)},
        "ImagesRequest": {"prompt": images[0].get("label", ""), "model": model.name, "seed": 1},
        "InterpolateRequest": {"from": images[0], "to": images[1], "steps": min(8, limit)},
        "InferRequest": {
            "inputs": [
                {"name": name, "datatype": FLOAT, "shape": [1, size], "data": [0.0] * size}
                for name, size in model.manifest.inputs.items()
            ]
        },
        "VariationsRequest": {"of": images[0], "strength": 0.3, "n": min(4, limit)},
    }
