"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from api.admission import admit
from api.answer import Answer
from api.context import InContext, InTenant
from api.http.body import read_json_object
from api.openapi.document import takes
from api.openapi.responses import inference
from api.requests.translate import chat_job, parse_chat
from api.schema.chat import ChatCompletion, ChatCompletionRequest

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/chat/completions",
    summary="Create a chat completion",
    responses=inference(ChatCompletion),
    openapi_extra=takes(ChatCompletionRequest),
)
async def create_chat_completion(
    request: Request, context: InContext, tenant: InTenant
) -> Response:
    """Generate the next message of a conversation.

    With `stream`, the answer is sent as server-sent events with `chat.completion.chunk` objects.

    Fields of OpenAI's API that aren't listed here are accepted only with a value that has no
    effect. Any other value is refused with an error that names the field.
    """
    body = parse_chat(await read_json_object(request, context.settings.max_body_bytes))
    admission = await admit(context, tenant, body.model)
    return Answer(context, body, chat_job(body, admission))
