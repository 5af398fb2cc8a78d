"""GET /v1/audit_log: changes of adapters and API keys, with their times and authors."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.lists import check_known, limit, read_limit
from api.http.parameters import Parameters, query
from api.openapi.entries import errors
from api.pools.requested import part
from api.schema.audit_log import ChangeList
from shared.errors import invalid_value
from shared.protocol.access.rights import Scope
from shared.store.adapters.audit_log import Change, Changes

router = APIRouter(tags=["operations"])
DEFAULT_LIMIT, MAX_LIMIT = 50, 500
PARAMETERS: Parameters = [
    limit("changes", default=DEFAULT_LIMIT, most=MAX_LIMIT),
    query("after", "last_id of the previous page.", {"type": "string"}),
    query("adapter", "Name of the adapter whose changes are wanted.", {"type": "string"}),
]
_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_PART = 2**64 - 1
"""Largest number in an id of a Redis stream."""


@router.get(
    "/v1/audit_log",
    summary="Changes of adapters and API keys",
    response_model=ChangeList,
    responses=errors(400, 503),
    openapi_extra={"parameters": PARAMETERS},
)
@guarded(Work.LIST, Scope.ADMIN)
async def get_audit_log(
    request: Request, access: InAccess, changes: Changes = part(Changes)
) -> Response:
    """Return the changes of adapters and API keys with their authors, newest first.

    About 10,000 changes are kept. If `has_more` is true, send `last_id` as `after` to get the
    next page.
    """
    most, after, adapter = _read_query(request.query_params)

    def is_wanted(change: Change) -> bool:
        if adapter is not None and change.adapter != adapter:
            return False
        return not change.adapter or access.allows(change.adapter)

    found = await changes.newest(most + 1, before=after, wanted=is_wanted)
    page = found[:most]
    return json_response(
        {
            "object": "list",
            "data": [_body(change) for change in page],
            "last_id": page[-1].id if page else None,
            "has_more": len(found) > len(page),
        }
    )


def _read_query(given: Mapping[str, str]) -> tuple[int, str | None, str | None]:
    """Return the limit, the id of the last change of the previous page, and the adapter's name."""
    check_known(given, ("limit", "after", "adapter"))
    after = given.get("after")
    if after is not None and not _is_id(after):
        raise invalid_value("after: must be the `last_id` of a page", "after")
    most = read_limit(given.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT)
    return most, after, given.get("adapter")


def _is_id(text: str) -> bool:
    """Return whether `text` can be the id of a change. No change has the smallest id, 0-0."""
    found = _ID.fullmatch(text)
    parts = [int(part) for part in found.groups()] if found else [0]
    return any(parts) and max(parts) <= _MAX_PART


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
