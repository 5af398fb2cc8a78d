"""/v1/responses: OpenAI's Responses API."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.answers.answer import AttachedAnswer
from api.answers.parts import Following
from api.answers.remote_images import with_remote_images
from api.answers.submission import submit_viewed
from api.answers.tokenization import count_prompt
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.parameters import INFERENCE, query
from api.openapi.entries import errors, inference, takes
from api.pools.pools import pools_of
from api.pools.requested import part
from api.render.typed_stream import BEGINNING, After
from api.responses.input_items import ITEMS_PARAMETERS, input_items_body, read_page
from api.responses.items import Item
from api.responses.stored import earlier_items, own_response, retrieved_body
from api.responses.translate import parse_prompt, parse_response, viewed_prompt, viewed_response
from api.schema.responses import (
    DeletedResponse,
    InputItems,
    InputTokens,
    ResponseBody,
    ResponsePrompt,
    ResponseRequest,
)
from shared.errors import invalid_value
from shared.protocol.access.rights import Access, Scope
from shared.protocol.ids import JobId
from shared.protocol.jobs import UNFINISHED, JobState
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

router = APIRouter(tags=["inference"])
ERRORS = errors(400, 404, 503)
STREAM, STARTING_AFTER = "stream", "starting_after"
_PARAMETERS = [
    query(STREAM, "Whether to send the response as a stream.", {"type": "boolean"}),
    query(
        STARTING_AFTER,
        "sequence_number of the event after which the stream begins.",
        {"type": "integer", "minimum": 0},
    ),
]


@router.post(
    "/v1/responses",
    summary="Create a response",
    responses=inference(ResponseBody),
    openapi_extra=takes(ResponseRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_response(request: Request, access: InAccess) -> Response:
    """Generate a response to text, or to the items of a conversation.

    With `stream`, the response is sent as typed server-sent events. With `background`, the response
    is generated even if its client disconnects, and the client can retrieve it later.
    """
    return await answer_response(request, access, await read_json_object(request))


async def answer_response(request: Request, access: Access, raw: dict[str, Any]) -> Response:
    """Return the response to a request with the body `raw`."""
    body = parse_response(await with_remote_images(request, access, raw))
    earlier = await _earlier_items(request, access, body.previous_response_id)
    return await submit_viewed(request, access, raw, viewed_response(body, earlier))


@router.post(
    "/v1/responses/input_tokens",
    summary="Count the tokens of a response's input",
    response_model=InputTokens,
    responses=errors(400, 404, 413, 500, 503),
    openapi_extra=takes(ResponsePrompt),
)
@guarded(Work.TOKENIZATION, Scope.INFERENCE)
async def count_input_tokens(request: Request, access: InAccess) -> Response:
    """Return the number of input tokens that the same request to /v1/responses has.

    Fields of /v1/responses that don't change the prompt are accepted and have no effect.
    """
    raw = await with_remote_images(request, access, await read_json_object(request))
    prompt = parse_prompt(raw)
    earlier = await _earlier_items(request, access, prompt.previous_response_id)
    num_tokens, headers = await count_prompt(request, access, viewed_prompt(prompt, earlier))
    return json_response(InputTokens(input_tokens=num_tokens).model_dump(), headers=headers)


@router.get(
    "/v1/responses/{response_id}",
    summary="Get a response",
    response_model=ResponseBody,
    responses=ERRORS,
    openapi_extra={"parameters": _PARAMETERS},
)
@guarded(Work.STREAM, Scope.INFERENCE)
async def get_response(
    response_id: str,
    request: Request,
    access: InAccess,
    views: PoolViews = part(PoolViews),
    following: Following = part(Following),
    queue: Queue = part(Queue),
) -> Response:
    """Return a stored response in its current state, or its events as a stream.

    If the client of a response has disconnected, this request keeps the response from being
    cancelled, if it arrives in time.
    """
    if (stream := request.query_params.get(STREAM)) not in (None, "true", "false"):
        raise invalid_value(f"{STREAM}: must be true or false", STREAM)
    is_stream = stream == "true"
    after = _starting_after(request.query_params.get(STARTING_AFTER), is_stream=is_stream)
    view, result = await own_response(views, access, response_id)
    if is_stream:
        return AttachedAnswer(following, view, is_stream=True, after=after)
    if view.state in UNFINISHED:
        await queue.undo_abandon(view.id)
    return json_response(retrieved_body(view, result))


@router.post(
    "/v1/responses/{response_id}/cancel",
    summary="Cancel a response",
    response_model=ResponseBody,
    responses=ERRORS,
)
@guarded(Work.RECORD, Scope.INFERENCE)
async def cancel_response(
    response_id: str,
    access: InAccess,
    views: PoolViews = part(PoolViews),
    queue: Queue = part(Queue),
) -> Response:
    """Cancel a response that runs in the background, and return it.

    Cancelling a response that has already ended has no effect.
    """
    view, _ = await own_response(views, access, response_id)
    if not (view.spec.request or {})["echo"]["background"]:
        raise invalid_value("only a response with background: true can be cancelled", "response_id")
    state = await queue.cancel(view.id)
    view, result = await own_response(views, access, response_id)
    body = retrieved_body(view, result)
    if state is JobState.RUNNING and view.state in UNFINISHED:
        body["status"] = "cancelled"  # the worker has been asked to stop
    return json_response(body)


@router.delete("/v1/responses/{response_id}", summary="Delete a response", responses=ERRORS)
@guarded(Work.RECORD, Scope.INFERENCE)
async def delete_response(
    response_id: str,
    access: InAccess,
    views: PoolViews = part(PoolViews),
    queue: Queue = part(Queue),
) -> DeletedResponse:
    """Erase a response with its input. Later responses of the conversation keep copies of both.

    If the response is in progress, it is only cancelled. Once it has ended, a second request erases
    it.
    """
    view, _ = await own_response(views, access, response_id)
    return DeletedResponse(id=response_id, deleted=await _erase(queue, view.id))


@router.get(
    "/v1/responses/{response_id}/input_items",
    summary="List the input items of a response",
    response_model=InputItems,
    responses=ERRORS,
    openapi_extra={"parameters": ITEMS_PARAMETERS},
)
@guarded(Work.READ, Scope.INFERENCE)
async def list_input_items(
    response_id: str, request: Request, access: InAccess, views: PoolViews = part(PoolViews)
) -> Response:
    """Return the input items of a response, including the conversation before it.

    By default, the newest item comes first.
    """
    page = read_page(request.query_params)
    view, _ = await own_response(views, access, response_id)
    return json_response(input_items_body(view.spec, page))


async def _erase(queue: Queue, job_id: JobId) -> bool:
    """Erase a job. If it hasn't ended, cancel it first. Return whether the job was erased."""
    if await queue.erase(job_id) not in UNFINISHED:
        return True
    await queue.cancel(job_id)
    return await queue.erase(job_id) not in UNFINISHED


async def _earlier_items(request: Request, access: Access, previous: str | None) -> list[Item]:
    """Return the items of the conversation that a request continues."""
    pool = await pools_of(request).of_job(request, previous)
    max_bytes: int = request.app.state.max_body_bytes
    return await earlier_items(pool.views, access, previous, max_bytes=max_bytes)


def _starting_after(value: str | None, *, is_stream: bool) -> After:
    if value is None:
        return BEGINNING
    if not (is_stream and value.isascii() and value.isdecimal() and len(value) <= 15):
        reason = "must be the sequence_number of an event" if is_stream else "needs stream=true"
        raise invalid_value(f"{STARTING_AFTER}: {reason}", STARTING_AFTER)
    return After(int(value))
