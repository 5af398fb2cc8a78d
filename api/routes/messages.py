"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API."""

from fastapi import APIRouter, Request, Response

from api.answers.remote_images import with_remote_images
from api.answers.submission import submit_viewed
from api.answers.tokenization import count_prompt
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.parameters import INFERENCE
from api.messages.translate import viewed_message, viewed_prompt
from api.openapi.entries import errors, inference, takes
from api.schema.anthropic import MessageBody, MessageRequest, PromptRequest, TokenCount
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/messages",
    summary="Create a message",
    responses=inference(MessageBody),
    openapi_extra=takes(MessageRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_message(request: Request, access: InAccess) -> Response:
    """Generate the next message of a conversation, in the format of Anthropic's API.

    With `stream`, the message is sent as typed server-sent events. The API key may be sent in the
    header `X-Api-Key`. Errors have Anthropic's format.
    """
    raw = await read_json_object(request)
    viewed = viewed_message(await with_remote_images(request, access, raw))
    return await submit_viewed(request, access, raw, viewed)


@router.post(
    "/v1/messages/count_tokens",
    summary="Count the tokens of a message's prompt",
    response_model=TokenCount,
    responses=errors(400, 404, 413, 500, 503),
    openapi_extra=takes(PromptRequest),
)
@guarded(Work.TOKENIZATION, Scope.INFERENCE)
async def count_message_tokens(request: Request, access: InAccess) -> Response:
    """Return the number of input tokens that the same request to /v1/messages has."""
    raw = await with_remote_images(request, access, await read_json_object(request))
    num_tokens, headers = await count_prompt(request, access, viewed_prompt(raw))
    return json_response({"input_tokens": num_tokens}, headers=headers)
