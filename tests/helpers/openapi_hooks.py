"""Hooks of Schemathesis that drop false positives (loaded by ``test_openapi.py``)."""

from __future__ import annotations

from typing import Any, get_args

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData

from service.api.routes.oip import BYTES
from service.errors import InvalidLabel, LabelNotVerified, Unfit, urn_of
from service.formats.images import EXTENSIONS
from service.formats.openai_schemas import openai_code

BEYOND_SCHEMAS = {InvalidLabel.kind(), LabelNotVerified.kind(), *map(urn_of, get_args(Unfit))}
"""Problem types of requests that match the OpenAPI document. They depend on the models, on the
format that the ``Accept`` header selects, or on other fields."""


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: Response,
) -> bool:
    """False for a false positive."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    # Schemathesis takes the text after the last dot of an address for the extension.
    if case.path_parameters.get("extension", "png") not in EXTENSIONS:
        return False
    # No schema can describe an image file, or JSON followed by the bytes that it declares.
    if case.media_type == BYTES or case.path == "/detect":
        return False
    found = response.json()
    if "type" in found:
        return found["type"] not in BEYOND_SCHEMAS
    return found["error"]["code"] not in map(openai_code, BEYOND_SCHEMAS)
