"""Headers of answers that caches may keep."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import Request, Response
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from service.api.state import State

CACHES = ("public", "private")
"""Caches that may keep an answer: with API keys only private ones, which serve one client."""
_CACHE_CONTROL = [f"{caches}, max-age=31536000, immutable" for caches in CACHES]
CACHING: dict[str, Any] = {
    "ETag": {"required": True, "schema": {"type": "string"}},
    "Cache-Control": {"required": True, "schema": {"type": "string", "enum": _CACHE_CONTROL}},
}
"""Description for the OpenAPI document."""


def _canonical(text: str) -> str:
    """Reject numbers such as ``007``: a cache would keep one answer under two addresses."""
    if not re.fullmatch("0|[1-9][0-9]*", text):
        raise PydanticCustomError("number", "should be a whole number such as 0 or 17")
    return text


Canonical = BeforeValidator(_canonical)
"""Spelling of numbers in a permanent path."""


def cache_headers(state: State, *parts: str) -> dict[str, str]:
    """``Cache-Control``, and a strong ETag of ``parts``: all that determines the bytes.

    So 304 and HEAD need no computation.
    """
    etag = hashlib.sha256("\0".join((state.software, *parts)).encode()).hexdigest()[:32]
    return {"ETag": f'"{etag}"', "Cache-Control": _CACHE_CONTROL[state.access.requires_key]}


def page(request: Request, content: bytes, media_type: str, policy: str) -> Response:
    """A file for browsers, with its content security policy. Caches ask whether it has changed."""
    headers = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
    }
    if is_current(request, headers):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def is_current(request: Request, caching: dict[str, str]) -> bool:
    """True if the client has these bytes already (RFC 9110, 13.1.2)."""
    sent = ",".join(request.headers.getlist("if-none-match"))
    candidates = [item.strip().removeprefix("W/") for item in sent.split(",")]
    return "*" in candidates or caching["ETag"] in candidates
