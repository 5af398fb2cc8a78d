"""Middleware around all requests: their ids, unexpected exceptions, and counts."""

import asyncio
import time
from collections.abc import Callable

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import error_response
from api.http.headers import ANTHROPIC_REQUEST_ID_HEADER, REQUEST_ID_HEADER
from api.http.request_id import request_id_of
from api.http.turns.pacing import Pacer
from shared.errors import ErrorCode, JobError

CLIENT_GONE_STATUS = 499
"""nginx's status for a client that closed its connection. It appears only in the metrics."""

_REQUEST_ID_HEADERS = (REQUEST_ID_HEADER, ANTHROPIC_REQUEST_ID_HEADER)

_INTERNAL = JobError(
    code=ErrorCode.INTERNAL,
    message="internal error; the server's log has the details under this response's X-Request-Id",
)
_STOPPING = JobError(
    code=ErrorCode.SERVER_STOPPING, message="this server stops; send the request again"
)

CountRequest = Callable[[str, int, float], None]
"""Records the path template of an ended request, its status, and how many seconds it took."""


log = structlog.get_logger()


class Boundary:
    """ASGI middleware that turns an unexpected exception into a log entry and a 500 response.

    The response doesn't describe the exception. Every log entry of a request contains the request
    id.
    """

    def __init__(self, app: ASGIApp, count_request: CountRequest) -> None:
        self._app = app
        self._count_request = count_request
        self._pacer = Pacer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, and handle the exceptions that the app raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._handle(scope, receive, send, request_id)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        start_s = time.monotonic()
        status = CLIENT_GONE_STATUS
        ids = [(name.lower().encode(), request_id.encode()) for name in _REQUEST_ID_HEADERS]

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *ids]}
            await send(message)

        try:
            await self._pacer.start()
            await self._app(scope, receive, recording_send)
        except ClientDisconnect:
            pass  # the client disconnected while it sent the body
        except asyncio.CancelledError:  # uvicorn cancels requests that outlast the drain time
            if status != CLIENT_GONE_STATUS:
                raise  # the response has started; closing the connection shows it is incomplete
            await error_response(Request(scope), _STOPPING)(scope, receive, recording_send)
        except Exception:
            log.exception("request_failed", path=scope["path"], **scope.get("state", {}))
            if status != CLIENT_GONE_STATUS:
                raise  # the response has started; closing the connection shows it is incomplete
            await error_response(Request(scope), _INTERNAL)(scope, receive, recording_send)
        finally:
            self._count_request(_endpoint(scope), status, time.monotonic() - start_s)


def _endpoint(scope: Scope) -> str:
    """Return the path template of the request's route, or `other` if no route matches.

    The number of templates is bounded, but the number of request paths isn't.
    """
    return getattr(scope.get("route"), "path", "other")
