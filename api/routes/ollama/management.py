"""Ollama's routes for changing models.

Most of them refuse all requests, because a pool's operators change its models in other ways.
"""

from fastapi import APIRouter, Request, Response

from api.answers.admission import admit
from api.answers.parts import Intake
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Key, Work, guarded
from api.http.validation import validate
from api.ollama.names import untagged
from api.ollama.stream import json_line
from api.openapi.entries import errors, takes
from api.pools.pools import pools_of
from api.render.sse import JSON_LINES_TYPE
from api.schema.ollama_models import OllamaError, OllamaPullRequest, OllamaStatus
from shared.errors import ErrorCode, JobFailed, failed, invalid_param
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["ollama"])
_LOAD = "`lorikeet adapters load NAME SOURCE`"
_INSTEAD = {
    "push": "adapters are served where they are loaded; publish the folder of the adapter instead",
    "create": f"an operator can load a LoRA adapter with {_LOAD}, with its own chat template and "
    "sampling defaults, or start a pool of another base model with `lorikeet up MODEL`",
    "copy": f"an operator can load the same source under another name with {_LOAD}",
    "delete": "an operator can unload an adapter with `lorikeet adapters unload NAME`",
    "blobs": f"send the files of an adapter to POST /v1/adapters, or load them with {_LOAD}",
}
"""For each refused route, what clients can do instead."""
_DONE = {"status": "success"}


@router.post(
    "/api/pull",
    summary="Check that a model is served, as Ollama pulls one",
    response_model=OllamaStatus,
    responses={
        200: {"content": {JSON_LINES_TYPE: {}}},
        **errors(400, 404, 413, 503, body=OllamaError),
    },
    openapi_extra=takes(OllamaPullRequest),
)
@guarded(Work.LOOKUP, Scope.INFERENCE)
async def pull_model(request: Request, access: InAccess) -> Response:
    """Report success if the model is served. Desktop programs pull a model before they use it.

    Nothing is downloaded from Ollama's library. With --adapter-source, an unknown adapter is loaded
    from there.
    """
    body = validate(OllamaPullRequest, await read_json_object(request))
    if not body.named:
        raise invalid_param("model", "is required")
    name = str(await untagged(request, body.named))
    pool = await pools_of(request).of_model(request, name)
    try:
        await admit(pool.part(Intake), access, name)
    except JobFailed as failure:
        if failure.error.code is not ErrorCode.MODEL_NOT_FOUND:
            raise
        message = f"{body.named[:200]!r} isn't served, and models can't be pulled; an operator "
        message += f"can load an adapter with {_LOAD}, or serve a base model with `lorikeet up`"
        raise failed(ErrorCode.MODEL_NOT_FOUND, message, "model") from None
    if body.stream is False:
        return json_response(_DONE)
    return Response(json_line(_DONE), media_type=JSON_LINES_TYPE)


def _unavailable(route: str) -> JobFailed:
    message = f"/api/{route} isn't available: {_INSTEAD[route]}"
    return failed(ErrorCode.UNSUPPORTED_PARAMETER, message)


@router.post("/api/push", include_in_schema=False)
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def push_model() -> Response:
    """Refuse to publish a model."""
    raise _unavailable("push")


@router.post("/api/create", include_in_schema=False)
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def create_model() -> Response:
    """Refuse to create a model from another model."""
    raise _unavailable("create")


@router.post("/api/copy", include_in_schema=False)
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def copy_model() -> Response:
    """Refuse to give a model another name."""
    raise _unavailable("copy")


@router.delete("/api/delete", include_in_schema=False)
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def delete_model() -> Response:
    """Refuse to delete a model."""
    raise _unavailable("delete")


@router.head("/api/blobs/{digest}", include_in_schema=False)
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def find_blob(digest: str) -> Response:
    """Report that no file is stored."""
    return Response(status_code=404)


@router.post("/api/blobs/{digest}", include_in_schema=False)
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def store_blob(digest: str) -> Response:
    """Refuse to store a file."""
    raise _unavailable("blobs")
