"""Builds the parts of the OpenAPI document that routes declare: bodies, queries, responses.

`document.py` builds the rest, and puts the document together.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from api.http.errors import RETRY_AFTER_S
from api.http.headers import (
    JOB_HEADER,
    LOCATION_HEADER,
    PREFERENCE_APPLIED_HEADER,
    REPLAYED_HEADER,
    RETRY_AFTER_HEADER,
    WARNING_HEADER,
)
from api.http.parameters import Parameters
from api.schema.errors import ErrorBody
from api.schema.jobs import JobBody

REF = "#/components/schemas/{model}"
"""Place of a model's schema in the document."""
Responses = dict[int | str, dict[str, Any]]
"""FastAPI's `responses` of a route: the description of each status in the document."""
MEANINGS = {
    400: "The request is invalid or unsupported. `param` names the field.",
    404: "The model or job doesn't exist.",
    409: "The job was cancelled, or the idempotency key belongs to another request.",
    413: "The body is too large.",
    429: "The queue is full.",
    500: "Internal error.",
    503: "Redis, the model or the adapter is unavailable at present, or the server stops.",
    504: "The job wasn't finished within its deadline.",
}
"""Description of each error status. They apply to most routes."""
_ENCODING = "The body has a Content-Encoding other than gzip."
_STREAM: dict[str, Any] = {"text/event-stream": {}}


def takes(
    model: type[BaseModel], *, parameters: Parameters | None = None, **examples: Any
) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes a JSON body of type `model`.

    `parameters` are headers and query parameters of the route. `examples` are example bodies by
    name.
    """
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=model.__name__)}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    body = {"required": True, "content": {"application/json": content}}
    return {"requestBody": body, **({"parameters": parameters} if parameters else {})}


def takes_adapter(query: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route with a safetensors body and a query of type `query`."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = dict.fromkeys(("application/octet-stream", "application/x-safetensors"), binary)
    return {"requestBody": {"content": content}, "parameters": query_parameters(query)}


def query_parameters(query: type[BaseModel]) -> Parameters:
    """Return the OpenAPI entries of the fields of `query`, the type of a query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": query.model_fields[name].is_required(),
            "schema": schema,
        }
        for name, schema in query.model_json_schema(ref_template=REF)["properties"].items()
    ]


def errors(*statuses: int, meanings: Mapping[int, str] = MEANINGS) -> Responses:
    """Return the OpenAPI entries of error responses with `statuses`.

    A route that limits its body (413) also refuses bodies with an unknown encoding (415).
    """
    if 413 in statuses:
        statuses, meanings = (*statuses, 415), {415: _ENCODING, **meanings}
    return {status: _error(status, meanings[status]) for status in statuses}


def inference(answer: type[BaseModel], *, streams: bool = True) -> Responses:
    """Return the OpenAPI entries of a route that generates an `answer`.

    The route returns the answer, a stream of it (with `streams`), or the job that generates it in
    the background.
    """
    headers = {
        **_header(JOB_HEADER, "Id of the job, for /v1/jobs."),
        **_header(WARNING_HEADER, "Fields of the request that were accepted and ignored."),
        **_header(PREFERENCE_APPLIED_HEADER, "The preferences that the server followed."),
        **_header(REPLAYED_HEADER, "true if an earlier request with the same key made the job."),
    }
    success = {
        "description": "The answer. With background: the job of an earlier request, which has "
        "ended.",
        "model": answer | JobBody,
        "content": _STREAM if streams else {},
        "headers": headers,
    }
    accepted = {
        "description": "The job, which runs in the background.",
        "model": JobBody,
        "headers": {**headers, **_header(LOCATION_HEADER, "Path of the job.")},
    }
    return {200: success, 202: accepted, **errors(400, 404, 409, 413, 429, 500, 503, 504)}


def event_stream() -> Responses:
    """Return the OpenAPI entries of a route that returns the stream of an existing job."""
    headers = _header(JOB_HEADER, "Id of the job.")
    success = {
        "description": "Server-sent events with the chunks of the answer.",
        "content": _STREAM,
        "headers": headers,
    }
    return {200: success, **errors(400, 404, 503)}


def _error(status: int, meaning: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": ErrorBody, "description": meaning}
    if status in (429, *RETRY_AFTER_S):
        entry["headers"] = _header(RETRY_AFTER_HEADER, "Seconds to wait before a retry.")
    return entry


def _header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}
