"""GET /v1/usage: ended requests and tokens, by day, tenant and model."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.access.usage_query import PARAMETERS, Format, Group, UsageQuery, read_usage_query
from api.access.usage_rows import UsageRow, usage_rows
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import errors
from api.pools.requested import part
from api.schema.usage import UsageList
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Access, Scope
from shared.store.access.ledger import Ledger

router = APIRouter(tags=["operations"])
COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
_DENIED = {403: "The key may not see the usage of the other tenant."}


@router.get(
    "/v1/usage",
    summary="Usage of tenants and models",
    response_model=UsageList,
    responses={
        200: {
            "description": "The usage, by default of the key's tenant.",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        },
        **errors(400, 503),
        **errors(403, meanings=_DENIED),
    },
    openapi_extra={"parameters": PARAMETERS},
)
@guarded(Work.LIST, Scope.INFERENCE, Scope.ADMIN)
async def get_usage(request: Request, access: InAccess, ledger: Ledger = part(Ledger)) -> Response:
    """Return ended requests and their tokens per UTC day, tenant and model.

    The token counts are the sums of the answers' `usage`. Clients see their own tenant. Keys with
    the scope `admin` see all tenants.

    If `has_more` is true, send `last_id` as `after` to get the next page. CSV has all rows at once.
    """
    accept, today = request.headers.get("accept", ""), await ledger.today()
    query = read_usage_query(request.query_params, accept=accept, today=today)
    _check_tenant(access, query)
    rows = usage_rows(ledger, access, query)
    if query.format is Format.CSV:
        return StreamingResponse(_csv(rows, query.groups), media_type="text/csv")
    return json_response(await _page(rows, query))


def _check_tenant(access: Access, query: UsageQuery) -> None:
    is_other = query.tenant not in (None, access.tenant)
    if is_other and Scope.ADMIN not in access.scopes:
        message = "tenant: only a key with the scope admin may see other tenants' usage"
        raise failed(ErrorCode.PERMISSION_DENIED, message, "tenant")


async def _page(rows: AsyncIterator[UsageRow], query: UsageQuery) -> dict[str, Any]:
    page: list[UsageRow] = []
    has_more = False
    async for row in rows:
        if len(page) == query.limit:
            has_more = True
            break
        page.append(row)
    last_id = page[-1].id if page else None
    data = [row.body for row in page]
    return {"object": "list", "data": data, "last_id": last_id, "has_more": has_more}


async def _csv(rows: AsyncIterator[UsageRow], groups: Sequence[Group]) -> AsyncIterator[str]:
    """Yield the lines of a CSV table with a header."""
    yield _line([*groups, *COUNTS])
    async for row in rows:
        yield _line([str(value) for value in row.body.values()])


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
