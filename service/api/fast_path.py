"""Routes without a detour, for the requests that come by the thousand.

FastAPI documents them like any other, from their signature. What it does to call one, through
layers of middleware and a tree of dependencies, takes several times as long as all the rest of an
answer, and is done here in a few lines instead.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.core.image_request import explain
from service.engine.admission import REQUEST_KEY
from service.errors import BodyTooLarge, ClientDisconnected, InvalidRequest, MalformedJson
from service.formats.registry import MEDIA_TYPES


class FormatQuery(BaseModel):
    """The query of every request that is answered with images."""

    model_config = ConfigDict(extra="forbid")

    format: str | None = Field(None, description="Wins over the Accept header.")


NO_QUERY = FormatQuery()
MAX_BODY = 1024 * 1024
"""Bytes: room for a thousand long labels."""


class FastRoute(APIRoute):
    """A route whose endpoint takes ``(body, query, request)``: a model, FormatQuery, Request."""

    # FastAPI types the handler as a coroutine function; a method that returns one does as well.
    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        return self.answer

    async def answer(self, request: Request) -> Response:
        """Raises ``RequestError``, and what nobody expects."""
        assert self.body_field is not None
        body = await _read_body(request, self.body_field.field_info.annotation)
        response: Response = await self.endpoint(body, _read_query(request), request)
        return response


class FastPath:
    """Hands requests to direct routes before any other layer sees them."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in routes
            if isinstance(route, FastRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope.get("method", ""), scope.get("path", "")))
        if route is None:
            await self._app(scope, receive, send)
            return
        # As FastAPI does: routes find the service's state in the one, metrics a name in the other.
        scope["app"], scope["route"] = self._app, route
        request = Request(scope, receive, send)
        try:
            response = await route.answer(request)
        except Exception as error:
            response = problems.answer(error, request)
        await response(scope, receive, send)


def refuse_repeats(request: Request) -> None:
    """Raise ``InvalidRequest`` where a query parameter stands twice: one would be ignored."""
    names = [name for name, _ in request.query_params.multi_items()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidRequest(f"{repeated[0][:80]}: stands twice in the query")


def _read_query(request: Request) -> FormatQuery:
    if not request.scope["query_string"]:
        return NO_QUERY
    refuse_repeats(request)
    try:
        return FormatQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise explain(error.errors()) from None


def _number(text: str) -> float:
    """JSON knows one kind of number: some languages write the integer 4 as 4.0."""
    number = float(text)
    return int(number) if number.is_integer() else number


JSON = json.JSONDecoder(parse_float=_number)


async def receive_body(request: Request, most: int) -> bytes:
    """All of it, which from now on is part of what the request is known by (``line.REQUEST_KEY``).

    Raises ``BodyTooLarge`` as soon as there are more than ``most`` bytes, and does not read on.
    """
    declared = request.headers.get("content-length", "")
    parts: list[bytes] = []
    size = int(declared) if declared.isdecimal() and int(declared) > most else 0
    more = True
    while more and size <= most:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the caller has gone")
        parts.append(message["body"])
        size += len(message["body"])
        more = message["more_body"]
    if size > most:
        raise BodyTooLarge(f"the body may have at most {most} bytes")
    content = b"".join(parts)
    REQUEST_KEY.set(hash((REQUEST_KEY.get(), content)))
    return content


async def _read_body(request: Request, model: Any) -> Any:
    content = await receive_body(request, MAX_BODY)
    if not content:
        raise InvalidRequest("body: Field required")
    media = request.headers.get("content-type", "none")
    kind = media.partition(";")[0].strip().lower()
    if kind != MEDIA_TYPES["json"] and not kind.endswith("+json"):
        raise InvalidRequest(
            f"body: send a JSON object with Content-Type: application/json (it was {media[:100]})"
        )
    try:
        found = JSON.decode(content.decode())
    except json.JSONDecodeError as error:
        raise MalformedJson(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):  # no UTF-8, a number of 10,000 digits, a million brackets
        raise MalformedJson("the body cannot be read as JSON") from None
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise explain(error.errors()) from None
