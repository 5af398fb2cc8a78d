"""Ollama's routes about models: GET /api/tags, /api/ps and /api/version, POST /api/show."""

from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from api.answers.submission import parse_request
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Key, Work, guarded
from api.http.validation import validate
from api.ollama.names import untagged
from api.ollama.served import served_model, served_models
from api.openapi.entries import errors, takes
from api.requests.ignored_fields import OtherFields
from api.schema.ollama_models import (
    OllamaError,
    OllamaModels,
    OllamaRunningModels,
    OllamaShown,
    OllamaShowRequest,
    OllamaVersion,
)
from shared.errors import invalid_param
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["ollama"])
API_VERSION = "0.32.15"
"""Release of Ollama whose API these routes have."""
_UNUSED = ("verbose", "system", "template", "options")
"""Fields of /api/show that have no effect."""
_LISTS = errors(503, body=OllamaError)


@router.head("/api/tags", include_in_schema=False)
@router.get(
    "/api/tags",
    summary="List models, as Ollama does",
    response_model=OllamaModels,
    responses=_LISTS,
)
@guarded(Work.SUMMARY, Scope.INFERENCE, Scope.ADAPTERS)
async def list_models(request: Request, access: InAccess) -> Response:
    """Return the base model and all adapters. Each `name` can be the `model` of a request."""
    models = await served_models(request, access)
    return json_response({"models": [model.listed() for model in models]})


@router.get(
    "/api/ps",
    summary="List loaded models, as Ollama does",
    response_model=OllamaRunningModels,
    responses=_LISTS,
)
@guarded(Work.SUMMARY, Scope.INFERENCE, Scope.ADAPTERS)
async def list_running_models(request: Request, access: InAccess) -> Response:
    """Return the models that workers hold. Workers load other models at their first request."""
    models = await served_models(request, access)
    return json_response({"models": [model.running() for model in models if model.is_held]})


@router.post(
    "/api/show",
    summary="Show a model, as Ollama does",
    response_model=OllamaShown,
    responses=errors(400, 404, 413, 503, body=OllamaError),
    openapi_extra=takes(OllamaShowRequest),
)
@guarded(Work.LOOKUP, Scope.INFERENCE, Scope.ADAPTERS)
async def show_model(request: Request, access: InAccess) -> Response:
    """Return the capabilities, the context length and other properties of a model."""
    body = validate(OllamaShowRequest, await read_json_object(request))
    if not body.named:
        raise invalid_param("model", "is required")
    unused = [name for name in _UNUSED if getattr(body, name)]
    _, _, headers = parse_request(request, lambda: body, OtherFields(ignored=unused))
    name = str(await untagged(request, body.named))
    model = await served_model(request, access, name)
    return json_response(model.shown(), headers=headers)


@router.head("/api/version", include_in_schema=False)
@router.get("/api/version", summary="Version of Ollama's API")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def get_version() -> OllamaVersion:
    """Return the version of Ollama that clients may assume, and the version of Lorikeet."""
    return OllamaVersion(version=API_VERSION, lorikeet=version("lorikeet-serve"))
