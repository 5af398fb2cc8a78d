"""How errors reach clients: always in OpenAI's shape."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from shared.errors import ErrorCode, JobError, JobFailed, QueueFull, RedisUnavailable

JOB_HEADER = "X-Lorikeet-Job"
"""Names the job that a request became, so that it can be looked up and cancelled."""

RETRY_AFTER_S = {429: 1, 503: 2}
_FINAL = {
    ErrorCode.CANCELLED,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.POISON_JOB,
    ErrorCode.ADAPTER_EXISTS,
    ErrorCode.ADAPTER_CONFLICT,
}
"""OpenAI's clients repeat a request after 409 and 5xx; after these they shouldn't."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error that is raised on purpose with its status and in OpenAI's shape."""
    app.add_exception_handler(JobFailed, _on_job_failed)
    app.add_exception_handler(QueueFull, _on_queue_full)
    app.add_exception_handler(RedisUnavailable, _on_redis_unavailable)
    app.add_exception_handler(404, _on_unknown_url)  # these two are the router's
    app.add_exception_handler(405, _on_wrong_method)


def error_body(
    message: str, status: int, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON body of an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def job_error_body(error: JobError) -> dict[str, Any]:
    """The JSON body of `error`."""
    return error_body(error.message, error.status, param=error.param, code=error.code)


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`body` as JSON."""
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")


def error_response(request: Request, error: JobError) -> Response:
    """The answer to a request that ended with `error`."""
    headers = {}
    if error.status in RETRY_AFTER_S:
        headers["Retry-After"] = str(RETRY_AFTER_S[error.status])
    if error.code in _FINAL:
        headers["X-Should-Retry"] = "false"
    if job_id := getattr(request.state, "job_id", None):
        headers[JOB_HEADER] = job_id
    return json_response(job_error_body(error), error.status, headers)


async def _on_job_failed(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, JobFailed)
    return error_response(request, exc.error)


async def _on_queue_full(request: Request, exc: Exception) -> Response:
    error = JobError(code=ErrorCode.QUEUE_FULL, message=f"{exc}; try again later")
    return error_response(request, error)


async def _on_redis_unavailable(request: Request, exc: Exception) -> Response:
    # The reason names addresses; it stands in the log.
    error = JobError(code=ErrorCode.UNAVAILABLE, message="the queue can't be reached; try again")
    return error_response(request, error)


async def _on_unknown_url(request: Request, exc: Exception) -> Response:
    message = f"no such URL: {_where(request)}; GET /docs lists those that exist"
    return error_response(request, JobError(code=ErrorCode.UNKNOWN_URL, message=message))


async def _on_wrong_method(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    allowed = _allowed_methods(request) or dict(exc.headers or {}).get("Allow", "")
    message = f"method not allowed: {_where(request)}; this URL takes {allowed}"
    error = JobError(code=ErrorCode.METHOD_NOT_ALLOWED, message=message)
    response = error_response(request, error)
    response.headers["Allow"] = allowed
    return response


def _where(request: Request) -> str:
    return f"{request.method[:20]} {request.url.path[:200]}"


def _allowed_methods(request: Request) -> str:
    """All methods of the URL; the router names those of the first route that it tried."""
    path = getattr(request.scope.get("route"), "path", "")
    return ", ".join(method.upper() for method in request.app.state.openapi["paths"].get(path, ()))
