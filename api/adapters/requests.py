"""Shared parts of the routes that manage adapters: their bodies and errors."""

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from api.http.body import read_json_object
from api.http.validation import validate
from api.openapi import document
from api.openapi.responses import Responses, errors

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


async def read_request(request: Request, model: type[M]) -> M:
    """Read and validate the body of a request.

    Raises:
        JobFailed: the body is too large, isn't a JSON object, or has an invalid field.
    """
    return validate(model, await read_json_object(request))
