"""Errors as HTTP answers: the one mapping, installed once."""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.errors import InvalidRequest, RequestError, problem

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Answer every error with ``application/problem+json`` and never with a traceback."""

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        return _answer(error.problem())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(_explain(error.errors(), request))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == http.HTTPStatus.BAD_REQUEST:  # FastAPI's, for a body it cannot read
            return _answer(problem(400, "Malformed JSON", "the body cannot be read as JSON"))
        title = http.HTTPStatus(error.status_code).phrase
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}. See /docs"
        return _answer(problem(error.status_code, title, detail), error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        detail = "the service failed on this request; its log says why"
        return _answer(problem(500, "Internal error", detail))


def _answer(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    # In ASCII: a request may hold half a surrogate pair, which has no UTF-8.
    return Response(json.dumps(body), body["status"], headers, media_type=MEDIA_TYPE)


def _explain(faults: Sequence[Mapping[str, Any]], request: Request) -> dict[str, Any]:
    """The faults that FastAPI found, in a sentence each; bodies that are no JSON answer 400."""
    for fault in faults:
        if fault["type"] == "json_invalid":
            detail = (
                f"the body is not JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}"
            )
            return problem(400, "Malformed JSON", detail)
    listed = [{"field": _field(fault["loc"]), "problem": fault["msg"]} for fault in faults]
    sentences = list(dict.fromkeys(f"{item['field']}: {item['problem']}" for item in listed))
    media = request.headers.get("content-type", "none")
    if listed[0]["field"] == "body" and "json" not in media:
        sentences.append(f"send a JSON object with Content-Type: application/json (it was {media})")
    return InvalidRequest("; ".join(sentences)[:2000], errors=listed[:20]).problem()


def _field(location: Sequence[str | int]) -> str:
    """``("body", "from", "seed")`` as ``from.seed``."""
    path = location[1:] if len(location) > 1 else location
    return ".".join(str(part)[:80] for part in path)
