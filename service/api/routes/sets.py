"""``GET /sets/...``: a set as a URL, for loaders that take one, and for caches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from service.api.caching import CACHING, Canonical, cache_headers, is_current
from service.api.dataset_responses import set_answer, set_headers
from service.api.fast_path import reject_repeats
from service.api.openapi_tables import PROBLEM, PROBLEMS, described
from service.api.render import check_size
from service.api.response_headers import model_fields
from service.api.state import CurrentState
from service.core.image_request import Index, Phrase, Seed, Truncation, VersionNumber, explain
from service.core.set_request import AttributeNames, LabelForm, LayoutName, SetRequest, read_splits
from service.datasets.manifest import packing_software
from service.errors import InvalidRequest
from service.formats.registry import MEDIA_TYPES, SUFFIXES, layout_of
from service.inference.seeds import SeedImages

router = APIRouter(prefix="/sets", tags=["sets"])
FORMATS = {suffix.removeprefix("."): name for name, suffix in SUFFIXES.items()}
"""Formats by the end of the URL."""
ONE_SPLIT = r"[a-z0-9_]{1,32}:(1|0\.[0-9]{0,8}[1-9])"
SPLITS: dict[str, Any] = {
    "pattern": f"^{ONE_SPLIT}(,{ONE_SPLIT}){{0,7}}$",
    "examples": ["train:0.9,val:0.1"],
}
BINARY: dict[str, Any] = {MEDIA_TYPES[name]: {} for name in FORMATS.values()}


class _Query(BaseModel):
    """Query of a set. Unknown parameters are rejected."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: list[Phrase] = Field(
        [], description="May repeat: the image at index i takes entry i mod length."
    )
    truncation: Truncation = 1
    layout: LayoutName = "table"
    by: AttributeNames = Field([], description="An attribute; may repeat.")
    splits: Annotated[str, Field(json_schema_extra=SPLITS)] | SkipJsonSchema[None] = Field(
        None, description="Names with fractions that sum to 1."
    )
    labels: LabelForm = "ids"


@router.get(
    "/{model}/{version}/{seed}/{first}-{last}.{extension}",
    response_class=Response,
    responses={
        200: {
            "content": BINARY,
            "headers": CACHING
            | described("Figment-Seed", "Figment-Model-Sha256", "Figment-Software"),
        },
        304: {"description": "The client has the set already.", "headers": CACHING},
        **{status: PROBLEMS[status] for status in (401, 404, 422, 429, 500, 503, 504)},
        431: {"description": "The URL is too long: it has many labels.", "content": PROBLEM},
    },
)
async def show_set(
    model: str,
    version: Annotated[VersionNumber, Canonical],
    seed: Annotated[Seed, Canonical],
    first: Annotated[Index, Canonical],
    last: Annotated[Index, Canonical],
    extension: Literal["tar", "zip", "parquet", "npy"],
    state: CurrentState,
    query: Annotated[_Query, Query()],
    request: Request,
) -> Response:
    """The images `first` to `last`, included. The bytes are those of `POST /generate`."""
    reject_repeats(request, but=("label", "by"))
    if last < first:
        raise InvalidRequest(f"last: {last} is before the first image, {first}")
    body = _body(query)
    format_ = FORMATS[extension]
    check_size("last", last - first + 1, state, format_)
    found = state.models.get(model, version)
    layout = layout_of(body, format_, found.manifest.values)
    labels = [found.vocabulary.resolve(label) for label in body.label_list]
    samples = SeedImages(found, seed, range(first, last + 1), labels, query.truncation)
    phrases = [label.phrase or "" for label in labels]
    identity = (found.sha256, request.url.path, repr(query.truncation), layout.identity, *phrases)
    caching = cache_headers(state, packing_software(), *identity)
    head = model_fields(found) | {"seed": seed}
    if is_current(request, caching):
        return Response(status_code=304, headers=caching)
    if request.scope.get("is_head"):  # without computing anything
        headers = set_headers(format_, head, samples, state)
        described_set = Response(headers=headers | caching, media_type=MEDIA_TYPES[format_])
        if "Content-Length" not in headers:
            del described_set.headers["Content-Length"]  # that of an empty body
        return described_set
    answer = await set_answer(format_, head, samples, None, None, layout, state, request)
    answer.headers.update(caching)
    return answer


def _body(query: _Query) -> SetRequest:
    """Fields of ``POST /generate`` with the same meaning. Raises ``InvalidRequest``."""
    try:
        body = SetRequest(
            label=[*query.label] or None,
            layout=query.layout,
            by=query.by or None,
            splits=None if query.splits is None else read_splits(query.splits),
            labels=query.labels,
        )
    except ValidationError as error:
        raise explain(error.errors()) from None
    body.check_fields_agree()
    return body
