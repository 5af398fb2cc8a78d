"""Lists jobs on behalf of their tenants, and builds the bodies of responses about jobs."""

from dataclasses import dataclass
from typing import Any, get_args

from starlette.datastructures import QueryParams

from api.access.model_rights import job_not_found
from api.follow.transcript import ChoiceTranscript
from api.formats import whole_body
from api.http.errors import job_error_body
from api.http.parameters import Parameters, check_known, limit, query, read_limit
from api.render.openai_chunks import usage_body
from api.schema.base import ErrorDetail
from api.schema.jobs import ListedJob, State
from api.schema.logprobs import UsageBody
from shared.errors import invalid_value
from shared.protocol.access.rights import Access
from shared.protocol.ids import JobId, job_id_of
from shared.protocol.jobs import JobState, View
from shared.protocol.results import Result
from shared.store.views.job_view import JobPage, JobView
from shared.store.views.pool_views import PoolViews

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
_ANSWER_FIELDS = (
    "choices",
    "data",
    "prompt_token_ids",
    "prompt_logprobs",
    "usage",
    "created",
    "system_fingerprint",
    "weight_version",
    "service_tier",
)


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


async def own_jobs(views: PoolViews, access: Access, query: ListQuery) -> JobPage:
    """Return a page of the jobs that the client may see and that match `query`, newest first.

    Raises:
        JobFailed: the tenant doesn't have the job `query.after`.
    """
    page = await views.jobs(
        access.tenant,
        limit=query.limit,
        after=query.after,
        states=query.states,
        model=query.model,
        allows=access.allows,
    )
    if page is None:
        raise job_not_found(query.after or "", param="after")
    return page


def job_body(view: JobView, result: Result | None = None) -> dict[str, Any]:
    """Return the state of a job and, if `result` is the result of a finished one, its answer."""
    body: dict[str, Any] = {**_listed(view), "choices": None}
    if result is None or result.state is not JobState.DONE:
        return body
    assert result.usage is not None
    choices = [ChoiceTranscript.of(choice) for choice in result.choices]
    answer = whole_body(view.spec, choices, result.usage)
    if view.spec.view is not View.OPENAI:
        return {**body, "answer": answer}
    return {**body, **{name: answer[name] for name in _ANSWER_FIELDS if name in answer}}


def list_body(page: JobPage) -> dict[str, Any]:
    """Return a page of jobs as a list in OpenAI's form."""
    return {
        "object": "list",
        "data": [_listed(view) for view in page.jobs],
        "first_id": page.jobs[0].id if page.jobs else None,
        "last_id": page.last_id,
        "has_more": page.has_more,
    }


def _listed(view: JobView) -> dict[str, Any]:
    return ListedJob(
        id=view.id,
        state=view.state.value,
        model=view.model,
        version=view.version,
        created_ms=view.enqueued_ms,
        started_ms=view.started_ms,
        ended_ms=view.ended_ms,
        position=view.position,
        tries=view.try_,
        worker=view.worker,
        error=ErrorDetail(**job_error_body(view.error)["error"]) if view.error else None,
        usage=UsageBody(**usage_body(view.usage)) if view.usage else None,
    ).model_dump()
