"""Builds the parts of the OpenAPI document that routes declare: bodies, queries, responses.

`document.py` builds the rest, and puts the document together.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Any

from pydantic import BaseModel

from api.http.errors import RETRY_AFTER_S
from api.http.headers import (
    JOB_HEADER,
    LOCATION_HEADER,
    PREFERENCE_APPLIED_HEADER,
    REPLAYED_HEADER,
    RETRY_AFTER_HEADER,
    TOOL_FORM_HEADER,
    WARNING_HEADER,
)
from api.http.parameters import Parameters
from api.render.sse import JSON_LINES_TYPE, SSE_TYPE
from api.schema.errors import ErrorBody
from api.schema.jobs import JobBody

REF = "#/components/schemas/{model}"
"""Reference to the JSON Schema of the pydantic class `model` in the document."""
Responses = dict[int | str, dict[str, Any]]
"""Value of FastAPI's parameter `responses`: for each status, its description in the document."""
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
"""Descriptions of the error statuses. They apply to most routes."""
_ANSWER_ERRORS = (400, 404, 409, 413, 429, 500, 503, 504)
"""Statuses of the error responses of a route that generates answers."""
_ENCODING = "The body has a Content-Encoding other than gzip."


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
    """Return the `openapi_extra` of a route whose body is a safetensors file.

    `query` is the pydantic class of the route's query.
    """
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = dict.fromkeys(("application/octet-stream", "application/x-safetensors"), binary)
    return {"requestBody": {"content": content}, "parameters": query_parameters(query)}


def query_parameters(query: type[BaseModel]) -> Parameters:
    """Return the OpenAPI entries of query parameters, one for each field of the class `query`."""
    return [
        {
            "name": name,
            "in": "query",
            "required": query.model_fields[name].is_required(),
            "schema": schema,
        }
        for name, schema in query.model_json_schema(ref_template=REF)["properties"].items()
    ]


def errors(
    *statuses: int,
    meanings: Mapping[int, str] = MEANINGS,
    body: type[BaseModel] = ErrorBody,
) -> Responses:
    """Return the OpenAPI entries of the error responses with these `statuses`.

    `body` is the pydantic class of the error bodies.

    A route that limits its body (413) also refuses bodies with an unknown encoding (415).
    """
    if 413 in statuses:
        statuses, meanings = (*statuses, 415), {415: _ENCODING, **meanings}
    return {status: _error(status, meanings[status], body) for status in statuses}


def inference(answer: type[BaseModel] | UnionType, *, streams: bool = True) -> Responses:
    """Return the OpenAPI entries of a route that generates an `answer`.

    The route returns the answer, a stream of the answer (with `streams`), or the job that generates
    the answer in the background.
    """
    headers = _answer_headers()
    success: dict[str, Any] = {
        "description": "The answer. With background: the job of an earlier request, which has "
        "ended.",
        "model": answer | JobBody,
        "content": {SSE_TYPE: {}} if streams else {},
        "headers": headers,
    }
    accepted = {
        "description": "The job, which runs in the background.",
        "model": JobBody,
        "headers": {**headers, **_header(LOCATION_HEADER, "Path of the job.")},
    }
    return {200: success, 202: accepted, **errors(*_ANSWER_ERRORS)}


def viewed_inference(
    answer: type[BaseModel], error: type[BaseModel], *, stream: str | None = None
) -> Responses:
    """Return the OpenAPI entries of a route of an API other than OpenAI's.

    Such a route never answers in the background.

    `error` is the class of the error bodies. `stream` is the media type of the route's streams;
    None if it has no streams.
    """
    success: dict[str, Any] = {
        "description": "The answer.",
        "model": answer,
        "content": {stream: {}} if stream else {},
        "headers": _answer_headers(),
    }
    return {200: success, **errors(*_ANSWER_ERRORS, body=error)}


def event_stream() -> Responses:
    """Return the OpenAPI entries of a route that returns an existing job's answer as a stream."""
    headers = _header(JOB_HEADER, "Id of the job.")
    success: dict[str, Any] = {
        "description": "Server-sent events with the chunks of the answer. A job of Ollama's API "
        "has one JSON object per line instead.",
        "content": {SSE_TYPE: {}, JSON_LINES_TYPE: {}},
        "headers": headers,
    }
    return {200: success, **errors(400, 404, 503)}


def _answer_headers() -> dict[str, Any]:
    return {
        **_header(JOB_HEADER, "Id of the job, for /v1/jobs."),
        **_header(TOOL_FORM_HEADER, "Form of the model's tool calls, if the request has tools."),
        **_header(WARNING_HEADER, "Fields of the request that were accepted and ignored."),
        **_header(PREFERENCE_APPLIED_HEADER, "The preferences that the server followed."),
        **_header(REPLAYED_HEADER, "true if an earlier request with the same key made the job."),
    }


def _error(status: int, meaning: str, body: type[BaseModel]) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": body, "description": meaning}
    if status in (429, *RETRY_AFTER_S):
        entry["headers"] = _header(RETRY_AFTER_HEADER, "Seconds to wait before a retry.")
    return entry


def _header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}
