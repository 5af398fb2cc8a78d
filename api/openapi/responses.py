"""What routes can answer beside what they are asked for, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from api.errors import JOB_HEADER, RETRY_AFTER_S
from api.requests.unused_fields import WARNING_HEADER
from api.schema.errors import ErrorBody

Responses = dict[int | str, dict[str, Any]]

_MEANINGS = {
    400: "the request can't be served as it is: `param` names the field",
    404: "there is no such model or job",
    409: "the job was cancelled",
    413: "the body is too large",
    429: "too much is waiting",
    500: "a fault of the server's",
    503: "Redis, the model or the adapter can't be reached for now",
    504: "not finished within the deadline",
}
_STREAM: dict[str, Any] = {"text/event-stream": {}}


def errors(*statuses: int, meanings: Mapping[int, str] = _MEANINGS) -> Responses:
    """The document's entries of these statuses, in OpenAI's shape."""
    return {
        status: {
            "model": ErrorBody,
            "description": meanings[status],
            **({"headers": _header("Retry-After", "seconds")} if status in RETRY_AFTER_S else {}),
        }
        for status in statuses
    }


def inference(answer: type[BaseModel]) -> Responses:
    """The entries of a route that answers with `answer`, or with a stream of its chunks."""
    headers = {
        **_header(JOB_HEADER, "names the job at /v1/jobs"),
        **_header(WARNING_HEADER, "names fields that were accepted and not used"),
    }
    whole = {"model": answer, "content": _STREAM, "headers": headers}
    return {200: whole, **errors(400, 404, 409, 413, 429, 500, 503, 504)}


def _header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}
