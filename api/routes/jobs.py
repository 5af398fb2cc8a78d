"""/v1/jobs: the states of jobs, their answers and streams, and their cancellation."""

from fastapi import APIRouter, Request, Response

from api.access import job_filters
from api.access.own_job import job_not_found, known_job, own_job
from api.answers.answer import AttachedAnswer
from api.answers.job_description import job_body, job_headers, list_body
from api.answers.many_jobs import retry_options
from api.answers.parts import Following, Intake
from api.formats import position_after
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.headers import LAST_EVENT_HEADER
from api.http.lists import DEFAULT_LIMIT, MAX_LIMIT, check_known, limit, read_limit
from api.http.parameters import Parameters, header, query
from api.openapi.entries import MEANINGS, errors, event_stream
from api.pools.requested import InPool, part
from api.schema.jobs import CancelledJob, DeletedJob, JobBody, JobList
from shared.errors import JobFailed, invalid_value
from shared.protocol.access.rights import Scope
from shared.protocol.ids import job_id_of
from shared.protocol.jobs import UNFINISHED, Endpoint
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.jobs.retried_jobs import RETRYABLE, enqueue_again, not_retryable
from shared.store.views.job_lists import JobLists
from shared.store.views.pool_views import PoolViews

router = APIRouter(tags=["jobs"])
ERRORS = errors(404, 503)
_MEANINGS = {**MEANINGS, 403: "Jobs of other tenants need the scope `admin`."}
AFTER = "after"
_LIST_PARAMETERS: Parameters = [
    *job_filters.PARAMETERS,
    limit("jobs", default=DEFAULT_LIMIT, most=MAX_LIMIT),
    query(AFTER, "Id of a job; the page begins with the next older one.", {"type": "string"}),
]
_LIST_NAMES = [parameter["name"] for parameter in _LIST_PARAMETERS]
_STREAM_PARAMETERS = [
    query(AFTER, "Id of an event. Overrides the header.", {"type": "string"}),
    header(
        LAST_EVENT_HEADER,
        "Id of the last event that the client has. By default, the stream begins at its start.",
        {"type": "string"},
    ),
]


@router.get(
    "/v1/jobs",
    summary="List jobs",
    response_model=JobList,
    responses=errors(400, 403, 404, 503, meanings=_MEANINGS),
    openapi_extra={"parameters": _LIST_PARAMETERS},
)
@guarded(Work.LIST, Scope.INFERENCE)
async def list_jobs(
    request: Request, access: InAccess, lists: JobLists = part(JobLists)
) -> Response:
    """Return the jobs of the tenant, newest first. Their answers aren't included.

    Jobs that ended without an answer are listed for --unanswered-days, others for --retain-s. If
    `has_more` is true, send `last_id` as `after` to get the next page. With a filter, a page can be
    short or empty even if there is a next page.
    """
    params = request.query_params
    check_known(params, _LIST_NAMES)
    after = job_id_of(params[AFTER]) if AFTER in params else None
    page = await lists.page(
        job_filters.filter_of_query(params, access),
        limit=read_limit(params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT),
        after=after,
    )
    if page is None:
        raise job_not_found(after or "", param=AFTER)
    return json_response(list_body(page))


@router.get("/v1/jobs/{job_id}", summary="Get a job", response_model=JobBody, responses=ERRORS)
@guarded(Work.READ, Scope.INFERENCE)
async def get_job(
    job_id: str, access: InAccess, views: PoolViews = part(PoolViews), queue: Queue = part(Queue)
) -> Response:
    """Return the state of a job and, once it is done, its answer. Answers expire after some time.

    `timeline` has the events of the job. A key with the scope `admin` also gets the states of other
    tenants' jobs, without their answers.

    `job_id` is the value of the header `X-Lorikeet-Job`, or the `id` of a completion. If the
    client of a job has disconnected, this request keeps the job from being cancelled, if it arrives
    in time.
    """
    view = await known_job(views, access, job_id)
    if view.tenant != access.tenant:
        return json_response(job_body(view))
    found, result = await views.job_and_result(view.id)
    if found is None:
        return json_response(job_body(view))
    if found.state in UNFINISHED:
        await queue.undo_abandon(view.id)
    return json_response(job_body(found, result))


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job", responses=ERRORS)
@guarded(Work.RECORD, Scope.INFERENCE)
async def cancel_job(
    job_id: str, access: InAccess, views: PoolViews = part(PoolViews), queue: Queue = part(Queue)
) -> CancelledJob:
    """Cancel a job. The request that created the job fails with the error `cancelled`.

    Cancelling a job that has already ended has no effect.
    """
    view = await known_job(views, access, job_id)
    state = await queue.cancel(view.id) or view.state
    return CancelledJob(id=view.id, state=state.value)


@router.post(
    "/v1/jobs/{job_id}/retry",
    summary="Retry a job",
    status_code=202,
    response_model=JobBody,
    responses=errors(
        *(404, 409, 429, 503),
        meanings={**MEANINGS, 409: "The job isn't dead or failed, or can't be retried."},
    ),
)
@guarded(Work.ANSWER, Scope.INFERENCE)
async def retry(
    job_id: str,
    pool: InPool,
    access: InAccess,
    intake: Intake = part(Intake),
    letters: DeadLetters = part(DeadLetters),
    views: PoolViews = part(PoolViews),
) -> Response:
    """Enqueue a dead or failed job again under a new id, with its model's current weights.

    The response describes the new job, which runs in the background. A failed job can be retried
    only if a server error ended it. While a worker runs a dead job again, it runs no other job,
    because the dead job may kill the worker.
    """
    view = await known_job(views, access, job_id)
    old = await letters.find(view.id) if view.state in RETRYABLE else None
    if old is None:
        raise JobFailed(not_retryable(job_id, view))
    async with intake.turns.turn(access.tenant):
        options = retry_options(intake, access, old.job.tenant)
        enqueued = await enqueue_again(old, intake.queue, intake.registry, intake.limits, options)
    headers = job_headers(enqueued, view.spec.view, pool.root_path)
    return json_response(job_body(await known_job(views, access, enqueued.id)), 202, headers)


@router.delete("/v1/jobs/{job_id}", summary="Cancel or erase a job", responses=ERRORS)
@guarded(Work.RECORD, Scope.INFERENCE)
async def delete_job(
    job_id: str, access: InAccess, views: PoolViews = part(PoolViews), queue: Queue = part(Queue)
) -> DeletedJob:
    """Erase the prompt, the answer and the record of a job that has ended.

    A job that hasn't ended is cancelled, as with POST /v1/jobs/{job_id}/cancel. Once it has ended,
    a second request erases it.
    """
    view = await known_job(views, access, job_id)
    state = await queue.erase(view.id)
    deleted = state not in UNFINISHED
    if not deleted:
        state = await queue.cancel(view.id)
    if state is None:
        raise job_not_found(job_id)
    return DeletedJob(id=view.id, state=state.value, deleted=deleted)


@router.get(
    "/v1/jobs/{job_id}/stream",
    summary="Stream the answer of a job",
    response_class=Response,  # without a media type, so that errors are documented as JSON
    responses=event_stream(),
    openapi_extra={"parameters": _STREAM_PARAMETERS},
)
@guarded(Work.STREAM, Scope.INFERENCE)
async def stream_job(
    job_id: str,
    request: Request,
    access: InAccess,
    views: PoolViews = part(PoolViews),
    following: Following = part(Following),
) -> Response:
    """Send the answer of a job as server-sent events, as its endpoint streams it.

    Every event has an id. After a broken connection, the stream continues exactly after the event
    with the given id, on every front end, until the answer expires. An error of the job is an
    event. A stream of chunks that doesn't end with `[DONE]` was interrupted.
    """
    view = await own_job(views, access, job_id)
    spec = view.spec
    if spec.endpoint in (Endpoint.EMBEDDINGS, Endpoint.SCORES):
        raise invalid_value(f"{spec.endpoint} aren't streamed; GET /v1/jobs/{view.id} has them")
    if (after := request.query_params.get(AFTER)) is not None:
        position = position_after(after, spec, param=AFTER)
    else:
        last = request.headers.get(LAST_EVENT_HEADER, "")
        position = position_after(last, spec, param=LAST_EVENT_HEADER)
    return AttachedAnswer(following, view, is_stream=True, after=position)
