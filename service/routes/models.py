"""``GET /models``, their versions and their labels."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.models import Model
from service.routes.answers import PROBLEMS
from service.routes.state import CurrentState
from service.schemas import (
    AttributeAnswer,
    LabelsAnswer,
    ModelAnswer,
    ModelsAnswer,
    ModelSummary,
    ModelVersion,
    RefusedModel,
    Version,
)

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
            default=library.default(kind).name == name,
            url=f"/models/{name}",
        )
        for name, versions in library.models.items()
    ]
    refused = [RefusedModel(path=item.path, reason=item.reason) for item in library.refused]
    return ModelsAnswer(models=summaries, refused=refused)


@router.get("/{name}", responses=NOT_FOUND)
async def show_model(name: str, state: CurrentState) -> ModelAnswer:
    """All versions of a model, with their manifests."""
    versions = state.library.versions(name)
    return ModelAnswer(
        name=name,
        kind=state.library.get(name).manifest.kind,
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
