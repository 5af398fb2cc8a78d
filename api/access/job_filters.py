"""Reads filters of jobs from queries and bodies, and checks that the client may use them."""

from typing import Any, get_args

from starlette.datastructures import QueryParams

from api.access.own_job import is_operator
from api.http.guards import HINTS
from api.http.parameters import Parameters, query
from api.http.validation import validate
from api.schema.job_actions import MAX_AGE_S, JobFilterBody
from api.schema.jobs import State
from shared.errors import ErrorCode, failed, invalid_value
from shared.protocol.access.rights import Access, Scope
from shared.protocol.job_filter import JobFilter
from shared.protocol.jobs import JobState

ALL_TENANTS = "*"
_AGE = {"type": "number", "minimum": 0, "maximum": MAX_AGE_S}
PARAMETERS: Parameters = [
    query(
        "state",
        "States of the jobs, separated by commas or in repeated parameters. Defaults to all.",
        {"type": "array", "items": {"type": "string", "enum": list(get_args(State))}},
    ),
    query(
        "model",
        "Model that the requests named, or adapter that served them. Defaults to all.",
        {"type": "string"},
    ),
    query(
        "tenant",
        "Tenant of the jobs, or `*` for all. By default the key's tenant; others need the scope "
        "`admin`.",
        {"type": "string"},
    ),
    query("error_code", "Code of the error with which the jobs ended.", {"type": "string"}),
    query("min_age_s", "Minimum number of seconds since the jobs were accepted.", _AGE),
    query("max_age_s", "Maximum number of seconds since the jobs were accepted.", _AGE),
]
"""Parameters of a list of jobs in the OpenAPI document."""


def filter_of_query(params: QueryParams, access: Access) -> JobFilter:
    """Return the filter for the jobs that a client asks to list.

    Raises:
        JobFailed: a parameter is invalid, or the client may not see the tenant's jobs.
    """
    given: dict[str, Any] = {
        name: params[name] for name in ("model", "tenant", "error_code") if name in params
    }
    given |= {
        name: _age(params[name], name) for name in ("min_age_s", "max_age_s") if name in params
    }
    if states := _states(params.getlist("state")):
        given["state"] = states
    return filter_of(validate(JobFilterBody, given), access)


def filter_of(body: JobFilterBody, access: Access) -> JobFilter:
    """Return the filter for the jobs that a client asks for.

    Raises:
        JobFailed: the client may not see the tenant's jobs.
    """
    tenant = access.tenant if body.tenant is None else body.tenant
    if tenant != access.tenant and not is_operator(access):
        message = f"tenant: jobs of other tenants need {HINTS[Scope.ADMIN]}"
        raise failed(ErrorCode.PERMISSION_DENIED, message, "tenant")
    states = [body.state] if isinstance(body.state, str) else body.state
    return JobFilter(
        tenant=None if tenant == ALL_TENANTS else tenant,
        states=frozenset(map(JobState, states)) if states else None,
        model=body.model,
        error_code=body.error_code,
        min_age_s=body.min_age_s,
        max_age_s=body.max_age_s,
        allows=access.allows,
    )


def _states(texts: list[str]) -> list[str]:
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if word not in get_args(State):
            message = f"state: must be one of {', '.join(get_args(State))}, not {word[:60]!r}"
            raise invalid_value(message, "state")
    return words


def _age(text: str, name: str) -> float:
    try:
        return float(text[:60])
    except ValueError:
        message = f"{name}: must be a number of seconds, not {text[:60]!r}"
        raise invalid_value(message, name) from None
