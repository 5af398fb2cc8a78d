"""POST /v1/completions."""

from fastapi import APIRouter, Request, Response

from api.admission import admit
from api.answer import Answer
from api.context import InContext, InTenant
from api.http.body import read_json_object
from api.openapi.document import takes
from api.openapi.responses import inference
from api.requests.translate import completion_job, parse_completion
from api.schema.completions import Completion, CompletionRequest

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/completions",
    summary="Create a completion",
    responses=inference(Completion),
    openapi_extra=takes(CompletionRequest),
)
async def create_completion(request: Request, context: InContext, tenant: InTenant) -> Response:
    """Continue one or more prompts. The model receives them unchanged, without a chat template.

    `max_tokens` defaults to 16, as in OpenAI's API.
    """
    body = parse_completion(await read_json_object(request, context.settings.max_body_bytes))
    admission = await admit(context, tenant, body.model)
    return Answer(context, body, completion_job(body, admission))
