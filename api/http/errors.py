"""Error responses: in OpenAI's format or, on the paths of another API, in that API's format."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.http.headers import (
    AUTHENTICATE_HEADER,
    JOB_HEADER,
    PREFERENCE_APPLIED_HEADER,
    RETRY_AFTER_HEADER,
    SHOULD_RETRY_HEADER,
    STRICT_HANDLING,
)
from api.http.openapi_document import document_of
from shared.errors import ErrorCode, JobError, JobFailed, QueueFull, RateLimited, RedisUnavailable

RETRY_AFTER_S = {503: 2}
"""For each of these HTTP statuses, the value of the header Retry-After in seconds.

A time that is passed to `error_response` overrides it. `shared/protocol/retry_after.py` estimates
the time for a full queue.
"""
_NOT_RETRYABLE = {
    ErrorCode.CANCELLED,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.POISON_JOB,
    ErrorCode.ADAPTER_CONFLICT,
    ErrorCode.JOB_CONFLICT,
    ErrorCode.WORKER_CONFLICT,
    ErrorCode.BATCH_CONFLICT,
    ErrorCode.IDEMPOTENCY_CONFLICT,
}
"""Codes of errors after which clients shouldn't retry the request.

By default, OpenAI's clients retry requests that failed with status 409 or 5xx. For these codes, the
response has a header that prevents the retry.
"""
MESSAGES_PATH = "/v1/messages"
"""Prefix of the paths whose errors have Anthropic's format."""
UPDATE_PATHS = {
    "/load_lora_adapter",
    "/load_lora_adapter_from_tensors",
    "/unload_lora_adapter",
    *(f"/update_weights_from_{source}" for source in ("disk", "tensor", "distributed", "ipc")),
}
"""Paths whose errors also have the fields of SGLang's format for changes of weights."""
OLLAMA_PATH = "/api/"
"""Prefix of the paths whose errors have Ollama's format."""
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_NO_THREADS = {"error_code": "thread_unsupported_request"}
"""Error details that make Anthropic's clients send all messages again, without a thread."""


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` convert each expected error into an error response in OpenAI's format."""
    for expected in (JobFailed, QueueFull, RateLimited, RedisUnavailable):
        app.add_exception_handler(expected, _on_expected)
    app.add_exception_handler(404, _on_unknown_url)  # the router raises 404 and 405
    app.add_exception_handler(405, _on_wrong_method)


def error_body(
    message: str, status: int, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return the JSON body of an error response. `status` determines the field `type`."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def job_error_body(error: JobError) -> dict[str, Any]:
    """Return the JSON body of the error response for `error`."""
    return error_body(error.message, error.status, param=error.param, code=error.code)


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with `body` as JSON."""
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")


def error_response(
    request: Request, error: JobError, *, retry_after_s: int | None = None
) -> Response:
    """Return the response to a request that failed with `error`.

    `retry_after_s` is the value of the header Retry-After. By default, the status determines it.
    """
    headers = {}
    if retry_after_s := retry_after_s or RETRY_AFTER_S.get(error.status):
        headers[RETRY_AFTER_HEADER] = str(retry_after_s)
    if error.code in _NOT_RETRYABLE:
        headers[SHOULD_RETRY_HEADER] = "false"
    if error.code is ErrorCode.INVALID_API_KEY:
        headers[AUTHENTICATE_HEADER] = "Bearer"
    if job_id := getattr(request.state, "job_id", None):
        headers[JOB_HEADER] = job_id
    if getattr(request.state, "is_strict", False):
        headers[PREFERENCE_APPLIED_HEADER] = STRICT_HANDLING
    return json_response(_body_for(request, error), error.status, headers)


def _body_for(request: Request, error: JobError) -> dict[str, Any]:
    """Return the body of the error response in the format of the request's API."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith(MESSAGES_PATH):
        return anthropic_error_body(error)
    if path.startswith(OLLAMA_PATH):
        return ollama_error_body(error)
    body = job_error_body(error)
    return body | (sglang_update_body(error) if path in UPDATE_PATHS else {})


def sglang_update_body(error: JobError) -> dict[str, Any]:
    """Return the fields of SGLang's response to a change of weights that failed."""
    return {"success": False, "message": error.message, "error_message": error.message}


def failure_response(request: Request, failure: Exception) -> Response:
    """Return the response to a request that ended with an expected error.

    Raises:
        Exception: `failure` itself, if it isn't an expected error.
    """
    match failure:
        case JobFailed():
            return error_response(request, failure.error)
        case QueueFull():
            message = f"{failure}; try again in {failure.retry_after_s} s"
            error = JobError(code=ErrorCode.QUEUE_FULL, message=message)
            return error_response(request, error, retry_after_s=failure.retry_after_s)
        case RateLimited():
            error = JobError(code=ErrorCode.RATE_LIMIT_EXCEEDED, message=str(failure))
            response = error_response(request, error, retry_after_s=failure.retry_after_s)
            if failure.retry_after_s is None:
                response.headers[SHOULD_RETRY_HEADER] = "false"
            return response
        case RedisUnavailable():
            return error_response(request, redis_error())
    raise failure


async def _on_expected(request: Request, exc: Exception) -> Response:
    return failure_response(request, exc)


def redis_error() -> JobError:
    """Return the error of a request that needs Redis while Redis can't be reached.

    The message of the exception isn't repeated, because it may contain addresses.
    """
    return JobError(code=ErrorCode.UNAVAILABLE, message="the queue can't be reached; try again")


async def _on_unknown_url(request: Request, exc: Exception) -> Response:
    message = f"no such URL: {_requested(request)}; GET /docs lists all URLs"
    return error_response(request, JobError(code=ErrorCode.UNKNOWN_URL, message=message))


async def _on_wrong_method(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    allowed = await _allowed_methods(request) or dict(exc.headers or {}).get("Allow", "")
    message = f"method not allowed: {_requested(request)}; this URL accepts {allowed}"
    error = JobError(code=ErrorCode.METHOD_NOT_ALLOWED, message=message)
    response = error_response(request, error)
    response.headers["Allow"] = allowed
    return response


def _requested(request: Request) -> str:
    return f"{request.method[:20]} {request.url.path[:200]}"


async def _allowed_methods(request: Request) -> str:
    """Return all HTTP methods that the URL accepts. The router reports only one route's methods."""
    path = getattr(request.scope.get("route"), "path", "")
    operations = (await document_of(request.app))["paths"].get(path, ())
    return ", ".join(method.upper() for method in operations)


def anthropic_error_body(error: JobError) -> dict[str, Any]:
    """Return an error in Anthropic's format, with the fields `code` and `param` added."""
    fallback = "api_error" if error.status >= 500 else "invalid_request_error"
    body: dict[str, Any] = {
        "type": _ANTHROPIC_TYPES.get(error.status, fallback),
        "message": error.message,
        "code": error.code,
        "param": error.param,
    }
    if (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, "thread"):
        body["details"] = _NO_THREADS
    return {"type": "error", "error": body}


def ollama_error_body(error: JobError) -> dict[str, Any]:
    """Return an error in Ollama's format, with the fields `code` and `param` added.

    Clients look for the words "not found" before they offer to pull a model.
    """
    is_unknown = error.code is ErrorCode.MODEL_NOT_FOUND
    message = f"model not found: {error.message}" if is_unknown else error.message
    return {"error": message, "code": error.code, "param": error.param}
