"""Ollama's routes for answers and embeddings: POST /api/chat, generate, embed and embeddings."""

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from api.answers.admission import admit
from api.answers.parts import Intake
from api.answers.submission import parse_request, submit_viewed
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.parameters import INFERENCE
from api.ollama import embed
from api.ollama.body import head
from api.ollama.chat import parse_chat, viewed_chat
from api.ollama.embed import parse_embed, parse_embeddings, viewed_embed, viewed_embeddings
from api.ollama.fields import unused_fields
from api.ollama.generate import parse_generate, viewed_generate
from api.ollama.names import untagged
from api.openapi.entries import takes, viewed_inference
from api.pools.pools import pools_of
from api.render.sse import JSON_LINES_TYPE
from api.requests.ignored_fields import OtherFields
from api.schema.ollama import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaRequest,
)
from api.schema.ollama_fields import is_unload
from api.schema.ollama_models import (
    OllamaChat,
    OllamaEmbedding,
    OllamaEmbeddings,
    OllamaError,
    OllamaGenerated,
)
from shared.protocol.access.rights import Access, Scope

router = APIRouter(tags=["ollama"])
_MESSAGES = [{"role": "user", "content": "hi"}]
"""Used in place of the messages of a request that has none."""


@router.post(
    "/api/chat",
    summary="Create a message, as in Ollama",
    responses=viewed_inference(OllamaChat, OllamaError, stream=JSON_LINES_TYPE),
    openapi_extra=takes(OllamaChatRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_chat(request: Request, access: InAccess) -> Response:
    """Generate the next message of a conversation, in the format of Ollama's API.

    By default, the answer is a stream of JSON objects, one on each line. Errors have Ollama's
    format.
    """
    raw, model = await _read(request)
    body = parse_chat(raw)
    if not body.messages:
        asked = body.model_copy(update={"messages": _MESSAGES})
        viewed_chat(asked, model).parse()  # checks the tools
        message = {"message": {"role": "assistant", "content": ""}}
        return await _loaded(request, access, body, message | _ended(body), model)
    return await submit_viewed(request, access, raw, viewed_chat(body, model))


@router.post(
    "/api/generate",
    summary="Create a text, as in Ollama",
    responses=viewed_inference(OllamaGenerated, OllamaError, stream=JSON_LINES_TYPE),
    openapi_extra=takes(OllamaGenerateRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_text(request: Request, access: InAccess) -> Response:
    """Answer a prompt, in the format of Ollama's API. With raw, continue it instead.

    By default, the answer is a stream of JSON objects, one on each line. Errors have Ollama's
    format.
    """
    raw, model = await _read(request)
    body = parse_generate(raw)
    if not body.prompt:
        return await _loaded(request, access, body, {"response": "", **_ended(body)}, model)
    return await submit_viewed(request, access, raw, viewed_generate(body, model))


@router.post(
    "/api/embed",
    summary="Create embeddings, as in Ollama",
    responses=viewed_inference(OllamaEmbeddings, OllamaError),
    openapi_extra=takes(OllamaEmbedRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_embeddings(request: Request, access: InAccess) -> Response:
    """Return the embedding of each input, in the format of Ollama's API."""
    raw, model = await _read(request)
    body = parse_embed(raw)
    if not body.input:
        return await _without_input(request, access, body, {"model": model, "embeddings": []})
    return await submit_viewed(request, access, raw, viewed_embed(body, model))


@router.post(
    "/api/embeddings",
    summary="Create one embedding, as in Ollama",
    responses=viewed_inference(OllamaEmbedding, OllamaError),
    openapi_extra=takes(OllamaEmbeddingsRequest, parameters=INFERENCE),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_embedding(request: Request, access: InAccess) -> Response:
    """Return the embedding of a prompt, in the format of Ollama's older route."""
    raw, model = await _read(request)
    body = parse_embeddings(raw)
    if not body.prompt:
        return await _without_input(request, access, body, {"embedding": []})
    return await submit_viewed(request, access, raw, viewed_embeddings(body, model))


async def _read(request: Request) -> tuple[dict[str, Any], str]:
    """Return the body of a request, and the model's name as the client sent it.

    In the body, the model's name has no tag.
    """
    raw = await read_json_object(request)
    sent = raw.get("model")
    return raw | {"model": await untagged(request, sent)}, sent if isinstance(sent, str) else ""


def _ended(body: OllamaRequest) -> dict[str, Any]:
    reason = "unload" if is_unload(body.keep_alive) else "load"
    return {"done": True, "done_reason": reason}


async def _loaded(
    request: Request, access: Access, body: OllamaRequest, answer: dict[str, Any], model: str
) -> Response:
    """Answer a request to load or unload a model. The request has no effect.

    Workers load and unload models by themselves when it is needed.
    """
    fields = {**head(model, time.time()), **answer}
    return await _at_once(request, access, body, unused_fields(body), fields)


async def _without_input(
    request: Request, access: Access, body: embed.AnyRequest, answer: dict[str, Any]
) -> Response:
    return await _at_once(request, access, body, embed.unused_fields(body), answer)


async def _at_once(
    request: Request,
    access: Access,
    body: OllamaRequest | embed.AnyRequest,
    ignored: Iterator[str],
    answer: dict[str, Any],
) -> Response:
    """Answer a request that needs no job, if the client may use its model.

    Raises:
        JobFailed: the model isn't served.
    """
    _, _, headers = parse_request(request, lambda: body, OtherFields(ignored=tuple(ignored)))
    pool = await pools_of(request).of_model(request, body.model)
    await admit(pool.part(Intake), access, body.model)
    return json_response(answer, headers=headers)
