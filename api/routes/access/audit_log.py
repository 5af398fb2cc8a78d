"""GET /v1/audit_log: who changed adapters and API keys, when, and from what to what."""

from fastapi import APIRouter, Request, Response

from api.access.change_query import PARAMETERS, read_change_query
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.openapi.responses import errors
from api.pools.pools import InPool
from api.schema.adapter_versions import ChangeList
from shared.protocol.access.rights import Scope
from shared.store.adapters.changes import Change, Changes

router = APIRouter(tags=["operations"])


@router.get(
    "/v1/audit_log",
    summary="Changes of adapters and API keys",
    response_model=ChangeList,
    responses=errors(400, 503),
    openapi_extra={"parameters": PARAMETERS},
)
@guarded(Work.LIST, Scope.ADMIN)
async def get_audit_log(request: Request, pool: InPool, access: InAccess) -> Response:
    """Return who changed adapters and API keys, newest change first.

    About 10,000 changes are kept. For the next page, send the `last_id` of a page as `after` while
    `has_more` is true.
    """
    query = read_change_query(request.query_params)

    def is_wanted(change: Change) -> bool:
        if query.adapter is not None and change.adapter != query.adapter:
            return False
        return not change.adapter or access.allows(change.adapter)

    found = await pool.part(Changes).newest(query.limit + 1, before=query.after, wanted=is_wanted)
    page = found[: query.limit]
    return json_response(
        {
            "object": "list",
            "data": [_body(change) for change in page],
            "last_id": page[-1].id if page else None,
            "has_more": len(found) > len(page),
        }
    )


def _body(change: Change) -> dict[str, object]:
    return {
        "id": change.id,
        "object": "change",
        "time_ms": change.time_ms,
        "action": change.action,
        "adapter": change.adapter or None,
        "by": change.by or None,
        "from": change.before or None,
        "to": change.after or None,
    }
