"""Registers unknown adapters at their first request, from the source in `--adapter-source`."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from api.access.model_rights import may_use
from api.adapters.inspection import Inspector
from api.adapters.new_versions import NewVersions
from api.http.turns.fair_slots import FairSlots
from shared.adapter_sources import SourceTemplate
from shared.cancel_tasks import cancel_tasks
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable, failed
from shared.protocol.access.rights import Access
from shared.store.adapters.audit_log import POOL
from shared.store.adapters.inspections import Inspection
from shared.store.adapters.registry import Registry
from shared.store.adapters.source_lookups import LEASE_MS, SourceLookups

T = TypeVar("T")

MAX_LOOKUPS = 4
"""Maximum number of adapters that a front end looks up at the same time.

It is smaller than the maximum number of inspections, so that unknown names can't keep operators
from loading adapters.
"""
MAX_NAMES = 1024
"""Maximum number of names that wait for a lookup. Requests for further names are refused."""
MAX_NAMES_PER_TENANT = 128
"""Maximum number of names of one tenant that wait for a lookup."""
POLL_S = 0.1
"""Seconds between two checks of whether another lookup of the same name has ended."""


class OnDemand:
    """Looks up unknown adapters for one front end. A name has at most one lookup at a time.

    Tenants take turns, so that one tenant's wrong names don't delay another tenant's lookups.
    """

    def __init__(
        self,
        template: SourceTemplate | None,
        lookups: SourceLookups,
        registry: Registry,
        inspector: Inspector,
        new_versions: NewVersions,
        *,
        limit_s: float,
    ) -> None:
        """Create an object. A request waits for its adapter for at most `limit_s` seconds.

        If `template` is None, no adapter is looked up.
        """
        self._template = template
        self._lookups = lookups
        self._registry = registry
        self._inspector = inspector
        self._new_versions = new_versions
        self._limit_s = limit_s
        self._slots = FairSlots(MAX_LOOKUPS)
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Lookups by tenant and name. Each tenant that asks for a name has a lookup of its own."""
        self._num_running: Counter[str] = Counter()
        """Number of lookups of each tenant."""

    async def provide(self, tenant: str, model: str, unknown: JobError) -> bool:
        """Register the adapter that `model` names.

        Returns False if `--adapter-source` isn't set or has no source for this name.

        The limits of `tenant` apply to the lookup. If no adapter exists at the source, this request
        and requests for the same name during the next seconds get the error `unknown`.

        Raises:
            JobFailed: no such adapter exists, it can't be served, or its source is unavailable.
            RedisUnavailable: Redis can't be reached.
        """
        if self._template is None:
            return False
        name = await self._adapter_name(model)
        source = self._template.source_of(name)
        if source is None:
            return False
        lookup = self._running.get((tenant, name))
        lookup = lookup or self._start(tenant, name, source, unknown)
        try:
            async with asyncio.timeout(self._limit_s):
                # A request that ends early doesn't cancel the lookup, since others may wait for it.
                await asyncio.shield(lookup)
        except TimeoutError:
            message = (
                f"the adapter {name!r} couldn't be loaded within {self._limit_s:g} s; try again"
            )
            raise failed(ErrorCode.DEADLINE_EXCEEDED, message) from None
        return True

    async def with_adapter(
        self, access: Access, model: object, admit: Callable[[], Awaitable[T]]
    ) -> T:
        """Return the result of `admit`. If `model` is unknown, look it up and call `admit` again.

        Models that the client may not use aren't looked up.

        Raises:
            JobFailed: as in `admit` or `provide`.
            RedisUnavailable: Redis can't be reached.
        """
        try:
            return await admit()
        except JobFailed as failed:
            error = failed.error
            is_unknown = error.code is ErrorCode.MODEL_NOT_FOUND and isinstance(model, str)
            may_look_up = is_unknown and await may_use(self._registry, access, str(model))
            if not may_look_up or not await self.provide(access.tenant, str(model), error):
                raise
        return await admit()

    async def close(self) -> None:
        """Cancel all lookups."""
        await cancel_tasks(*self._running.values())

    def _start(self, tenant: str, name: str, source: str, unknown: JobError) -> asyncio.Task[None]:
        is_over = self._num_running[tenant] >= MAX_NAMES_PER_TENANT
        if is_over or len(self._running) >= MAX_NAMES:
            message = "too many unknown adapters are being looked up; try again"
            raise failed(ErrorCode.QUEUE_FULL, message, "model")
        task = asyncio.create_task(self._look_up(tenant, name, source, unknown))
        self._running[tenant, name] = task
        self._num_running[tenant] += 1
        task.add_done_callback(lambda ended: self._ended(tenant, name, ended))
        return task

    def _ended(self, tenant: str, name: str, task: asyncio.Task[None]) -> None:
        del self._running[tenant, name]
        self._num_running -= Counter([tenant])  # `-=` also removes tenants without lookups
        if not task.cancelled():
            task.exception()  # otherwise, asyncio logs errors that no request awaits

    async def _look_up(self, tenant: str, name: str, source: str, unknown: JobError) -> None:
        while True:
            state = await self._lookups.state(name)
            if state.refusal:
                raise JobFailed(state.refusal)
            if state.is_running:
                await asyncio.sleep(POLL_S)
                continue
            async with self._slots.slot(tenant):
                if await self._registry.adapter(name):  # it may have been registered meanwhile
                    return
                if (await self._lookups.begin(name)).is_mine:
                    await self._register(name, source, unknown)
                    return

    async def _register(self, name: str, source: str, unknown: JobError) -> None:
        """Register an adapter while this front end holds the lease of its name."""
        renewal = asyncio.create_task(self._renew(name))
        refusal = None
        try:
            refusal = await self._load(name, source, unknown)
        finally:
            await cancel_tasks(renewal)
            with suppress(RedisUnavailable):  # in this case, the lease expires by itself
                if refusal and refusal.status < 500:
                    await self._lookups.refuse(name, refusal)
                else:
                    await self._lookups.end(name)
        if refusal:
            raise JobFailed(refusal)

    async def _renew(self, name: str) -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            with suppress(RedisUnavailable):
                await self._lookups.renew(name)

    async def _adapter_name(self, model: str) -> str:
        """Return the name of the adapter in `model`, which has the form `NAME` or `BASE:NAME`."""
        base_name, colon, name = model.rpartition(":")
        base = await self._registry.base() if colon else None
        return name if base and base.name == base_name else model

    async def _load(self, name: str, source: str, unknown: JobError) -> JobError | None:
        """Load an adapter. If that fails, return the error for all requests that name the adapter.

        Returns None if the adapter is registered.
        """
        findings = await self._inspector.inspect(POOL, Inspection(name=name, source=source))
        if findings.adapter is None:
            assert findings.error is not None  # findings have either an adapter or an error
            is_missing = findings.error.code is ErrorCode.SOURCE_NOT_FOUND
            return unknown if is_missing else replace(findings.error, param="model")
        try:
            await self._new_versions.load(findings.adapter, replace=False, by=POOL)
        except JobFailed as failed:
            if failed.error.code is not ErrorCode.ADAPTER_EXISTS:  # else, an operator loaded it
                raise
        return None
