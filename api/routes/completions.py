"""POST /v1/chat/completions and /v1/completions."""

from fastapi import APIRouter, Request, Response

from api.answers.submission import submit
from api.http.guards import InAccess, Work, guarded
from api.http.parameters import INFERENCE
from api.openapi.entries import inference, takes
from api.requests.translate import chat_job, completion_job, parse_chat, parse_completion
from api.schema.chat import ChatCompletion, ChatCompletionRequest
from api.schema.completions import Completion, CompletionRequest
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


@router.post(
    "/v1/completions",
    summary="Create a completion",
    responses=inference(Completion),
    openapi_extra=takes(CompletionRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_completion(request: Request, access: InAccess) -> Response:
    """Continue one or more prompts. The model receives them unchanged, without a chat template.

    `max_tokens` defaults to 16, as in OpenAI's API. With `echo` it may be 0, to score prompts.
    """
    return await submit(request, access, parse_completion, completion_job)
