"""Base classes of bodies and their parts, and types that several bodies share."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
)

USER = "If the adapter has a canary, requests of one user get the same version."
USER_AS_WELL = "Used in place of `user` if that is missing."
MAX_LISTED = 10_000
"""Maximum number of messages, items or content parts in one list.

`shared.json_budget` bounds all lists of a body together.
"""
IGNORED = "Accepted and ignored; the response header X-Lorikeet-Warning lists it."
"""Description for fields that are accepted and ignored."""
WEIGHT_VERSION = "Version of the model or adapter that answered: `name@digest`."
TEXT_OR_LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}
"""JSON Schema of a field that is text or a list."""
OPTIONAL_TEXT_OR_LIST = {"anyOf": [*TEXT_OR_LIST["anyOf"], {"type": "null"}]}


def _refuse_true(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


Off = Annotated[
    StrictBool,
    AfterValidator(_refuse_true),
    WithJsonSchema({"type": "boolean", "const": False}),
]
"""A switch that must be false. Unlike `Literal[False]`, the type refuses 0."""


def _join_lines(schema: dict[str, Any]) -> None:
    """Join the lines of the descriptions of all fields in a JSON Schema."""
    for field in schema.get("properties", {}).values():
        if "description" in field:
            field["description"] = " ".join(field["description"].split())


class Body(BaseModel):
    """Base class of bodies, queries and their parts.

    The docstring of a field describes the field to clients, in the OpenAPI document.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_join_lines)


class StrictBody(Body):
    """Body or query that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RequestModel(Body):
    """Part of a request body. Unknown fields are kept, but no code reads their values.

    `api.requests.ignored_fields` lists these fields, for a warning or an error.
    """

    model_config = ConfigDict(extra="allow", strict=True)


class JobRequest(RequestModel):
    """Fields of every request that becomes a job. A field that is null has its default value."""

    model: str = Field(min_length=1)
    """Base model or adapter; GET /v1/models lists their names."""
    stream: bool | None = None
    """Whether to send tokens as they are generated, as server-sent events."""
    background: bool | None = None
    """Whether the request runs to its end even if its client disconnects. Without stream, the
    response is the job, with status 202; GET /v1/jobs/{id} has the answer later."""
