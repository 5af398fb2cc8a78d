"""Lets requests in that carry an API key, and tells in whose name they come."""

import hashlib
import hmac
from collections.abc import Sequence

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from shared.access import ApiKey
from shared.errors import ErrorCode, JobError

ANONYMOUS = "default"
"""The tenant of all requests when there are no keys."""
OPEN_PATHS = {"/health", "/ready", "/docs", "/openapi.json"}
"""Load balancers and browsers send no key. Without one, the description names no models."""
SCHEME = "bearer"


class KeyCheck:
    """ASGI middleware; sets the request's `tenant`, or answers 401 before reading the body."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey]) -> None:
        self._app = app
        self._keys = [(_digest(key.secret.encode()), key.tenant) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            tenant = self._tenant(dict(scope["headers"]).get(b"authorization"))
            if tenant is None and scope["path"] not in OPEN_PATHS:
                await _refusal(Request(scope))(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)

    def _tenant(self, authorization: bytes | None) -> str | None:
        """Whose key it is. Takes as long for a wrong key as for any right one."""
        if not self._keys:
            return ANONYMOUS
        scheme, _, sent = (authorization or b"").partition(b" ")
        if scheme.decode("latin-1").lower() != SCHEME:
            return None
        digest, tenant = _digest(sent.strip()), None
        for known, owner in self._keys:
            if hmac.compare_digest(digest, known):
                tenant = owner
        return tenant


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _refusal(request: Request) -> Response:
    is_sent = "authorization" in request.headers
    message = "this API key isn't known here" if is_sent else "an API key is needed"
    error = JobError(
        code=ErrorCode.INVALID_API_KEY,
        message=f"{message}; send it in the header `Authorization: Bearer KEY`",
    )
    response = error_response(request, error)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response
