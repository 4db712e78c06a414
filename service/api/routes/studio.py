"""``GET /``: the studio, a page for exploring the models, and its files."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)
PAGE = "index.html"
HEADERS = {
    # Only files of this origin, and images that the page has in memory.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class File:
    content: bytes
    media_type: str
    etag: str


def _read() -> dict[str, File]:
    files = {}
    for entry in resources.files("service").joinpath("client", "studio").iterdir():
        content = entry.read_bytes()
        media_type, _ = mimetypes.guess_type(entry.name)
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        files[entry.name] = File(content, media_type or "application/octet-stream", etag)
    return files


FILES = _read()


@router.get("/")
async def show_studio(request: Request) -> Response:
    """The studio."""
    return _answer(FILES[PAGE], request)


@router.get("/studio/{name}")
async def show_file(name: str, request: Request) -> Response:
    """A file of the studio."""
    if name not in FILES:
        raise HTTPException(404, "the studio has no such file")
    return _answer(FILES[name], request)


def _answer(file: File, request: Request) -> Response:
    headers = HEADERS | {"ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
