"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from api.access.requested import InAccess
from api.answers.submission import submit
from api.http.guards import Work, guarded
from api.http.parameters import INFERENCE
from api.openapi.document import takes
from api.openapi.responses import inference
from api.requests.translate import chat_job, parse_chat
from api.schema.chat import ChatCompletion, ChatCompletionRequest
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/chat/completions",
    summary="Create a chat completion",
    responses=inference(ChatCompletion),
    openapi_extra=takes(ChatCompletionRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_chat_completion(request: Request, access: InAccess) -> Response:
    """Generate the next message of a conversation.

    With `stream`, the answer is sent as server-sent events with `chat.completion.chunk` objects.

    Fields of OpenAI's API that aren't listed here are accepted only with a value that has no
    effect. Any other value is refused with an error that names the field.
    """
    return await submit(request, access, parse_chat, chat_job)
