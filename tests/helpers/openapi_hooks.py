"""What Schemathesis is not to take for a fault: it loads this module (see ``test_openapi.py``)."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData

from service.api.oip.routes import BYTES
from service.errors import (
    AnswerTooLarge,
    FieldsDisagree,
    InvalidLabel,
    LabelNotVerified,
    ModelUnfit,
    TensorsUnfit,
)
from service.formats.images import EXTENSIONS

BEYOND_SCHEMAS = {
    kind.kind()
    for kind in (
        AnswerTooLarge,
        FieldsDisagree,
        InvalidLabel,
        LabelNotVerified,
        ModelUnfit,
        TensorsUnfit,
    )
}
"""Problems of requests whose every field is as documented. They depend on the models, on the format
that the ``Accept`` header chooses, or on other fields."""


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: Response,
) -> bool:
    """Whether ``failure`` is one."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    # It looks for the extension behind the last dot of our addresses, which may be in their query.
    if case.path_parameters.get("extension", "png") not in EXTENSIONS:
        return False
    # No schema can say that so many bytes are JSON, and that bytes follow of which it speaks.
    if case.media_type == BYTES:
        return False
    return response.json()["type"] not in BEYOND_SCHEMAS
