"""Reads the body of a request, for most routes as a JSON object."""

from typing import Any, NoReturn

import orjson
from fastapi import Request

from api.http.content_encoding import Decoder
from api.http.turns.checks import begin_check
from shared import python_json
from shared.errors import ErrorCode, failed
from shared.json_text import JsonBudget, TooComplex


async def read_json_object(request: Request) -> dict[str, Any]:
    """Read the body of the request, of the size that the app accepts, as a JSON object.

    Raises:
        JobFailed: as in `read_body` and `parse_json_object`.
    """
    body = await read_body(request, request.app.state.max_body_bytes)
    request.state.num_body_bytes = len(body)
    await begin_check(request)
    return parse_json_object(body)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    NaN and infinities are accepted here, so that `validate` can name the field that contains one.

    Raises:
        JobFailed: `body` isn't a JSON object, or is too complex to be checked.
    """
    try:
        JsonBudget().spend(body)
    except TooComplex as error:
        _reject(f"the body's JSON {error}")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_with_nan(body, str(error))
    if not isinstance(value, dict):
        _reject("the body must be a JSON object")
    return value


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body, and decompress it if the header Content-Encoding says gzip.

    The limit holds for the decompressed body, and even if the header Content-Length is missing or
    wrong.

    Raises:
        JobFailed: the body is larger than `max_bytes`, its encoding isn't supported, or it isn't
            valid gzip data.
    """
    decoder = Decoder(request.headers.get("content-encoding", ""), max_bytes)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        _reject_size(max_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        decoded = decoder.decode(chunk)
        size += len(decoded)
        if size > max_bytes:
            _reject_size(max_bytes)
        chunks.append(decoded)
    decoder.finish()
    return b"".join(chunks)


def _parse_with_nan(body: bytes, reason: str) -> Any:
    """Parse JSON as Python writes it."""
    try:
        value = python_json.loads(body.decode(), JsonBudget())
        orjson.dumps(value)  # refuses unpaired surrogates, which the json module accepts
    except (ValueError, TypeError):
        _reject(f"the body isn't valid JSON: {reason}")
    return value


def _reject(message: str) -> NoReturn:
    raise failed(ErrorCode.INVALID_VALUE, message)


def _reject_size(max_bytes: int) -> NoReturn:
    message = f"the body is larger than {max_bytes} bytes; shorten it, or ask the operator to "
    message += "raise --max-body-bytes"
    raise failed(ErrorCode.REQUEST_TOO_LARGE, message)
