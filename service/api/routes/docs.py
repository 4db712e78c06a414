"""``GET /docs``: the OpenAPI document as a page, with files of our own (no CDN).

Its addresses are relative, so that it works below a path that a proxy removes.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

from service.api.paths import DOCS, DOCS_FILES, OPENAPI

router = APIRouter(include_in_schema=False)


@router.get(DOCS)
async def show_docs(request: Request) -> Response:
    """Swagger UI."""
    files = DOCS_FILES.removeprefix("/")
    return get_swagger_ui_html(
        openapi_url=OPENAPI.removeprefix("/"),
        title=f"{request.app.title}: API",
        oauth2_redirect_url=None,
        swagger_js_url=f"{files}swagger-ui-bundle.js",
        swagger_css_url=f"{files}swagger-ui.css",
        swagger_favicon_url=f"{files}favicon.png",
    )
