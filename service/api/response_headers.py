"""Headers of answers with images: the model they come from, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.inference.model import Model
from service.observability.timing import Timing


def model_fields(model: Model) -> dict[str, Any]:
    """Fields of every answer that identify the model: in a JSON body, or as headers."""
    return {
        "model": model.name,
        "version": model.version,
        "latent_recipe": model.manifest.latent_recipe,
    }


def as_headers(fields: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a JSON body as headers: ``latent_recipe`` becomes ``Figment-Latent-Recipe``."""
    return {f"Figment-{name.replace('_', '-').title()}": str(v) for name, v in fields.items()}


def server_timing(timing: Timing) -> dict[str, str]:
    """``Server-Timing`` header, in milliseconds (https://www.w3.org/TR/server-timing)."""
    return {
        "Server-Timing": f"queue;dur={1000 * timing.queue:.2f}, "
        f"inference;dur={1000 * timing.inference:.2f}, encode;dur={1000 * timing.encode:.2f}"
    }
