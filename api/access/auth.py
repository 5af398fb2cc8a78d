"""Finds the rights of each request, and refuses requests without any."""

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.authenticator import Authenticator
from api.access.web_pages import WebPages
from api.http.errors import error_response, redis_error
from api.http.guards import API_KEY_HEADER, unauthenticated
from shared.errors import JobError, RedisUnavailable

SCHEME = "bearer"


class KeyCheck:
    """ASGI middleware that sets `access` and `tenant` of a request, or refuses the request.

    The body of a refused request isn't read. `check_scope` checks later whether the rights suffice.
    A request that this process makes itself brings its `access` in the state of its scope.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator, web_pages: WebPages) -> None:
        self._app = app
        self._authenticator = authenticator
        self._web_pages = web_pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and (refusal := await self._authenticate(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> Response | None:
        """Set the rights of a request, or return the response that refuses it."""
        state, request, path = scope.setdefault("state", {}), Request(scope), scope["path"]
        if "access" not in state:
            stored = request.app.state.stored_keys
            try:
                access = await self._authenticator.access_of(path, _sent_key(scope), stored)
            except RedisUnavailable:
                return error_response(request, redis_error())
            if access is None and not self._authenticator.guards.is_open(path):
                return error_response(request, unauthenticated(request))
            if access and access.is_anonymous and (error := self._reason_to_refuse(request, path)):
                return error_response(request, error)
            state["access"] = access
        access = state["access"]
        state["tenant"] = access.tenant if access else None
        return None

    def _reason_to_refuse(self, request: Request, path: str) -> JobError | None:
        if self._authenticator.guards.is_always_open(path):
            return None
        return self._web_pages.reason_to_refuse(request.method, request.headers)


def _sent_key(scope: Scope) -> str | None:
    """Return the API key in the request, or None if there is no key."""
    headers = dict(scope["headers"])
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.decode("latin-1").lower() == SCHEME:
        return str(key.strip().decode("latin-1"))
    key = headers.get(API_KEY_HEADER.encode())
    return key.strip().decode("latin-1") if key else None
