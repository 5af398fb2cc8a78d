"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from api.context import InContext, InTenant
from api.http.body import read_json_object
from api.openapi.document import takes
from api.openapi.responses import inference
from api.requests.translate import chat_job, parse_chat
from api.schema.chat import ChatCompletion, ChatCompletionRequest
from api.submit import answer, issue_ticket

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    responses=inference(ChatCompletion),
    openapi_extra=takes(ChatCompletionRequest),
)
async def create_chat_completion(
    request: Request, context: InContext, tenant: InTenant
) -> Response:
    """With `stream`, the answer comes as server-sent events of `chat.completion.chunk` objects.

    A field of OpenAI's API that isn't listed here may be sent with the value that asks for nothing;
    otherwise it is refused by name.
    """
    body = parse_chat(await read_json_object(request, context.settings.max_body_bytes))
    return answer(context, body, chat_job(body, await issue_ticket(context, tenant, body)))
