"""Builds the response entries of the OpenAPI document. Most entries describe errors."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from api.errors import RETRY_AFTER_S
from api.headers import JOB_HEADER, RETRY_AFTER_HEADER, WARNING_HEADER
from api.schema.errors import ErrorBody

Responses = dict[int | str, dict[str, Any]]

_MEANINGS = {
    400: "The request is invalid or unsupported. `param` names the field.",
    404: "The model or job doesn't exist.",
    409: "The job was cancelled.",
    413: "The body is too large.",
    429: "The queue is full.",
    500: "Internal error.",
    503: "Redis, the model or the adapter is unavailable at present.",
    504: "The job wasn't finished within its deadline.",
}
_STREAM: dict[str, Any] = {"text/event-stream": {}}


def errors(*statuses: int, meanings: Mapping[int, str] = _MEANINGS) -> Responses:
    """Return the OpenAPI entries of error responses with `statuses`."""
    return {status: _error(status, meanings[status]) for status in statuses}


def inference(answer: type[BaseModel]) -> Responses:
    """Return the OpenAPI entries of a route that returns an `answer` object or a stream."""
    headers = {
        **_header(JOB_HEADER, "Id of the job, for /v1/jobs."),
        **_header(WARNING_HEADER, "Fields of the request that were accepted and ignored."),
    }
    success = {"model": answer, "content": _STREAM, "headers": headers}
    return {200: success, **errors(400, 404, 409, 413, 429, 500, 503, 504)}


def _error(status: int, meaning: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": ErrorBody, "description": meaning}
    if status in RETRY_AFTER_S:
        entry["headers"] = _header(RETRY_AFTER_HEADER, "Seconds to wait before a retry.")
    return entry


def _header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}
