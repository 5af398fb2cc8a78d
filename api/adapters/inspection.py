"""Lets workers read and check adapters.

A worker replies with findings: the checked adapter, or the error that prevents the adapter's use.
If a worker doesn't reply, the front end asks another worker. Workers that can serve every adapter
are asked first. While no worker is alive, an inspection waits, as a job does. An adapter is refused
if no live worker can serve it.
"""

import asyncio
import secrets
from collections.abc import Collection
from dataclasses import replace
from enum import Enum, auto

from api.http.turns.fair_slots import FairSlots
from shared.adapter_sources import without_query
from shared.errors import ErrorCode, JobError, JobFailed, failed
from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import why_unserved
from shared.protocol.ids import InspectionId, WorkerId
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.views.pool_views import PoolViews

TAKE_S = 5.0
"""Seconds within which a worker must take an inspection from its mailbox."""
POLL_S = 1.0
"""Seconds between two checks that the inspecting worker, or any worker, is alive."""
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


class Inspector:
    """Lets the workers of one pool inspect adapters."""

    def __init__(
        self, inspections: Inspections, views: PoolViews, slots: FairSlots, *, limit_s: float
    ) -> None:
        """Create an object whose inspections take at most `limit_s` seconds.

        `slots` limits the number of concurrent inspections, because each uses a Redis connection.
        """
        self._inspections = inspections
        self._views = views
        self._slots = slots
        self._limit_s = limit_s

    async def inspect(self, tenant: str, inspection: Inspection) -> Findings:
        """Have a worker inspect an adapter for `tenant`, and return the worker's findings.

        Raises:
            JobFailed: `MAX_DEATHS` workers died while they inspected the adapter, or the inspection
                took too long.
            RedisUnavailable: Redis can't be reached.
        """
        dead: set[WorkerId] = set()
        try:
            async with asyncio.timeout(self._limit_s):
                while True:
                    async with self._slots.slot(tenant):
                        if findings := await self._ask_workers(inspection, dead):
                            return await self._checked(findings)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            source = without_query(inspection.source)
            message = f"no worker has read {source!r} within {self._limit_s:g} s; try again"
            raise failed(ErrorCode.DEADLINE_EXCEEDED, message) from None

    async def checked_adapter(
        self, tenant: str, name: str, source: str, *, param: str | None
    ) -> Adapter:
        """Have a worker inspect an adapter for `tenant`, and return the adapter.

        `param` is the name of the request field that contains the adapter's source.

        Raises:
            JobFailed: as in `inspect`, or the adapter can't be served.
            RedisUnavailable: Redis can't be reached.
        """
        findings = await self.inspect(tenant, Inspection(name=name, source=source))
        if findings.adapter is None:
            assert findings.error is not None  # findings have either an adapter or an error
            raise JobFailed(replace(findings.error, param=param))
        return findings.adapter

    async def _ask_workers(self, inspection: Inspection, dead: set[WorkerId]) -> Findings | None:
        """Ask live workers in turn, and return the first reply; None if no worker replies.

        Workers that die while they inspect the adapter are added to `dead`.
        """
        asked = set(dead)
        while (wid := await self._least_busy(asked)) is not None:
            asked.add(wid)
            reply = await self._ask(wid, inspection)
            if isinstance(reply, Findings):
                return reply
            if reply is _NoFindings.DIED:
                dead.add(wid)
            if len(dead) == MAX_DEATHS:
                source = without_query(inspection.source)
                message = f"{MAX_DEATHS} workers died while they read {source!r}"
                raise failed(ErrorCode.UNAVAILABLE, message)
        return None

    async def _checked(self, findings: Findings) -> Findings:
        """Return `findings`. If no live worker can serve the adapter, an error replaces it."""
        if (adapter := findings.adapter) is None:
            return findings
        serving = [worker.info.serves for worker in await self._views.live_workers()]
        reason = why_unserved(f"adapter {adapter.name}", adapter.needs, serving)
        if not reason:
            return findings
        error = JobError(code=ErrorCode.ADAPTER_REJECTED, message=reason, param="lora_path")
        return replace(findings, adapter=None, error=error)

    async def _least_busy(self, excluded: Collection[WorkerId]) -> WorkerId | None:
        """Return the live worker with the fewest running jobs among those not in `excluded`.

        Workers that can't serve every adapter come last, since they may refuse an adapter that
        another worker accepts. Returns None if no other worker is alive.
        """
        alive = [w for w in await self._views.live_workers() if w.id not in excluded]
        best = min(alive, key=lambda w: (not w.info.serves.is_everything, w.running), default=None)
        return best.id if best else None

    async def _ask(self, wid: WorkerId, inspection: Inspection) -> Findings | _NoFindings:
        inspection_id = InspectionId(secrets.token_hex(16))
        clock = asyncio.get_running_loop().time
        if not await self._inspections.ask(wid, inspection_id, inspection):
            return _NoFindings.NOT_TAKEN
        is_taken, take_until_s = False, clock() + TAKE_S
        while True:
            reply = await self._inspections.next_reply(inspection_id, timeout_s=POLL_S)
            if isinstance(reply, Findings):
                return reply
            is_taken = is_taken or reply is True
            if not is_taken and clock() > take_until_s:
                await self._inspections.withdraw(inspection_id)
                return _NoFindings.NOT_TAKEN
            if reply is None and all(
                worker.id != wid for worker in await self._views.live_workers()
            ):
                return _NoFindings.DIED if is_taken else _NoFindings.NOT_TAKEN
