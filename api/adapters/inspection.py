"""Inspects adapters: asks a worker to read and check an adapter's files.

The worker replies with findings: the checked adapter, or the error that prevents the adapter's
use. If a worker doesn't reply, the front end asks another worker. Workers that serve every adapter
are asked first. An adapter that no live worker serves can't be used.
"""

import asyncio
import secrets
from collections.abc import Collection
from dataclasses import replace
from enum import Enum, auto

from api.pools.context import Context
from shared.adapter_sources import without_query
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import why_unserved
from shared.protocol.ids import InspectionId, WorkerId
from shared.store.inspections import Findings, Inspection
from shared.store.views.pool_views import WorkerView

TAKE_S = 5.0
"""Seconds within which a worker must take an inspection from its mailbox."""
POLL_S = 1.0
"""Seconds between two checks that the inspecting worker is still alive."""
MAX_DEATHS = 2
"""Number of worker deaths after which an inspection fails.

The adapter may have caused the deaths, so no further worker is asked.
"""


class _NoFindings(Enum):
    """Reason why a worker returned no findings."""

    NOT_TAKEN = auto()
    """The worker didn't take the inspection within `TAKE_S` seconds, or died before taking it."""
    DIED = auto()
    """The worker died while it inspected the adapter."""


async def inspect(context: Context, tenant: str, inspection: Inspection) -> Findings:
    """Have a worker inspect an adapter for `tenant`, and return the worker's findings.

    Raises:
        JobFailed: no live worker is left to ask, `MAX_DEATHS` workers died while they inspected
            the adapter, or the inspection took longer than the setting `deadline_s`.
        RedisUnavailable: Redis can't be reached.
    """
    limit_s = context.settings.deadline_s
    try:
        async with asyncio.timeout(limit_s), context.inspection_slots.slot(tenant):
            return await _checked(context, await _ask_workers(context, inspection))
    except TimeoutError:
        source = without_query(inspection.source)
        message = f"no worker has read {source!r} within {limit_s:g} s; try again"
        raise JobFailed(JobError(code=ErrorCode.DEADLINE_EXCEEDED, message=message)) from None


async def checked_adapter(
    context: Context, tenant: str, name: str, source: str, *, param: str | None
) -> Adapter:
    """Have a worker inspect an adapter for `tenant`, and return the adapter.

    `param` names the part of the request that has the source.

    Raises:
        JobFailed: as `inspect`, or the adapter can't be served.
        RedisUnavailable: Redis can't be reached.
    """
    findings = await inspect(context, tenant, Inspection(name=name, source=source))
    if findings.adapter is None:
        assert findings.error is not None  # findings have either an adapter or an error
        raise JobFailed(replace(findings.error, param=param))
    return findings.adapter


async def _ask_workers(context: Context, inspection: Inspection) -> Findings:
    asked: set[WorkerId] = set()
    deaths = 0
    while deaths < MAX_DEATHS:
        wid = await _least_busy(context, asked)
        if wid is None:
            raise _unavailable("no worker is alive that could read the adapter; try again")
        asked.add(wid)
        reply = await _ask(context, wid, inspection)
        if isinstance(reply, Findings):
            return reply
        deaths += reply is _NoFindings.DIED
    source = without_query(inspection.source)
    raise _unavailable(f"{deaths} workers died while they read {source!r}")


async def _checked(context: Context, findings: Findings) -> Findings:
    """Return the findings, or an error in place of an adapter that no live worker serves."""
    adapter = findings.adapter
    reason = adapter and _why_unserved(adapter, await _alive(context))
    if not reason:
        return findings
    error = JobError(code=ErrorCode.ADAPTER_REJECTED, message=reason, param="lora_path")
    return replace(findings, adapter=None, error=error)


def _why_unserved(adapter: Adapter, workers: Collection[WorkerView]) -> str | None:
    serving = [worker.info.serves for worker in workers]
    return why_unserved(f"adapter {adapter.name}", adapter.needs, serving)


async def _alive(context: Context) -> list[WorkerView]:
    return [w for w in await context.views.workers() if w.lease_left_ms > 0]


async def _least_busy(context: Context, excluded: Collection[WorkerId]) -> WorkerId | None:
    """Return the live worker with the fewest running jobs among those not in `excluded`.

    Workers that don't serve every adapter come after all others, since they may refuse what others
    serve. Returns None if there is no such worker.
    """
    alive = [w for w in await _alive(context) if w.id not in excluded]
    best = min(alive, key=lambda w: (not w.info.serves.is_everything, w.running), default=None)
    return best.id if best else None


async def _ask(context: Context, wid: WorkerId, inspection: Inspection) -> Findings | _NoFindings:
    inspections, inspection_id = context.inspections, InspectionId(secrets.token_hex(16))
    clock = asyncio.get_running_loop().time
    if not await inspections.ask(wid, inspection_id, inspection):
        return _NoFindings.NOT_TAKEN
    is_taken, take_until_s = False, clock() + TAKE_S
    while True:
        reply = await inspections.next_reply(inspection_id, timeout_s=POLL_S)
        if isinstance(reply, Findings):
            return reply
        is_taken = is_taken or reply is True
        if not is_taken and clock() > take_until_s:
            await inspections.withdraw(inspection_id)
            return _NoFindings.NOT_TAKEN
        if reply is None and not await _is_alive(context, wid):
            return _NoFindings.DIED if is_taken else _NoFindings.NOT_TAKEN


async def _is_alive(context: Context, wid: WorkerId) -> bool:
    return any(w.id == wid for w in await _alive(context))


def _unavailable(message: str) -> JobFailed:
    return JobFailed(JobError(code=ErrorCode.UNAVAILABLE, message=message))
