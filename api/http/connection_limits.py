"""What one connection may take, and what is sent to a client that takes more."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

import orjson

from api.errors import RETRY_AFTER_S, job_error_body
from api.http.request_id import REQUEST_ID_HEADER, new_request_id
from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings


class Refusal(StrEnum):
    """Why a connection was refused or cut; the label `reason` of the metric."""

    HEADERS_TOO_LARGE = "headers_too_large"
    """The request line and headers, or trailers, are over the byte limit."""
    HEADER_TIMEOUT = "header_timeout"
    """The headers didn't arrive in time."""
    BODY_TIMEOUT = "body_timeout"
    """The body didn't arrive in time."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """The connection is one too many."""
    SLOW_READER = "slow_reader"
    """The client took nothing of its answer for too long. Nothing can be sent to it."""
    MALFORMED = "malformed"
    """What came isn't HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The limits of every connection of one front end."""

    max_header_bytes: int
    max_connections: int
    header_timeout_s: float
    body_timeout_s: float
    send_timeout_s: float

    @classmethod
    def of(cls, settings: ApiSettings) -> "HttpLimits":
        """The limits in the settings."""
        return cls(**{name: getattr(settings, name) for name in cls.__slots__})

    def error(self, refusal: Refusal) -> JobError:
        """What the client is told."""
        code, message = {
            Refusal.HEADERS_TOO_LARGE: (
                ErrorCode.HEADERS_TOO_LARGE,
                f"the headers are larger than {self.max_header_bytes} bytes: send fewer, or have "
                "the server's --max-header-bytes raised",
            ),
            Refusal.HEADER_TIMEOUT: (
                ErrorCode.REQUEST_TIMEOUT,
                f"the headers didn't arrive within {self.header_timeout_s:g} s",
            ),
            Refusal.BODY_TIMEOUT: (
                ErrorCode.REQUEST_TIMEOUT,
                f"the body didn't arrive within {self.body_timeout_s:g} s: shorten it, or have "
                "the server's --body-timeout-s raised",
            ),
            Refusal.TOO_MANY_CONNECTIONS: (
                ErrorCode.TOO_MANY_CONNECTIONS,
                f"the server has all of its {self.max_connections} connections; try again later",
            ),
            Refusal.MALFORMED: (ErrorCode.INVALID_VALUE, "this isn't a valid HTTP request"),
        }[refusal]
        return JobError(code=code, message=message)


def response_bytes(error: JobError, server_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole HTTP response that reports `error` and closes the connection."""
    body = orjson.dumps(job_error_body(error))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        REQUEST_ID_HEADER.lower(): new_request_id(),
    }
    if error.status in RETRY_AFTER_S:
        headers["retry-after"] = str(RETRY_AFTER_S[error.status])
    raw = [*server_headers, *((k.encode(), v.encode()) for k, v in headers.items())]
    status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()
    return b"\r\n".join([status, *(name + b": " + value for name, value in raw), b"", body])
