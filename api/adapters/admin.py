"""Who may change what is served."""

from urllib.parse import urlsplit

from fastapi import Depends, Request

from api.context import Context, InContext
from shared.api_keys import ADMIN, is_loopback
from shared.errors import ErrorCode, JobError, JobFailed


def _check(request: Request, context: InContext) -> None:
    """Let the tenant `admin` in; without keys everybody on this machine, but for web pages.

    Raises:
        JobFailed: it is somebody else.
    """
    reason = _reason_to_refuse(request, context)
    if reason:
        raise JobFailed(JobError(code=ErrorCode.PERMISSION_DENIED, message=reason))


def _reason_to_refuse(request: Request, context: Context) -> str | None:
    if context.has_keys:
        if request.state.tenant != ADMIN:
            return f"adapters are managed with a key of the tenant {ADMIN}: --api-key {ADMIN}:KEY"
    elif not is_loopback(context.settings.host):
        return f"adapters are managed from the network with API keys only: --api-key {ADMIN}:KEY"
    elif _is_of_another_site(request):
        return "a page of another site may not manage adapters"
    return None


def _is_of_another_site(request: Request) -> bool:
    """Browsers let every page send simple requests to this machine, and say whose page it is."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


ADMIN_ONLY = Depends(_check)
"""Lets a route be called only by those who may change what is served."""
