"""POST /v1/jobs/cancel and /v1/jobs/retry: actions on all jobs that match a filter."""

from fastapi import APIRouter, Request

from api.access.job_filters import filter_of
from api.adapters.management import read_request
from api.answers.many_jobs import Outcome, cancel_many, retry_many
from api.answers.parts import Intake
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import MEANINGS, errors, takes
from api.pools.requested import part
from api.schema.job_actions import ActedJob, JobActionBody, JobActionRequest
from shared.protocol.access.rights import Scope
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.views.job_lists import JobLists

router = APIRouter(tags=["jobs"])
MAX_LISTED = 1000
"""Maximum number of jobs that a response lists."""
_MEANINGS = {**MEANINGS, 403: "Jobs of other tenants need the scope `admin`."}


@router.post(
    "/v1/jobs/cancel",
    summary="Cancel many jobs",
    responses=errors(400, 403, 413, 503, meanings=_MEANINGS),
    openapi_extra=takes(
        JobActionRequest, default={}, preview={"model": "sql", "min_age_s": 600, "dry_run": True}
    ),
)
@guarded(Work.JOBS, Scope.INFERENCE)
async def cancel_jobs(
    request: Request,
    access: InAccess,
    lists: JobLists = part(JobLists),
    queue: Queue = part(Queue),
) -> JobActionBody:
    """Cancel all waiting and running jobs that match the filter, by default all jobs of the tenant.

    With `dry_run`, nothing changes, and the response has the jobs that match.
    """
    body = await read_request(request, JobActionRequest)
    wanted = filter_of(body, access)
    return _body(await cancel_many(lists, queue, wanted, dry_run=body.dry_run), body.dry_run)


@router.post(
    "/v1/jobs/retry",
    summary="Retry many jobs",
    responses=errors(400, 403, 413, 429, 503, meanings=_MEANINGS),
    openapi_extra=takes(
        JobActionRequest,
        default={},
        preview={"state": "failed", "error_code": "internal_error", "dry_run": True},
    ),
)
@guarded(Work.JOBS, Scope.INFERENCE)
async def retry_jobs(
    request: Request,
    access: InAccess,
    lists: JobLists = part(JobLists),
    letters: DeadLetters = part(DeadLetters),
    intake: Intake = part(Intake),
) -> JobActionBody:
    """Enqueue again all dead and failed jobs that match the filter, each at most once.

    The request may be repeated, for example after a broken connection: jobs that were retried
    before are skipped. Jobs whose requests caused the error or aren't kept any more are skipped,
    too. With `dry_run`, nothing changes, and the response has the jobs that match.
    """
    body = await read_request(request, JobActionRequest)
    wanted = filter_of(body, access)
    outcome = await retry_many(lists, letters, intake, access, wanted, dry_run=body.dry_run)
    return _body(outcome, body.dry_run)


def _body(outcome: Outcome, dry_run: bool) -> JobActionBody:
    done = 0 if dry_run else sum(each.error is None for each in outcome.jobs)
    return JobActionBody(
        matched=outcome.num_matched,
        done=done,
        skipped=outcome.num_matched - done,
        has_more=outcome.has_more,
        reason=outcome.reason,
        jobs=[
            ActedJob(id=each.id, new_id=each.new_id, error=each.error)
            for each in outcome.jobs[:MAX_LISTED]
        ],
    )
