"""GET /v1/pool and its stream of events: the state of the pool, for its operators."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.http.errors import json_response
from api.http.guards import Work, guarded
from api.http.validation import validate
from api.openapi.entries import errors, query_parameters
from api.pool_state.incident_text import subject_of, text_of
from api.pool_state.plots import WINDOWS
from api.pools.pool_status import PoolReports
from api.pools.requested import part
from api.schema.pool import (
    HistoryBody,
    HistoryIncident,
    HistoryQuery,
    HistorySeries,
    PoolBody,
)
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["operations"])
_ADMIN_DENIED = {403: "The key lacks the scope `admin`."}
_STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would buffer the events otherwise
}


@router.get(
    "/v1/pool",
    summary="State of the pool",
    response_model=PoolBody,
    responses={**errors(403, meanings=_ADMIN_DENIED), **errors(503)},
)
@guarded(Work.SUMMARY, Scope.ADMIN)
async def get_pool(reports: PoolReports = part(PoolReports)) -> Response:
    """Return workers, adapters, queue, rates and incidents. The state is cached for one second."""
    state = await reports.state.get()
    return json_response({**reports.body_of(state), "history": state.points})


@router.get(
    "/v1/pool/history",
    summary="Plots of the pool",
    responses={**errors(403, meanings=_ADMIN_DENIED), **errors(400, 503)},
    openapi_extra={"parameters": query_parameters(HistoryQuery)},
)
@guarded(Work.SUMMARY, Scope.ADMIN)
async def get_history(request: Request, reports: PoolReports = part(PoolReports)) -> HistoryBody:
    """Return throughput, failures, queue and times to the first token, and the incidents."""
    window = validate(HistoryQuery, dict(request.query_params)).window
    plots = await reports.history.read(WINDOWS[window])
    return HistoryBody(
        window=window,
        step_s=plots.step_s,
        started_at=round(plots.started_s, 3),
        series=HistorySeries.model_validate(plots.series),
        incidents=[
            HistoryIncident(at=i.time_s, kind=i.kind, text=text_of(i), subject=subject_of(i))
            for i in plots.incidents
        ],
    )


@router.get(
    "/v1/pool/events",
    summary="Stream the state of the pool",
    response_class=Response,  # without a media type, so that errors are documented as JSON
    responses={
        200: {
            "description": "Server-sent events. `pool`: the state, at first with the whole "
            "history, then each second with the points that are new. `incident`: one incident, "
            "once it happens. `error`: Redis doesn't answer, and the stream goes on once it does.",
            "content": {"text/event-stream": {}},
        },
        **errors(403, meanings=_ADMIN_DENIED),
    },
)
@guarded(Work.STREAM, Scope.ADMIN)
async def stream_pool(reports: PoolReports = part(PoolReports)) -> Response:
    """Send the state of the pool as server-sent events until the client leaves."""
    events = reports.feed.events()
    return StreamingResponse(events, media_type="text/event-stream", headers=_STREAM_HEADERS)
