"""Checks that the key of a request has a scope that its route needs."""

from collections.abc import Mapping

from fastapi import Request

from api.http.guards import Key, guard_of
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access, Scope

API_KEY_HEADER = "x-api-key"
"""Header in which Anthropic's clients send the key. The header Authorization overrides it."""
HINTS: Mapping[Scope, str] = {
    Scope.INFERENCE: "a key with the scope inference",
    Scope.ADAPTERS: "a key with the scope adapters, or one of the tenant admin (the server's "
    "--api-key admin:KEY)",
    Scope.METRICS: "the metrics key (the server's --metrics-key), a key with the scope metrics, or "
    "one of the tenant admin",
    Scope.ADMIN: "a key with the scope admin, or one of the tenant admin (the server's "
    "--api-key admin:KEY)",
}


async def check_scope(request: Request) -> None:
    """Check that the request's key opens its route. The app calls this before every route.

    Raises:
        JobFailed: the key lacks the scope, or an anonymous request needs a key here.
    """
    guard = guard_of(request.scope["route"])
    if guard is None:
        raise JobFailed(_denied(()))
    if guard.key is not Key.NEEDED:
        return
    access: Access = request.state.access
    if access.scopes.isdisjoint(guard.scopes):
        raise JobFailed(unauthenticated(request) if access.is_anonymous else _denied(guard.scopes))


def unauthenticated(request: Request) -> JobError:
    """Return the error of a request without a valid key."""
    is_sent = "authorization" in request.headers or API_KEY_HEADER in request.headers
    message = "unknown API key" if is_sent else "an API key is needed"
    return JobError(
        code=ErrorCode.INVALID_API_KEY,
        message=f"{message}; send it in the header `Authorization: Bearer KEY`",
    )


def _denied(scopes: tuple[Scope, ...]) -> JobError:
    hint = HINTS[scopes[0]] if scopes else "nothing: no key opens it"
    message = f"this API key may not use this URL; it needs {hint}"
    return JobError(code=ErrorCode.PERMISSION_DENIED, message=message)
