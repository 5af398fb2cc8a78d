"""Checks that a client may manage adapters, and reads the bodies of such requests."""

from typing import TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from api.access.web_pages import is_from_another_site
from api.http.body import read_json_object
from api.http.validation import validate
from api.openapi.entries import Responses, errors
from api.pools.requested import part
from shared.api_keys import is_loopback
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Access
from shared.settings import ApiSettings

M = TypeVar("M", bound=BaseModel)
READS = 400, 403, 404, 413, 503, 504
"""Error statuses of the routes for which a worker reads an adapter."""
_MEANINGS = {
    400: "The request is malformed, the name is taken, or the adapter can't be served exactly.",
    403: "The key may not manage adapters, or the source isn't under an --adapter-root.",
    404: "The adapter or its source doesn't exist.",
    408: "The body didn't arrive in time.",
    409: "The adapter's state doesn't allow the change.",
    413: "The body is too large.",
    503: "Redis or every worker is unavailable at present.",
    504: "No worker has read the adapter within the deadline.",
}


def _check(request: Request, settings: ApiSettings = part(ApiSettings)) -> None:
    """Check that a client without a key may manage adapters. `check_scope` checks keys.

    If the server listens only on a loopback address, any client may. Requests from web pages of
    other sites are still refused, unless the setting `cors_origins` names the site. The value `*`
    isn't enough, because any page that a user visits could then manage adapters.

    Raises:
        JobFailed: the client may not manage adapters.
    """
    if reason := _reason_to_refuse(request, settings):
        raise failed(ErrorCode.PERMISSION_DENIED, reason)


def _reason_to_refuse(request: Request, settings: ApiSettings) -> str | None:
    access: Access = request.state.access
    if not access.is_anonymous:
        return None
    if not is_loopback(settings.host):
        return (
            "a server that is reachable from the network needs API keys before adapters can be "
            "managed; start it with --api-key admin:KEY, or create one with `lorikeet keys create "
            "--tenant NAME --redis-url URL`"
        )
    if is_from_another_site(request.headers, settings.cors_origins):
        return (
            "a web page of another site may not manage adapters; send the request directly, or "
            "name the site in the server's --cors-origins"
        )
    return None


MAY_MANAGE = Depends(_check)
"""Route dependency that responds with status 403 if an anonymous client may not manage adapters."""


def adapter_errors(*statuses: int) -> Responses:
    """Return the OpenAPI entries of error responses with `statuses`."""
    return errors(*statuses, meanings=_MEANINGS)


async def read_request(request: Request, model: type[M]) -> M:
    """Read and validate the body of a request.

    Raises:
        JobFailed: the body is too large, isn't a JSON object, or has an invalid field.
    """
    return validate(model, await read_json_object(request))
