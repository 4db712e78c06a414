"""``GET /models``, their versions and their labels."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import HTMLResponse

from service.api.caching import page
from service.api.openapi_tables import PROBLEM, PROBLEMS, Responses
from service.api.state import CurrentState
from service.core.image_request import Version
from service.errors import CrossSite
from service.formats.json_answers import (
    AttributeAnswer,
    LabelsAnswer,
    ModelAnswer,
    ModelsAnswer,
    ModelSummary,
    ModelVersion,
    RefusedModel,
    ReloadAnswer,
)
from service.inference.model import Model
from service.models.model_set import ModelSet

router = APIRouter(prefix="/models", tags=["models"])
NOT_FOUND: Responses = {404: PROBLEMS[404]}


@router.get("")
async def list_models(state: CurrentState) -> ModelsAnswer:
    """Served models, and files that are not served, with the reason."""
    models = state.models
    summaries = [
        ModelSummary(
            name=name,
            kind=(kind := models.get(name).manifest.kind),
            versions=sorted(versions),
            version=models.get(name).version,
            aliases=models.aliases_of(name),
            default=models.default(kind).name == name,
            url=f"/models/{name}",
        )
        for name, versions in models.models.items()
    ]
    refused = [RefusedModel.model_validate(item) for item in models.refused]
    return ModelsAnswer(models=summaries, refused=refused)


NOT_RELOADED: Responses = {
    403: {"description": "The request comes from a page on another site.", "content": PROBLEM},
    409: {"description": "On a cluster, whose replicas reload together.", "content": PROBLEM},
}


@router.post("/reload", responses=NOT_RELOADED)
async def reload_models(
    state: CurrentState, sec_fetch_site: Annotated[str, Header(include_in_schema=False)] = "none"
) -> ReloadAnswer:
    """Read the models folder again, and serve its current files.

    New and changed models are checked, loaded and warmed up before the exchange. Requests in
    progress finish on the version they started with.
    """
    # Browsers set this header; a page cannot change it.
    if sec_fetch_site not in ("same-origin", "none"):
        raise CrossSite("a page on another site may not reload the models")
    return ReloadAnswer.model_validate(await state.reload_all())


@router.get("/{name}", responses=NOT_FOUND)
async def show_model(name: str, state: CurrentState) -> ModelAnswer:
    """Versions of a model, with their manifests."""
    models = state.models
    versions = models.versions(name)
    default = models.get(name)
    return ModelAnswer(
        name=name,
        kind=default.manifest.kind,
        version=default.version,
        aliases=models.aliases_of(name),
        versions=[_describe(models, versions[number]) for number in sorted(versions)],
    )


@router.get("/{name}/labels", responses=NOT_FOUND)
async def show_labels(
    name: str, state: CurrentState, version: Version | None = None
) -> LabelsAnswer:
    """Attributes of a model, their values, and a phrase for each value."""
    model = state.models.get(name, version)
    return LabelsAnswer(
        model=name,
        version=model.version,
        attributes=[
            AttributeAnswer(**attribute.model_dump(), labels=model.vocabulary.canonical(a))
            for a, attribute in enumerate(model.manifest.attributes)
        ],
    )


@router.get("/{name}/{version}", responses=NOT_FOUND)
async def show_version(name: str, version: Version, state: CurrentState) -> ModelVersion:
    """One version of a model, with its manifest."""
    models = state.models
    return _describe(models, models.get(name, version))


REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
"""A report contains its style and its pictures, and no script."""


@router.get(
    "/{name}/{version}/report",
    response_class=HTMLResponse,
    responses={304: {"description": "The client has the report already."}, **NOT_FOUND},
)
async def show_report(
    name: str, version: Version, state: CurrentState, request: Request
) -> Response:
    """Evaluation report of a version: one file that needs no network."""
    models = state.models
    content = await asyncio.to_thread(models.report, models.get(name, version))
    return page(request, content, "text/html", REPORT_POLICY)


def _describe(models: ModelSet, model: Model) -> ModelVersion:
    url = f"/models/{model.name}/{model.version}"
    return ModelVersion(
        version=model.version,
        sha256=model.sha256,
        url=url,
        report=f"{url}/report" if models.report_file(model).is_file() else None,
        recommendation=model.manifest.recommendation,
        verifier_sha256=model.verifier.sha256 if model.verifier else None,
        manifest=model.manifest,
    )
