"""Errors as HTTP answers: the one mapping, installed once."""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.api.http_constants import PROBLEM_MEDIA_TYPE
from service.api.paths import OIP, OPENAI
from service.core.image_request import explain
from service.errors import KIND, OutOfMemory, RequestError, problem, problem_bytes
from service.formats.openai_schemas import error_of
from service.formats.registry import MEDIA_TYPES
from service.observability import metrics

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Answer every error with ``application/problem+json`` and never with a traceback."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(error, request)

    for kind in (RequestError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def answer(error: Exception, request: Request) -> Response:
    """Answer to a request that raised ``error``. Unexpected errors are logged."""
    if isinstance(error, RequestValidationError):
        # FastAPI puts "path", "query" or "body" in front of each location.
        error = explain([{**fault, "loc": fault["loc"][1:]} for fault in error.errors()])
    if isinstance(error, MemoryError):
        log.error("%s %s: out of memory", request.method, request.url.path)
        error = OutOfMemory("there is not enough memory for this answer now; ask for fewer images")
    if isinstance(error, RequestError):
        return _answer(request, error.problem(), error.headers())
    if isinstance(error, HTTPException):
        title = http.HTTPStatus(error.status_code).phrase
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}. See /docs"
        return _answer(request, problem(error.status_code, title, detail), error.headers)
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    detail = "the service failed on this request; its log says why"
    return _answer(request, problem(500, "Internal error", detail))


def _answer(
    request: Request, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    metrics.REJECTIONS.labels(body["type"].removeprefix(KIND)).inc()
    path = f"{request.scope['path']}/"
    if path.startswith(f"{OPENAI}/"):
        status, error = error_of(body)
        content = problem_bytes(error.model_dump())
        return Response(content, status, headers, media_type=MEDIA_TYPES["json"])
    if path.startswith(f"{OIP}/"):
        body = {**body, "error": body["detail"]}  # the protocol's member for errors
    return Response(problem_bytes(body), body["status"], headers, media_type=PROBLEM_MEDIA_TYPE)
