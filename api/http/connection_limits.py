"""Limits of HTTP connections, and the error responses for clients that exceed them."""

from collections.abc import Iterable
from enum import StrEnum
from http import HTTPStatus

import orjson

from api.http.errors import RETRY_AFTER_S, job_error_body
from api.http.headers import REQUEST_ID_HEADER, RETRY_AFTER_HEADER
from api.http.request_id import new_request_id
from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings


class Refusal(StrEnum):
    """Why a connection was refused or closed early. The values are metric labels."""

    HEADERS_TOO_LARGE = "headers_too_large"
    """The request line and headers, or the trailers, exceed the byte limit."""
    HEADER_TIMEOUT = "header_timeout"
    """The headers didn't arrive in time."""
    BODY_TIMEOUT = "body_timeout"
    """The body didn't arrive in time."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """The maximum number of connections was reached."""
    SLOW_READER = "slow_reader"
    """The client read nothing of its response for too long. No error response is sent."""
    MALFORMED = "malformed"
    """The received bytes aren't a valid HTTP request."""


def refusal_error(refusal: Refusal, limits: ApiSettings) -> JobError:
    """Return the error that a refused client receives. `refusal` can't be SLOW_READER."""
    code, message = {
        Refusal.HEADERS_TOO_LARGE: (
            ErrorCode.HEADERS_TOO_LARGE,
            f"the headers are larger than {limits.max_header_bytes} bytes; send fewer, or ask "
            "the operator to raise --max-header-bytes",
        ),
        Refusal.HEADER_TIMEOUT: (
            ErrorCode.REQUEST_TIMEOUT,
            f"the headers didn't arrive within {limits.header_timeout_s:g} s",
        ),
        Refusal.BODY_TIMEOUT: (
            ErrorCode.REQUEST_TIMEOUT,
            f"the body didn't arrive within {limits.body_timeout_s:g} s; shorten it, or ask "
            "the operator to raise --body-timeout-s",
        ),
        Refusal.TOO_MANY_CONNECTIONS: (
            ErrorCode.TOO_MANY_CONNECTIONS,
            f"all {limits.max_connections} connections of the server are in use; try again later",
        ),
        Refusal.MALFORMED: (ErrorCode.INVALID_VALUE, "this isn't a valid HTTP request"),
    }[refusal]
    return JobError(code=code, message=message)


def response_bytes(error: JobError, server_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a complete HTTP response that reports `error` and closes the connection."""
    body = orjson.dumps(job_error_body(error))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        REQUEST_ID_HEADER.lower(): new_request_id(),
    }
    if error.status in RETRY_AFTER_S:
        headers[RETRY_AFTER_HEADER.lower()] = str(RETRY_AFTER_S[error.status])
    raw = [*server_headers, *((k.encode(), v.encode()) for k, v in headers.items())]
    status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()
    return b"\r\n".join([status, *(name + b": " + value for name, value in raw), b"", body])
