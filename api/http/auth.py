"""Lets requests in that carry a key, and finds in whose name they come."""

import hashlib
import hmac
from collections.abc import Sequence

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from shared.api_keys import ADMIN, ApiKey
from shared.errors import ErrorCode, JobError

ANONYMOUS = "default"
"""The tenant of all requests when there are no keys."""
OPEN_PATHS = {"/health", "/ready", "/docs", "/openapi.json"}
"""Load balancers and browsers send no key. Without one, the description names no models."""
METRICS_PATH = "/metrics"
"""Shows all tenants' work: for the metrics key and for administrators."""
SCHEME = "bearer"


class KeyCheck:
    """ASGI middleware; sets the request's `tenant`, or refuses it before reading the body."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], metrics_key: str | None) -> None:
        self._app = app
        self._keys = [(_digest(key.secret.encode()), key.tenant) for key in keys]
        self._metrics_key = _digest(metrics_key.encode()) if metrics_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            request, sent = Request(scope), _sent(scope)
            tenant = self._tenant(sent)
            if error := self._error(request, sent, tenant):
                await _refusal(request, error)(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)

    def _error(self, request: Request, sent: bytes | None, tenant: str | None) -> JobError | None:
        """Why the request isn't let in; None if it is."""
        path = request.scope["path"]
        if path == METRICS_PATH:
            return self._metrics_error(request, sent, tenant)
        return None if tenant is not None or path in OPEN_PATHS else _unknown(request)

    def _metrics_error(
        self, request: Request, sent: bytes | None, tenant: str | None
    ) -> JobError | None:
        is_open = not self._keys and self._metrics_key is None
        if is_open or tenant == ADMIN or self._is_metrics_key(sent):
            return None
        return _not_for(tenant) if self._keys and tenant else _unknown(request)

    def _is_metrics_key(self, sent: bytes | None) -> bool:
        known = self._metrics_key
        return sent is not None and known is not None and hmac.compare_digest(sent, known)

    def _tenant(self, sent: bytes | None) -> str | None:
        """Whose key it is. Takes as long for a wrong key as for any right one."""
        if not self._keys:
            return ANONYMOUS
        if sent is None:
            return None
        tenant = None
        for known, owner in self._keys:
            if hmac.compare_digest(sent, known):
                tenant = owner
        return tenant


def _sent(scope: Scope) -> bytes | None:
    """The digest of the key that the request carries."""
    authorization = dict(scope["headers"]).get(b"authorization", b"")
    scheme, _, key = authorization.partition(b" ")
    return _digest(key.strip()) if scheme.decode("latin-1").lower() == SCHEME else None


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _unknown(request: Request) -> JobError:
    is_sent = "authorization" in request.headers
    message = "this API key isn't known here" if is_sent else "an API key is needed"
    return JobError(
        code=ErrorCode.INVALID_API_KEY,
        message=f"{message}; send it in the header `Authorization: Bearer KEY`",
    )


def _not_for(tenant: str) -> JobError:
    message = f"the tenant {tenant} may not read the metrics: send --metrics-key, or a key of the "
    message += f"tenant {ADMIN}"
    return JobError(code=ErrorCode.PERMISSION_DENIED, message=message)


def _refusal(request: Request, error: JobError) -> Response:
    response = error_response(request, error)
    if error.code is ErrorCode.INVALID_API_KEY:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
