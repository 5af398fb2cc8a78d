"""Describes a job to clients: headers that name the job, and bodies with its state and answer."""

import time
from typing import Any

from api.answers.rate_headers import rate_headers
from api.follow.transcript import ChoiceTranscript
from api.formats import whole_body
from api.http.errors import job_error_body
from api.http.headers import JOB_HEADER, LOCATION_HEADER, REPLAYED_HEADER, TOOL_FORM_HEADER
from api.http.lists import page_body
from api.render.openai_chunks import usage_body
from api.schema.errors import ErrorDetail
from api.schema.jobs import ListedJob
from api.schema.usage import UsageBody
from shared.protocol.answers import AnswerSpec
from shared.protocol.enqueue import Enqueued
from shared.protocol.ids import worker_name
from shared.protocol.jobs import JobState, View
from shared.protocol.results import Result
from shared.store.views.job_view import JobPage, JobView

_ANSWER_FIELDS = (
    *("choices", "data", "scores", "results"),
    "prompt_token_ids",
    "prompt_logprobs",
    "usage",
    "created",
    "system_fingerprint",
    "weight_version",
    "service_tier",
)


def answer_headers(spec: AnswerSpec) -> dict[str, str]:
    """Return the response headers that name the answer's job and the form of its tool calls."""
    headers: dict[str, str] = {JOB_HEADER: spec.id}
    return headers | {TOOL_FORM_HEADER: spec.tools.form} if spec.tools else headers


def job_headers(enqueued: Enqueued, view: View, root_path: str) -> dict[str, str]:
    """Return the response headers that name the job of a request."""
    headers = {JOB_HEADER: enqueued.id, LOCATION_HEADER: f"{root_path}/v1/jobs/{enqueued.id}"}
    headers |= rate_headers(enqueued.rates, view)
    return headers if enqueued.is_new else headers | {REPLAYED_HEADER: "true"}


def job_body(view: JobView, result: Result | None = None) -> dict[str, Any]:
    """Return the state of a job, and its answer if `result` has one."""
    body: dict[str, Any] = {**_listed(view), **_timeline(view), "choices": None}
    if result is None or result.state is not JobState.DONE:
        return body
    assert result.usage is not None
    choices = [ChoiceTranscript.of(choice) for choice in result.choices]
    answer = whole_body(view.spec, choices, result.usage)
    if view.spec.view is not View.OPENAI:
        return {**body, "answer": answer}
    assert isinstance(answer, dict)
    return {**body, **{name: answer[name] for name in _ANSWER_FIELDS if name in answer}}


def list_body(page: JobPage) -> dict[str, Any]:
    """Return a page of jobs as a list in OpenAI's format."""
    jobs = [_listed(view) for view in page.jobs]
    return page_body(jobs, has_more=page.has_more) | {"last_id": page.last_id}


def _timeline(view: JobView) -> dict[str, Any]:
    moments = [
        {
            "event": moment.event.value,
            "at": moment.at_ms / 1000,
            "worker": worker_name(moment.worker) if moment.worker else None,
            "reason": moment.reason,
        }
        for moment in view.timeline.moments
    ]
    return {"timeline": moments, "timeline_left_out": view.timeline.num_left_out}


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _duration_s(view: JobView) -> float:
    ended_s = time.time() if view.ended_ms is None else view.ended_ms / 1000
    return round(max(0.0, ended_s - view.enqueued_ms / 1000), 3)


def _listed(view: JobView) -> dict[str, Any]:
    return ListedJob(
        id=view.id,
        state=view.state.value,
        tenant=view.tenant,
        model=view.model,
        version=view.version,
        created_ms=view.enqueued_ms,
        started_ms=view.started_ms,
        ended_ms=view.ended_ms,
        created_at=view.enqueued_ms / 1000,
        started_at=_seconds(view.started_ms),
        ended_at=_seconds(view.ended_ms),
        duration_s=_duration_s(view),
        position=view.position,
        tries=view.try_,
        worker=worker_name(view.worker) if view.worker else None,
        retried_as=view.retried_as,
        error=ErrorDetail(**job_error_body(view.error)["error"]) if view.error else None,
        usage=UsageBody(**usage_body(view.usage)) if view.usage else None,
    ).model_dump()
