"""Authenticates requests by API key and determines their tenant."""

import hashlib
import hmac
from collections.abc import Sequence

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from shared.api_keys import ADMIN, ApiKey
from shared.errors import ErrorCode, JobError

ANONYMOUS = "default"
"""Tenant of all requests if the server has no API keys."""
OPEN_PATHS = {
    *("/", "/health", "/ready", "/ready/worker", "/ping", "/version"),
    *("/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png"),
    "/openapi.json",
}
"""Paths that need no key, for load balancers and browsers.

If the server has API keys and the client sends no valid key, /openapi.json omits the names of
models.
"""
OPEN_PREFIX = "/static/"
"""Beginning of the paths of the console's files, which need no key and have no data."""
METRICS_PATHS = {"/metrics", "/load"}
"""Paths that show the load of all tenants.

Clients need the metrics key or a key of the tenant `admin`. If the server has neither API keys nor
a metrics key, clients need no key.
"""
POOL_PATHS = {"/v1/pool", "/v1/pool/events"}
"""Paths of the pool's state.

If the server has a metrics key and no API keys, clients need the metrics key. With API keys, the
routes refuse tenants other than `admin`.
"""
SCHEME = "bearer"
API_KEY_HEADER = "x-api-key"
"""Header in which Anthropic's clients send the key. The header Authorization overrides it."""


class KeyCheck:
    """ASGI middleware that sets the tenant of a request, or refuses the request.

    The body of a refused request isn't read.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], metrics_key: str | None) -> None:
        self._app = app
        self._keys = [(_digest(key.secret.encode()), key.tenant) for key in keys]
        self._metrics_key = _digest(metrics_key.encode()) if metrics_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            request, sent_key = Request(scope), _sent_key(scope)
            tenant = self._tenant(sent_key)
            if error := self._error(request, sent_key, tenant):
                await _refusal(request, error)(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)

    def _error(
        self, request: Request, sent_key: bytes | None, tenant: str | None
    ) -> JobError | None:
        """Return an error if the request must be refused, or None if it is allowed."""
        path = request.scope["path"]
        if path in METRICS_PATHS or (not self._keys and path in POOL_PATHS):
            return self._metrics_error(request, sent_key, tenant)
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        return None if tenant is not None or is_open else _unauthenticated(request)

    def _metrics_error(
        self, request: Request, sent_key: bytes | None, tenant: str | None
    ) -> JobError | None:
        is_open = not self._keys and self._metrics_key is None
        if is_open or tenant == ADMIN or self._is_metrics_key(sent_key):
            return None
        return _metrics_denied(tenant) if self._keys and tenant else _unauthenticated(request)

    def _is_metrics_key(self, sent_key: bytes | None) -> bool:
        known = self._metrics_key
        return sent_key is not None and known is not None and hmac.compare_digest(sent_key, known)

    def _tenant(self, sent_key: bytes | None) -> str | None:
        """Return the tenant of the sent key, or None if the key is missing or unknown.

        If the server has no API keys, the tenant is `ANONYMOUS`. Otherwise, the sent key is
        compared with every known key, so that the duration doesn't reveal which key matches.
        """
        if not self._keys:
            return ANONYMOUS
        if sent_key is None:
            return None
        tenant = None
        for known, owner in self._keys:
            if hmac.compare_digest(sent_key, known):
                tenant = owner
        return tenant


def _sent_key(scope: Scope) -> bytes | None:
    """Return the digest of the API key in the request, or None if there is no key."""
    headers = dict(scope["headers"])
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.decode("latin-1").lower() == SCHEME:
        return _digest(key.strip())
    key = headers.get(API_KEY_HEADER.encode())
    return _digest(key.strip()) if key else None


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _unauthenticated(request: Request) -> JobError:
    is_sent = "authorization" in request.headers or API_KEY_HEADER in request.headers
    message = "unknown API key" if is_sent else "an API key is needed"
    return JobError(
        code=ErrorCode.INVALID_API_KEY,
        message=f"{message}; send it in the header `Authorization: Bearer KEY`",
    )


def _metrics_denied(tenant: str) -> JobError:
    message = f"the tenant {tenant} may not read the metrics; send the metrics key (the server's "
    message += f"--metrics-key) or a key of the tenant {ADMIN}"
    return JobError(code=ErrorCode.PERMISSION_DENIED, message=message)


def _refusal(request: Request, error: JobError) -> Response:
    response = error_response(request, error)
    if error.code is ErrorCode.INVALID_API_KEY:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
