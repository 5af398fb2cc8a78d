"""Reads the query of GET /v1/jobs."""

from dataclasses import dataclass
from typing import get_args

from starlette.datastructures import QueryParams

from api.http.lists import check_known, limit, read_limit
from api.http.parameters import Parameters, query
from api.schema.jobs import State
from shared.errors import invalid_value
from shared.protocol.ids import JobId, job_id_of
from shared.protocol.jobs import JobState

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
PARAMETERS: Parameters = [
    query(
        "state",
        "States of the jobs, separated by commas or in repeated parameters. Defaults to all.",
        {"type": "array", "items": {"type": "string", "enum": list(get_args(State))}},
    ),
    query("model", "Model that the requests named. Defaults to all.", {"type": "string"}),
    limit("jobs", default=DEFAULT_LIMIT, most=MAX_LIMIT),
    query("after", "Id of a job; the page begins with the next older one.", {"type": "string"}),
]
"""Parameters of the query in the OpenAPI document."""
_NAMES = [parameter["name"] for parameter in PARAMETERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Jobs that a client wants to see."""

    limit: int = DEFAULT_LIMIT
    after: JobId | None = None
    states: frozenset[JobState] | None = None
    """None for all states."""
    model: str | None = None
    """None for all models."""


def read_list_query(params: QueryParams) -> ListQuery:
    """Return the jobs that a client wants to see.

    Raises:
        JobFailed: a parameter is unknown or has an invalid value. The error names the parameter.
    """
    check_known(params, _NAMES)
    after = params.get("after")
    return ListQuery(
        limit=read_limit(params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT),
        after=job_id_of(after) if after is not None else None,
        states=_states(params.getlist("state")),
        model=params.get("model"),
    )


def _states(texts: list[str]) -> frozenset[JobState] | None:
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if word not in get_args(State):
            message = f"state: must be one of {', '.join(get_args(State))}, not {word[:60]!r}"
            raise invalid_value(message, "state")
    return frozenset(map(JobState, words)) or None
