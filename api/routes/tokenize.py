"""POST /tokenize, POST /detokenize and GET /tokenizer_info, as in vLLM.

SGLang has the first two below /v1, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from api.answers.admission import admit
from api.answers.parts import Intake
from api.answers.remote_images import with_remote_images
from api.answers.submission import parse_request
from api.answers.tokenization import TokenizerCalls
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import errors, takes
from api.pools.pool import Pool
from api.pools.pools import pools_of
from api.pools.registered_base import registered_base
from api.pools.requested import part
from api.requests.tokenize import encode_call, parse_detokenize, parse_tokenize
from api.requests.translate import Admission
from api.schema.tokenize import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from shared.protocol.access.rights import Access, Scope
from shared.protocol.tokenization import Decode, Describe

router = APIRouter(tags=["inference"])
B = TypeVar("B", TokenizeRequest, DetokenizeRequest)


@router.post("/v1/tokenize", include_in_schema=False)
@router.post(
    "/tokenize",
    summary="Tokenize a text or a chat",
    response_model=Tokenized,
    responses=errors(400, 404, 413, 500, 503),
    openapi_extra=takes(TokenizeRequest),
)
@guarded(Work.TOKENIZATION, Scope.INFERENCE)
async def tokenize(request: Request, access: InAccess) -> Response:
    """Return the tokens of a text or a chat, without running the model.

    A chat is rendered with the adapter's own chat template if `model` names an adapter that has
    one.
    """
    raw = await with_remote_images(request, access, await read_json_object(request))
    body, headers = _parsed(request, raw, parse_tokenize)
    pool = await pools_of(request).of_model(request, body.model)
    admission = await _admit(pool, access, body.model)
    reply = await pool.part(TokenizerCalls).ask(access.tenant, encode_call(body, admission))
    answer = {
        "count": len(reply.ids),
        "max_model_len": admission.max_model_len,
        "tokens": reply.ids,
        "token_strs": reply.names,
    }
    return json_response(answer, headers=headers)


@router.post("/v1/detokenize", include_in_schema=False)
@router.post(
    "/detokenize",
    summary="Return the text of tokens",
    response_model=Detokenized,
    responses=errors(400, 404, 413, 500, 503),
    openapi_extra=takes(DetokenizeRequest),
)
@guarded(Work.TOKENIZATION, Scope.INFERENCE)
async def detokenize(request: Request, access: InAccess) -> Response:
    """Return the text of token ids, including special tokens."""
    body, headers = _parsed(request, await read_json_object(request), parse_detokenize)
    pool = await pools_of(request).of_model(request, body.model)
    await _admit(pool, access, body.model)
    reply = await pool.part(TokenizerCalls).ask(access.tenant, Decode(ids=tuple(body.tokens)))
    text = dict.fromkeys(("prompt", "content", "text"), reply.text)
    return json_response(text, headers=headers)


@router.get(
    "/tokenizer_info",
    summary="Describe the tokenizer",
    response_model=TokenizerInfo,
    responses=errors(500, 503),
)
@guarded(Work.TOKENIZATION, Scope.INFERENCE)
async def tokenizer_info(
    access: InAccess, tokenizer: TokenizerCalls = part(TokenizerCalls)
) -> Response:
    """Return the special tokens and the chat template of the base model's tokenizer."""
    reply = await tokenizer.ask(access.tenant, Describe())
    return json_response(reply.description)


def _parsed(
    request: Request, raw: dict[str, Any], parse: Callable[[dict[str, Any]], B]
) -> tuple[B, dict[str, str]]:
    """Return the validated body of a request, and the headers for its response."""
    body, _, headers = parse_request(request, partial(parse, raw))
    return body, headers


async def _admit(pool: Pool, access: Access, model: str | None) -> Admission:
    """Return the admission of a request. A request without `model` is for the base model."""
    if model is None:
        model = (await registered_base(pool.registry)).name
    return await admit(pool.part(Intake), access, model)
