"""Paths with a role of their own: probes, pages, and prefixes of the protocols of others."""

from __future__ import annotations

import re

LIVE, READY = "/healthz", "/readyz"
OIP, OPENAI = "/v2", "/v1"
"""Prefixes of the Open Inference Protocol and of OpenAI's API."""
OIP_LIVE, OIP_READY = f"{OIP}/health/live", f"{OIP}/health/ready"
PROBES = (LIVE, READY, OIP_LIVE, OIP_READY)
READINESS = re.compile(rf"{READY}|{OIP}/(health|models/.+)/ready")
"""Probes that fail while the server drains, so that load balancers stop sending requests."""

STUDIO, STUDIO_FILES = "/", "/studio/"
DOCS, DOCS_FILES = "/docs", "/static-offline-docs/"
OPENAPI = "/openapi.json"

PUBLIC = (*PROBES, STUDIO, DOCS, OPENAPI)
"""Paths without an API key. They describe the service, and give no images or models."""
PUBLIC_FOLDERS = (STUDIO_FILES, DOCS_FILES)


def is_public(path: str) -> bool:
    """True if ``path`` takes no API key."""
    return path in PUBLIC or path.startswith(PUBLIC_FOLDERS)
