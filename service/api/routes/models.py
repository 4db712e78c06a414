"""``GET /models``, their versions and their labels."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header

from service.api.image_responses import PROBLEM, PROBLEMS
from service.api.responses import (
    AttributeAnswer,
    LabelsAnswer,
    ModelAnswer,
    ModelsAnswer,
    ModelSummary,
    ModelVersion,
    RefusedModel,
    ReloadAnswer,
)
from service.api.state import CurrentState
from service.core.image_request import Version
from service.errors import CrossSite
from service.inference.model import Model

router = APIRouter(prefix="/models", tags=["models"])
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: PROBLEMS[404]}


@router.get("")
async def list_models(state: CurrentState) -> ModelsAnswer:
    """What is served, and which files are not, with the reason."""
    library = state.library
    summaries = [
        ModelSummary(
            name=name,
            kind=(kind := library.get(name).manifest.kind),
            versions=sorted(versions),
            version=library.get(name).version,
            aliases=library.meanings(name),
            default=library.default(kind).name == name,
            url=f"/models/{name}",
        )
        for name, versions in library.models.items()
    ]
    refused = [RefusedModel.model_validate(item) for item in library.refused]
    return ModelsAnswer(models=summaries, refused=refused)


ELSEWHERE: dict[int | str, dict[str, Any]] = {
    403: {"description": "Asked for by a page on another site.", "content": PROBLEM},
    409: {"description": "On a cluster, whose replicas reload together.", "content": PROBLEM},
}


@router.post("/reload", responses=ELSEWHERE)
async def reload_models(
    state: CurrentState, sec_fetch_site: Annotated[str, Header(include_in_schema=False)] = "none"
) -> ReloadAnswer:
    """Look through the models folder again, and serve what is there now.

    What is new or changed is tried out, loaded and warmed before anything is exchanged; requests
    under way end on the version that they began with.
    """
    # Browsers send it, whatever a page on another site would have them do.
    if sec_fetch_site not in ("same-origin", "none"):
        raise CrossSite("models are not reloaded for a page on another site")
    return ReloadAnswer.model_validate(await state.reload_all())


@router.get("/{name}", responses=NOT_FOUND)
async def show_model(name: str, state: CurrentState) -> ModelAnswer:
    """All versions of a model, with their manifests."""
    library = state.library
    versions = library.versions(name)
    usual = library.get(name)
    return ModelAnswer(
        name=name,
        kind=usual.manifest.kind,
        version=usual.version,
        aliases=library.meanings(name),
        versions=[_describe(versions[number]) for number in sorted(versions)],
    )


@router.get("/{name}/labels", responses=NOT_FOUND)
async def show_labels(
    name: str, state: CurrentState, version: Version | None = None
) -> LabelsAnswer:
    """The attributes of a model, their values, and a phrase for each."""
    model = state.library.get(name, version)
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
    return _describe(state.library.get(name, version))


def _describe(model: Model) -> ModelVersion:
    return ModelVersion(
        version=model.version,
        sha256=model.sha256,
        url=f"/models/{model.name}/{model.version}",
        verifier_sha256=model.verifier.sha256 if model.verifier else None,
        manifest=model.manifest,
    )
