"""GET /docs and /openapi.json: Swagger UI, with the names of all models."""

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

from api.http.errors import json_response
from api.http.guards import Key, Work, guarded
from api.http.openapi_document import document_of
from api.openapi.document import with_models
from api.pools.requested import InPool
from api.routes.models import model_cards
from shared.errors import RedisUnavailable
from shared.protocol.access.rights import Access

SCRIPT, STYLE, ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
"""Files that the page /docs loads. Like the page, they need no API key."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
"""Content security policy of the page: the browser contacts no other host."""
_DAY_S = 86400

router = APIRouter(include_in_schema=False)
_files = StaticFiles(packages=[("fastapi_swagger", "resources")])


@router.get("/docs")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def swagger_ui(pool: InPool) -> Response:
    """Return Swagger UI."""
    root = pool.root_path
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Lorikeet",
        swagger_js_url=f"{root}/docs/{SCRIPT}",
        swagger_css_url=f"{root}/docs/{STYLE}",
        swagger_favicon_url=f"{root}/docs/{ICON}",
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@router.get(f"/docs/{SCRIPT}")
@router.get(f"/docs/{STYLE}")
@router.get(f"/docs/{ICON}")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def swagger_file(request: Request) -> Response:
    """Return a file of Swagger UI, or status 304 if the client has it already."""
    name = request.scope["path"].rpartition("/")[2]
    response = await _files.get_response(name, request.scope)
    response.headers["Cache-Control"] = f"public, max-age={_DAY_S}"
    return response


@router.get("/openapi.json")
@guarded(Work.SUMMARY, key=Key.OPTIONAL)
async def openapi(request: Request) -> Response:
    """Return the OpenAPI document.

    The document omits the names of models if Redis is unavailable, or if the server needs API
    keys and the client sent no valid key.
    """
    access: Access | None = request.state.access
    needs_keys = access is None or not access.is_anonymous
    document = await document_of(request.app, with_keys=needs_keys)
    try:
        cards = await model_cards(request, access) if access else []
    except RedisUnavailable:
        cards = []
    return json_response(with_models(document, cards))
