"""GET /v1/audit_log: who changed adapters and API keys, when, and from what to what."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.access.change_query import CHANGE_PARAMETERS, read_change_query
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import errors
from api.pools.requested import part
from api.schema.audit_log import ChangeList
from shared.protocol.access.rights import Scope
from shared.store.adapters.audit_log import Change, Changes

router = APIRouter(tags=["operations"])


@router.get(
    "/v1/audit_log",
    summary="Changes of adapters and API keys",
    response_model=ChangeList,
    responses=errors(400, 503),
    openapi_extra={"parameters": CHANGE_PARAMETERS},
)
@guarded(Work.LIST, Scope.ADMIN)
async def get_audit_log(
    request: Request, access: InAccess, changes: Changes = part(Changes)
) -> Response:
    """Return who changed adapters and API keys, newest change first.

    About 10,000 changes are kept. For the next page, send the `last_id` of a page as `after` while
    `has_more` is true.
    """
    limit, after, adapter = read_change_query(request.query_params)

    def is_wanted(change: Change) -> bool:
        if adapter is not None and change.adapter != adapter:
            return False
        return not change.adapter or access.allows(change.adapter)

    found = await changes.newest(limit + 1, before=after, wanted=is_wanted)
    page = found[:limit]
    return json_response(
        {
            "object": "list",
            "data": [_body(change) for change in page],
            "last_id": page[-1].id if page else None,
            "has_more": len(found) > len(page),
        }
    )


def _body(change: Change) -> dict[str, Any]:
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
