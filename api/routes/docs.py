"""GET /docs and /openapi.json: Swagger UI, with the names of all models."""

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

from api.context import InContext
from api.errors import json_response
from api.openapi.document import with_models
from api.openapi.shared_document import document_of
from api.routes.models import model_cards
from shared.errors import RedisUnavailable

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def swagger_ui(context: InContext) -> Response:
    """Return Swagger UI. The page loads its script from a CDN."""
    root = context.settings.root_path
    return get_swagger_ui_html(openapi_url=f"{root}/openapi.json", title="Lorikeet")


@router.get("/openapi.json")
async def openapi(request: Request, context: InContext) -> Response:
    """Return the OpenAPI document.

    The document omits the names of models if Redis is unavailable, or if the server needs API
    keys and the client sent no valid key.
    """
    document = await document_of(request.app)
    try:
        cards = await model_cards(context) if request.state.tenant else []
    except RedisUnavailable:
        cards = []
    return json_response(with_models(document, cards))
