"""Reads the body of a request, for most routes as a JSON object."""

import zlib
from typing import Any

import orjson
from fastapi import Request

from api.http.turns.body_checks import begin_check
from shared import python_json
from shared.errors import ErrorCode, JobFailed, failed, invalid_value
from shared.json_budget import JsonBudget, TooComplex

_GZIP = {"gzip", "x-gzip"}
_PLAIN = {"", "identity"}
_GZIP_WBITS = 16 + zlib.MAX_WBITS
"""Value of zlib's parameter `wbits` that selects the gzip format, with its header and checksum."""


class Decoder:
    """Decodes one body, chunk by chunk. Gzip data never yields more than the limit plus one byte.

    `encoding` is the value of the header Content-Encoding, and `max_bytes` limits the decoded body.

    Raises:
        JobFailed: the encoding isn't supported (415).
    """

    def __init__(self, encoding: str, max_bytes: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in _GZIP | _PLAIN:
            message = (
                f"the body's Content-Encoding {encoding[:40]!r} isn't supported; send gzip or "
            )
            raise failed(ErrorCode.UNSUPPORTED_ENCODING, message + "none")
        self._is_gzip = encoding in _GZIP
        self._stream = zlib.decompressobj(_GZIP_WBITS)
        self._left = max_bytes + 1

    def decode(self, chunk: bytes) -> bytes:
        """Return the decoded bytes of `chunk`.

        Some bytes may be missing if the body exceeds the limit.

        Raises:
            JobFailed: the data isn't valid gzip data (400).
        """
        if not self._is_gzip:
            return chunk
        try:
            # A limit of 0 would mean no limit. `_left` is 0 only after the body was refused.
            decoded = self._stream.decompress(chunk, max(1, self._left))
        except zlib.error:
            raise _invalid("it isn't valid gzip data") from None
        if self._stream.unused_data:
            raise _invalid("more data follows the gzip data")
        self._left -= len(decoded)
        return decoded

    def finish(self) -> None:
        """Check that the body is complete.

        Raises:
            JobFailed: the gzip data ends too early (400).
        """
        if self._is_gzip and not self._stream.eof:
            raise _invalid("its gzip data is incomplete")


def _invalid(reason: str) -> JobFailed:
    return invalid_value(f"the body has the header `Content-Encoding: gzip`, but {reason}")


async def read_json_object(request: Request) -> dict[str, Any]:
    """Read the body of a request as a JSON object. A setting of the app limits its size.

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
        raise invalid_value(f"the body's JSON {error}") from None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_with_nan(body, str(error))
    if not isinstance(value, dict):
        raise invalid_value("the body must be a JSON object")
    return value


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body, and decompress it if the header Content-Encoding says gzip.

    The limit applies to the decompressed body, even if the header Content-Length is missing or
    wrong.

    Raises:
        JobFailed: the body is larger than `max_bytes`, its encoding isn't supported, or it isn't
            valid gzip data.
    """
    decoder = Decoder(request.headers.get("content-encoding", ""), max_bytes)
    if declared_size(request) > max_bytes:
        raise _too_large(max_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        decoded = decoder.decode(chunk)
        size += len(decoded)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(decoded)
    decoder.finish()
    return b"".join(chunks)


def declared_size(request: Request) -> int:
    """Return the number of bytes in the header Content-Length; 0 if there is none."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


def _parse_with_nan(body: bytes, reason: str) -> Any:
    """Parse JSON that may contain NaN and infinities, as Python writes them."""
    try:
        value = python_json.loads(body.decode(), JsonBudget())
        orjson.dumps(value)  # refuses unpaired surrogates, which the json module accepts
    except (ValueError, TypeError):
        raise invalid_value(f"the body isn't valid JSON: {reason}") from None
    return value


def _too_large(max_bytes: int) -> JobFailed:
    message = f"the body is larger than {max_bytes} bytes; shorten it, or ask the operator to "
    message += "raise --max-body-bytes"
    return failed(ErrorCode.REQUEST_TOO_LARGE, message)
