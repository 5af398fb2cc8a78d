"""Describes a job to clients: headers that name the job, and bodies with its state and answer."""

from typing import Any

from api.answers.rate_headers import rate_headers
from api.follow.transcript import ChoiceTranscript
from api.formats import whole_body
from api.http.errors import job_error_body
from api.http.headers import JOB_HEADER, LOCATION_HEADER, REPLAYED_HEADER
from api.http.lists import page_body
from api.render.openai_chunks import usage_body
from api.schema.errors import ErrorDetail
from api.schema.jobs import ListedJob
from api.schema.usage import UsageBody
from shared.protocol.enqueue import Enqueued
from shared.protocol.jobs import JobState, View
from shared.protocol.results import Result
from shared.store.views.job_view import JobPage, JobView

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


def job_headers(enqueued: Enqueued, root_path: str) -> dict[str, str]:
    """Return the response headers that name the job of a request."""
    headers = {JOB_HEADER: enqueued.id, LOCATION_HEADER: f"{root_path}/v1/jobs/{enqueued.id}"}
    headers |= rate_headers(enqueued.rates)
    return headers if enqueued.is_new else headers | {REPLAYED_HEADER: "true"}


def job_body(view: JobView, result: Result | None = None) -> dict[str, Any]:
    """Return the state of a job, and its answer if `result` has one."""
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
    """Return a page of jobs as a list in OpenAI's format."""
    jobs = [_listed(view) for view in page.jobs]
    return page_body(jobs, has_more=page.has_more) | {"last_id": page.last_id}


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
