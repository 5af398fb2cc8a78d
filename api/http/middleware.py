"""Middleware: paths in one form, request ids, counts of requests, unexpected exceptions, CORS."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence

import structlog
from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import error_response
from api.http.headers import (
    JOB_HEADER,
    LOCATION_HEADER,
    RATE_HEADERS,
    REPLAYED_HEADER,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    SHOULD_RETRY_HEADER,
    WARNING_HEADER,
)
from api.http.turns.pacing import Pacer
from shared.errors import ErrorCode, JobError

CLIENT_GONE_STATUS = 499
"""nginx's status for a client that closed its connection. It appears only in the metrics."""

_INTERNAL = JobError(
    code=ErrorCode.INTERNAL,
    message="internal error; the server's log has the details under this response's X-Request-Id",
)
_STOPPING = JobError(
    code=ErrorCode.SERVER_STOPPING, message="this server stops; send the request again"
)

CountRequest = Callable[[str, int, float], None]
"""Records the path template of an ended request, its status, and how many seconds it took."""

POOLS_PATH = "/pools/"
"""Beginning of the paths under which each pool has all routes: `/pools/NAME/v1/...`."""
POOL = "pool"
"""Name of the pool of such a request in the state of its scope."""
_VALID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
ANY_ORIGIN = "*"
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_READABLE = (
    *(JOB_HEADER, WARNING_HEADER, REPLAYED_HEADER, LOCATION_HEADER),
    *(REQUEST_ID_HEADER, RETRY_AFTER_HEADER, SHOULD_RETRY_HEADER),
    *RATE_HEADERS,
)
"""Response headers that pages may read, besides those that browsers always show."""

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
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._handle(scope, receive, send, request_id)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        start_s = time.monotonic()
        status = CLIENT_GONE_STATUS
        header = (REQUEST_ID_HEADER.lower().encode(), request_id.encode())

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        try:
            await self._pacer.start()
            await self._app(scope, receive, recording_send)
        except ClientDisconnect:
            pass  # the client disconnected while it sent the body
        except asyncio.CancelledError:  # uvicorn cancels what still runs after the drain time
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


class CanonicalPath:
    """ASGI middleware that removes root path, pool and trailing slashes from a request's path.

    Proxies may send the path with or without the root path. Routes, the list of open paths and the
    metrics see the same path in all cases. The client isn't redirected, because many clients lose
    the body of a request that is redirected. The pool is put into the state of the scope.
    """

    def __init__(self, app: ASGIApp, root_path: str, pools: Collection[str]) -> None:
        self._app = app
        self._root_path = root_path
        self._pools = pools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            path = canonical_path(scope["path"], self._root_path)
            pool = path.removeprefix(POOLS_PATH).partition("/")[0]
            if path.startswith(POOLS_PATH) and pool in self._pools:
                scope.setdefault("state", {})[POOL] = pool
                path = canonical_path(path, f"{POOLS_PATH}{pool}")
            scope["path"] = path
        await self._app(scope, receive, send)


def canonical_path(path: str, root_path: str) -> str:
    """Return `path` without `root_path` and without trailing slashes; `/` for an empty path."""
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        path = path.removeprefix(root_path)
    return path.rstrip("/") or "/"


def request_id_of(scope: Scope) -> str:
    """Return the client's request id if it is valid, or a new id otherwise.

    The id appears in logs and headers, so a valid id is short and has no unusual characters.
    """
    sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return sent if _VALID.fullmatch(sent) else new_request_id()


def new_request_id() -> str:
    """Return a random request id."""
    return f"req_{secrets.token_hex(16)}"


def add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of the sites `origins` call `app`. Call it last, so that it covers all errors.

    Browsers send no credentials of their own: a page has to send an API key that it knows.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=[ANY_ORIGIN],
            expose_headers=_READABLE,
        )
