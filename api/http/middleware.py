"""The outermost layer of a request: names it, counts it, and answers what nobody else caught."""

import time

import structlog
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response
from api.http.request_id import request_id_of, with_request_id
from api.metrics.metrics import Metrics
from shared.errors import ErrorCode, JobError

CLIENT_LEFT = 499
"""nginx's status for a client that closed its connection; seen only in the metrics."""

_LOGGED = "an internal error; the log tells more under this response's X-Request-Id"

log = structlog.get_logger()


class Boundary:
    """ASGI middleware; an unexpected exception becomes a log line and a 500 without internals.

    All that is logged on behalf of a request carries its id.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._handle(scope, receive, send, request_id)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        start_s = time.monotonic()
        status = CLIENT_LEFT

        async def noting_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(with_request_id(message, request_id))

        try:
            await self._app(scope, receive, noting_send)
        except ClientDisconnect:
            pass  # it left while it was sending
        except Exception:
            log.exception("request_failed", path=scope["path"], **scope.get("state", {}))
            if status != CLIENT_LEFT:
                raise  # the response has begun: cut off, it doesn't look complete
            await _internal_error(Request(scope))(scope, receive, noting_send)
        finally:
            self._metrics.request(_endpoint(scope), status, time.monotonic() - start_s)


def _internal_error(request: Request) -> Response:
    error = JobError(code=ErrorCode.INTERNAL, message=_LOGGED)
    return error_response(request, error)


def _endpoint(scope: Scope) -> str:
    """The route, not the path: paths have no bound."""
    route = scope.get("route")
    return getattr(route, "path", "other")
