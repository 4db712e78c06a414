"""Answers, headers and errors of the routes, as the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.http_constants import PROBLEM_MEDIA_TYPE
from service.formats.registry import MEDIA_TYPES

Responses = dict[int | str, dict[str, Any]]

PROBLEM = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "schema": {"type": "integer"},
        "required": True,
    }
}
PROBLEMS: Responses = {
    400: {"description": "The body is not JSON.", "content": PROBLEM},
    401: {"description": "The service requires an API key, and none was sent.", "content": PROBLEM},
    404: {"description": "No such model or version.", "content": PROBLEM},
    406: {"description": "No such format.", "content": PROBLEM},
    408: {"description": "The request was not received in time.", "content": PROBLEM},
    413: {"description": "The body is too large.", "content": PROBLEM},
    422: {
        "description": "A field is out of range, a label is unknown, or the size, the model and "
        "the fields do not fit together. `type` says which.",
        "content": PROBLEM,
    },
    429: {
        "description": "The queue is full, or a rate limit is reached. Retry later.",
        "content": PROBLEM,
        "headers": RETRY_AFTER,
    },
    500: {"description": "The model could not be run.", "content": PROBLEM},
    503: {"description": "Not enough memory, or no space for temporary files.", "content": PROBLEM},
    504: {"description": "The images were not ready within the timeout.", "content": PROBLEM},
}
HEADERS = {
    "Figment-Model": "Name of the model. JSON answers have this and the next headers in the body.",
    "Figment-Version": "Version of the model.",
    "Figment-Latent-Recipe": "Recipe that derives latents from seed and index.",
    "Figment-Seed": "The seed, drawn if the request has none.",
    "Figment-Tried": "With `verify`: number of images that were checked.",
    "Figment-Of": "Address of the image that the variations surround.",
    "Figment-Model-Sha256": "Sets only: SHA-256 of the model file.",
    "Figment-Verifier-Sha256": "Sets with `verify` only: SHA-256 of the verifier file.",
    "Figment-Software": "Sets only: versions of the software that may change their bytes.",
    "Content-Disposition": "Sets only: a name for the file.",
    "Content-Location": "One image only: its address.",
    "Server-Timing": "Milliseconds in the queue, in inference and in encoding. Not on streams and "
    "searches.",
}
ALWAYS = ("Figment-Model", "Figment-Version", "Figment-Latent-Recipe", "Server-Timing")
"""Headers of every answer with images."""


def image_answers(answer: type, formats: Sequence[str], *headers: str) -> Responses:
    """Answers of a route that returns JSON or images."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {MEDIA_TYPES[format_]: binary for format_ in formats if format_ != "json"}
    success = {"model": answer, "content": content, "headers": described(*headers)}
    return {200: success, **PROBLEMS}


def described(*headers: str) -> dict[str, Any]:
    """Descriptions of ``headers`` and of those of every answer with images."""
    return {
        name: {"description": HEADERS[name], "schema": {"type": "string"}}
        for name in (*ALWAYS, *headers)
    }
