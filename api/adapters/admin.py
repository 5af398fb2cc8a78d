"""Authorizes requests that manage adapters."""

from urllib.parse import urlsplit

from fastapi import Depends, Request

from api.context import Context, InContext
from shared.api_keys import ADMIN, is_loopback
from shared.errors import ErrorCode, JobError, JobFailed


def _check(request: Request, context: InContext) -> None:
    """Allow the tenant `admin`; on a server without keys, allow local clients.

    Web pages of other sites aren't local clients, even in a local browser.

    Raises:
        JobFailed: the request isn't allowed.
    """
    reason = _reason_to_refuse(request, context)
    if reason:
        raise JobFailed(JobError(code=ErrorCode.PERMISSION_DENIED, message=reason))


def _reason_to_refuse(request: Request, context: Context) -> str | None:
    if context.has_keys:
        if request.state.tenant != ADMIN:
            return (
                f"only the tenant {ADMIN} may manage adapters; use a key of this tenant (the "
                f"server's --api-key {ADMIN}:KEY)"
            )
    elif not is_loopback(context.settings.host):
        return (
            "a server that is reachable from the network needs API keys before adapters can be "
            f"managed; start it with --api-key {ADMIN}:KEY"
        )
    elif _is_from_another_site(request):
        return "a web page of another site may not manage adapters; send the request directly"
    return None


def _is_from_another_site(request: Request) -> bool:
    """Return whether a browser sent the request for a page of another site.

    Browsers let any page send simple requests to the local machine, and name the page's origin.
    """
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


ADMIN_ONLY = Depends(_check)
"""Dependency of routes that manage adapters. Refuses other clients with status 403."""
