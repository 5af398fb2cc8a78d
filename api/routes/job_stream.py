"""GET /v1/jobs/{job_id}/stream: the answer of a job as a stream, after any of its events."""

from fastapi import APIRouter, Request, Response

from api.answer import AttachedAnswer, spec_of
from api.context import InContext, InTenant
from api.headers import LAST_EVENT_HEADER
from api.jobs.own_jobs import own_job
from api.openapi.parameters import header, query
from api.openapi.responses import event_stream
from api.render.event_ids import parse_event_id

router = APIRouter(tags=["jobs"])
AFTER = "after"
_PARAMETERS = [
    query(AFTER, "Id of an event. Overrides the header.", {"type": "string"}),
    header(
        LAST_EVENT_HEADER,
        "Id of the last event that the client has. By default, the stream begins at its start.",
        {"type": "string"},
    ),
]


@router.get(
    "/v1/jobs/{job_id}/stream",
    summary="Stream the answer of a job",
    response_class=Response,  # without a media type, so that errors are documented as JSON
    responses=event_stream(),
    openapi_extra={"parameters": _PARAMETERS},
)
async def stream_job(
    job_id: str, request: Request, context: InContext, tenant: InTenant
) -> Response:
    """Send the answer of a job as server-sent events, as its endpoint streams it.

    Every event has an id. After a broken connection, the stream continues exactly after the event
    with the given id, on every front end, until the answer expires. An error of the job is an
    event. A stream that doesn't end with `[DONE]` was interrupted.
    """
    view = await own_job(context, tenant, job_id)
    spec = spec_of(view)
    if (after := request.query_params.get(AFTER)) is not None:
        position = parse_event_id(after, spec, param=AFTER)
    else:
        last = request.headers.get(LAST_EVENT_HEADER, "")
        position = parse_event_id(last, spec, param=LAST_EVENT_HEADER)
    return AttachedAnswer(context, view, is_stream=True, after=position)
