"""Shared parts of the routes that manage adapters: bodies, errors and the base model."""

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from api.access.model_rights import model_not_found
from api.adapters.bodies import adapter_body
from api.http.body import read_json_object
from api.http.validation import validate
from api.openapi import document
from api.openapi.responses import Responses, errors
from api.pools.context import Context
from api.schema.adapters import AdapterBody
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access
from shared.protocol.adapters import Adapter
from shared.protocol.adapters import BaseModel as Base
from shared.store.views.adapter_views import AdapterView

M = TypeVar("M", bound=BaseModel)
READS = 400, 403, 404, 413, 503, 504
"""Error statuses of a route for which a worker reads an adapter."""
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


def adapter_errors(*statuses: int) -> Responses:
    """Return the OpenAPI entries of error responses with `statuses`."""
    return errors(*statuses, meanings=_MEANINGS)


def takes(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    """Return the `openapi_extra` of a route with a JSON body of type `model`."""
    return document.takes(model, {name: {"value": value} for name, value in examples.items()})


async def read_request(request: Request, context: Context, model: type[M]) -> M:
    """Read and validate the body of a request.

    Raises:
        JobFailed: the body is too large, isn't a JSON object, or has an invalid field.
    """
    return validate(model, await read_json_object(request, context.settings.max_body_bytes))


async def registered_base(context: Context) -> Base:
    """Return the pool's base model.

    Raises:
        JobFailed: no worker has registered a base model.
        RedisUnavailable: the registry can't be read.
    """
    base = await context.registry.base()
    if base is None:
        message = "no worker has registered a base model; start a worker, or try again soon"
        raise JobFailed(JobError(code=ErrorCode.UNAVAILABLE, message=message))
    return base


async def adapter_view(context: Context, name: str) -> AdapterView:
    """Return the view of an adapter.

    Raises:
        JobFailed: the name isn't registered. Another client may just have unloaded it.
        RedisUnavailable: the registry can't be read.
    """
    view = await context.adapter_views.adapter(name)
    if view is None:
        raise JobFailed(model_not_found(name))
    return view


async def shown_adapter(context: Context, name: str, base: Base) -> AdapterBody:
    """Return the response body for an adapter, which runs on `base`.

    Raises:
        JobFailed: as `adapter_view`.
        RedisUnavailable: the registry can't be read.
    """
    return adapter_body(await adapter_view(context, name), base, await context.views.workers())


async def add_candidate(context: Context, access: Access, adapter: Adapter) -> None:
    """Register an adapter as the candidate of its name, without requests.

    Raises:
        JobFailed: the name isn't registered, or as `Registry.add_candidate`.
        RedisUnavailable: the registry can't be changed.
    """
    keep_versions = context.settings.keep_versions
    if not await context.registry.add_candidate(
        adapter, keep_versions=keep_versions, by=access.actor
    ):
        raise JobFailed(model_not_found(adapter.name))
