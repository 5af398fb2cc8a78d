"""Authorizes requests that manage adapters."""

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import Depends, Request

from api.context import Context, InContext
from api.http.cors import ANY_ORIGIN
from shared.api_keys import ADMIN, is_loopback
from shared.errors import ErrorCode, JobError, JobFailed


def _check(request: Request, context: InContext) -> None:
    """Check that the client may manage adapters.

    With API keys, only the tenant `admin` may manage adapters. Without API keys, any client may,
    provided that the server listens only on a loopback address. Even then, requests from web pages
    of other sites are refused, unless the setting `cors_origins` names the site. Its value `*`
    names no site: otherwise any page that a user visits could manage the adapters.

    Raises:
        JobFailed: the client may not manage adapters.
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
    elif _is_from_another_site(request, context.settings.cors_origins):
        return (
            "a web page of another site may not manage adapters; send the request directly, or "
            "name the site in the server's --cors-origins"
        )
    return None


def _is_from_another_site(request: Request, trusted: Collection[str]) -> bool:
    """Return whether the request comes from a web page of a site that isn't in `trusted`.

    Browsers let any page send some requests, such as form posts, to the local machine. They set
    the header Origin of such a request to the origin of the page.
    """
    origin = request.headers.get("origin")
    if origin is None or (origin in trusted and origin != ANY_ORIGIN):
        return False
    return urlsplit(origin).netloc != request.headers.get("host")


ADMIN_ONLY = Depends(_check)
"""Route dependency that responds with status 403 if the client may not manage adapters."""
