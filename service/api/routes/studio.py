"""``GET /``: the studio, a page for exploring the models, and its files."""

from __future__ import annotations

import mimetypes
from importlib import resources

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from service.api.caching import page

router = APIRouter(include_in_schema=False)
PAGE = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only files of this origin, and images that the page has in memory."""
FILES = {
    entry.name: entry.read_bytes()
    for entry in resources.files("service").joinpath("client", "studio").iterdir()
}


@router.get("/")
async def show_studio(request: Request) -> Response:
    """The studio."""
    return _answer(PAGE, request)


@router.get("/studio/{name}")
async def show_file(name: str, request: Request) -> Response:
    """A file of the studio."""
    if name not in FILES:
        raise HTTPException(404, "the studio has no such file")
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return page(request, FILES[name], media_type, POLICY)
