"""Limits how many requests of one tenant a front end serves at the same time."""

from collections import Counter

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.errors import error_response
from shared.errors import ErrorCode, JobError
from shared.protocol.access.rights import Access

TENANT_SHARE = 0.5
"""Share of a front end's connections that the requests of one tenant may use."""
RETRY_AFTER_S = 1


class TenantRequests:
    """ASGI middleware that limits the requests of each tenant.

    So there are connections for other tenants even if one tenant sends many requests. The
    middleware runs after `KeyCheck`, which finds the tenant. Requests without a key aren't limited,
    because all of them have the same tenant.
    """

    def __init__(self, app: ASGIApp, max_connections: int) -> None:
        self._app = app
        self._max_requests = max(1, int(max_connections * TENANT_SHARE))
        self._num_running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, or refuse it if its tenant has too many requests."""
        access: Access | None = scope.get("state", {}).get("access")
        if scope["type"] != "http" or access is None or access.is_anonymous:
            await self._app(scope, receive, send)
        elif self._num_running[access.tenant] >= self._max_requests:
            await self._refusal(scope)(scope, receive, send)
        else:
            await self._count(access.tenant, scope, receive, send)

    async def _count(self, tenant: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._num_running[tenant] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_running[tenant] -= 1
            if not self._num_running[tenant]:
                del self._num_running[tenant]

    def _refusal(self, scope: Scope) -> ASGIApp:
        message = (
            f"this tenant has {self._max_requests} requests at this server, which is the limit; "
            "try again when some have ended, or ask the operator to raise --max-connections"
        )
        error = JobError(code=ErrorCode.RATE_LIMIT_EXCEEDED, message=message)
        return error_response(Request(scope), error, retry_after_s=RETRY_AFTER_S)
