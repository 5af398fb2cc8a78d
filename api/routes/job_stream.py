"""GET /v1/jobs/{job_id}/stream: the answer of a job as a stream, after any of its events."""

from fastapi import APIRouter, Request, Response

from api.access.own_job import own_job
from api.answers.answer import AttachedAnswer
from api.answers.following import Following
from api.formats import position_after
from api.http.guards import InAccess, Work, guarded
from api.http.headers import LAST_EVENT_HEADER
from api.http.parameters import header, query
from api.openapi.responses import event_stream
from api.pools.pools import InPool
from shared.errors import invalid_value
from shared.protocol.access.rights import Scope
from shared.protocol.jobs import Endpoint

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
@guarded(Work.STREAM, Scope.INFERENCE)
async def stream_job(job_id: str, request: Request, pool: InPool, access: InAccess) -> Response:
    """Send the answer of a job as server-sent events, as its endpoint streams it.

    Every event has an id. After a broken connection, the stream continues exactly after the event
    with the given id, on every front end, until the answer expires. An error of the job is an
    event. A stream of chunks that doesn't end with `[DONE]` was interrupted.
    """
    view = await own_job(pool.views, access, job_id)
    spec = view.spec
    if spec.endpoint is Endpoint.EMBEDDINGS:
        raise invalid_value(f"embeddings aren't streamed; GET /v1/jobs/{view.id} has them")
    if (after := request.query_params.get(AFTER)) is not None:
        position = position_after(after, spec, param=AFTER)
    else:
        last = request.headers.get(LAST_EVENT_HEADER, "")
        position = position_after(last, spec, param=LAST_EVENT_HEADER)
    return AttachedAnswer(pool.part(Following), view, is_stream=True, after=position)
