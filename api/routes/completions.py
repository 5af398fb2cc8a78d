"""POST /v1/completions."""

from fastapi import APIRouter, Request, Response

from api.context import InContext, InTenant
from api.http.body import read_json_object
from api.openapi.document import takes
from api.openapi.responses import inference
from api.requests.translate import completion_job, parse_completion
from api.schema.completions import Completion, CompletionRequest
from api.submit import answer, issue_ticket

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/completions",
    summary="Continue a text",
    responses=inference(Completion),
    openapi_extra=takes(CompletionRequest),
)
async def create_completion(request: Request, context: InContext, tenant: InTenant) -> Response:
    """The prompt goes to the model as it is, without a chat template.

    `max_tokens` is 16 by default, as in OpenAI's API.
    """
    body = parse_completion(await read_json_object(request, context.settings.max_body_bytes))
    return answer(context, body, completion_job(body, await issue_ticket(context, tenant, body)))
