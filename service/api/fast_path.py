"""Fast path around FastAPI for the routes that receive thousands of requests.

FastAPI documents these routes from their signatures, like any other. Its middleware and dependency
injection take several times as long as the rest of an answer, so requests bypass both.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.body import read_body, reject_encoded_body
from service.core.image_request import explain
from service.core.text import decode_json
from service.errors import InvalidRequest, MalformedJson
from service.formats import negotiation
from service.formats.registry import MEDIA_TYPES


class FormatQuery(BaseModel):
    """Query of every route that answers with images."""

    model_config = ConfigDict(extra="forbid")

    format: str | None = Field(None, description="Overrides the Accept header.")

    def choose(self, request: Request, formats: Sequence[str]) -> str:
        """Format of the answer, one of ``formats``. Raises ``NotAcceptable``."""
        # Several lines of one header are one list (RFC 9110, 5.3).
        lines = [value for name, value in request.scope["headers"] if name == b"accept"]
        accept = b", ".join(lines).decode("latin-1")
        return negotiation.choose(accept, self.format, formats)


NO_QUERY = FormatQuery()
MAX_BODY_BYTES = 1024 * 1024
"""Enough for a thousand long labels."""
MAX_PARTS = 50_000
"""Values in the JSON: more than 1,024 labels of 40 attributes have. 1 MiB of ``[]`` takes 0.2 s."""


class FastRoute(APIRoute):
    """Route whose endpoint takes ``(body, query, request)``: a model, FormatQuery, Request."""

    # FastAPI types the handler as a coroutine function; a method that returns one does as well.
    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        return self.answer

    async def answer(self, request: Request) -> Response:
        """Answer a request. Raises ``RequestError``, and whatever the endpoint raises."""
        assert self.body_field is not None
        body = await parse_body(request, self.body_field.field_info.annotation)
        response: Response = await self.endpoint(body, _read_query(request), request)
        return response


class FastPath:
    """ASGI app that calls fast routes directly, and passes all other requests to ``app``."""

    def __init__(
        self, app: ASGIApp, routes: Iterable[BaseRoute], reject_if_full: Callable[[], None]
    ) -> None:
        """``reject_if_full`` raises ``QueueFull`` if the routes could not serve a single image."""
        self._app = app
        self._reject_if_full = reject_if_full
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
        # As FastAPI sets them: routes read the state from the app, metrics the path from the route.
        scope["app"], scope["route"] = self._app, route
        request = Request(scope, receive, send)
        try:
            self._reject_if_full()  # before the body is read: that costs more than the answer
            response = await route.answer(request)
        except Exception as error:
            response = problems.answer(error, request)
        await response(scope, receive, send)


def reject_repeats(request: Request, but: Sequence[str] = ()) -> None:
    """Raise ``InvalidRequest`` for a repeated query parameter, one of which would be ignored.

    Those in ``but`` may repeat.
    """
    names = (name for name, _ in request.query_params.multi_items())
    repeated = _first_repeated(name for name in names if name not in but)
    if repeated is not None:
        raise InvalidRequest(f"{repeated[:80]}: appears twice in the query")


def _first_repeated(names: Iterable[str]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _read_query(request: Request) -> FormatQuery:
    if not request.scope["query_string"]:
        return NO_QUERY
    reject_repeats(request)
    try:
        return FormatQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise explain(error.errors()) from None


def _number(text: str) -> float:
    """Parse 4.0 as the integer 4: JSON has one type of number, and some languages write it so."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Object without repeated names, of which Python would keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = _first_repeated(name for name, _ in pairs) or ""
        raise InvalidRequest(f"{repeated[:80]}: appears twice in one JSON object")
    return fields


JSON = json.JSONDecoder(parse_float=_number, object_pairs_hook=_unique)


async def parse_body(request: Request, model: Any) -> Any:
    """Body as an instance of ``model``; no body is the same as ``{}``."""
    headers = dict(request.scope["headers"])
    if b"content-encoding" in headers:
        reject_encoded_body(request.headers)
    content = await read_body(request.scope, request.receive, MAX_BODY_BYTES)
    media = headers.get(b"content-type", b"none").decode("latin-1")
    fields = _read_json(content, media) if content else {}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise explain(error.errors()) from None


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind == MEDIA_TYPES["json"] or kind.endswith("+json")


def _read_json(content: bytes, media: str) -> Any:
    if media != MEDIA_TYPES["json"] and not _is_json(media):
        raise InvalidRequest(
            f"body: send a JSON object with Content-Type: application/json (it was {media[:100]})"
        )
    if sum(map(content.count, (b"[", b"{", b","))) > MAX_PARTS:
        raise MalformedJson(f"the body cannot be read as JSON: it has over {MAX_PARTS:,} values")
    try:
        return JSON.decode(decode_json(content))
    except json.JSONDecodeError as error:
        raise MalformedJson(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):  # 10,000 digits, or a million brackets
        raise MalformedJson("the body cannot be read as JSON") from None
