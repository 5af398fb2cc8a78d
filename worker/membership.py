"""Registers the worker in the pool, reports its state with each heartbeat, and acts on the reply.

It also reconciles: jobs that the pool assigns to the worker, but that the worker doesn't have, are
returned to the queue.
"""

from collections.abc import Callable

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.ids import WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from worker.adapters.residency import Residency
from worker.adapters.retention import Retention
from worker.jobs.durable_ends import DurableEnds
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs

log = structlog.get_logger()

MISMATCHES_UNTIL_RECONCILED = 2
"""Number of mismatches in a row after which the worker reconciles.

A mismatch is a reply to a heartbeat that counts more jobs than the worker has. A single mismatch
may come from a claim whose reply is still on its way.
"""


class Membership:
    """Implements `Member`: registers a worker, sends heartbeats and finally removes the worker."""

    def __init__(
        self,
        queue: Queue,
        registry: Registry,
        residency: Residency,
        retention: Retention,
        jobs: RunningJobs,
        publisher: Publisher,
        ends: DurableEnds,
        *,
        base: BaseModel,
        lease_ms: int,
        describe: Callable[[], WorkerInfo],
    ) -> None:
        """Create a membership. Nothing is registered before `enter`.

        The pool declares the worker dead after `lease_ms` without a heartbeat. `describe` returns
        the worker's current state as shown to operators.
        """
        self._queue = queue
        self._registry = registry
        self._residency = residency
        self._retention = retention
        self._jobs = jobs
        self._publisher = publisher
        self._ends = ends
        self._base = base
        self._lease_ms = lease_ms
        self._describe = describe
        self._num_forgotten = 0
        self._own_adapters: list[Adapter] = []
        self._registry_epoch: str | None = None
        """Epoch of the registry in which this worker's own adapters were last registered."""
        self._num_mismatches = 0

    def add_adapter(self, adapter: Adapter) -> None:
        """Add an adapter from the settings. `enter` registers the adapter in the pool."""
        self._own_adapters.append(adapter)

    async def enter(self, wid: WorkerId) -> None:
        """Register the worker, its base model and its adapters.

        Raises:
            SettingsError: live workers of the pool serve another base model.
        """
        await self._register_adapters(await self._registry.set_base(self._base))
        await self._queue.register(
            wid,
            lease_ms=self._lease_ms,
            info=self._describe(),
            residents=sorted(self._residency.held),
        )

    async def beat(self, wid: WorkerId) -> None:
        """Renew the lease, and act on the reply. Raises LeaseLost if the lease has expired."""
        epochs = self._jobs.claim_epochs
        try:
            standing = await self._queue.beat(
                wid,
                lease_ms=self._lease_ms,
                info=self._describe(),
                loading=sorted(self._residency.loading),
                known=epochs,
            )
        except RedisUnavailable:
            self._publisher.on_redis_away()
            raise
        self._publisher.apply_standing(standing, epochs)
        if standing.num_forgotten != self._num_forgotten:
            self._num_forgotten = standing.num_forgotten
            self._retention.tidy()
        await self._reconcile(wid, standing.booked)

    async def leave(self, wid: WorkerId) -> None:
        """Remove the worker `wid` from the pool, and return its jobs to the queue."""
        await self._queue.leave(wid)

    async def _reconcile(self, wid: WorkerId, num_booked: int) -> None:
        """Return to the queue the jobs that the pool assigns to this worker by mistake."""
        self._num_mismatches = self._num_mismatches + 1 if num_booked > len(self._jobs) else 0
        if self._num_mismatches >= MISMATCHES_UNTIL_RECONCILED:
            known = {*(job.id for job in self._jobs), *self._ends.job_ids}
            num_returned = await self._queue.reconcile(
                wid, list(known), grace_ms=self._lease_ms // 3
            )
            log.warning("jobs_reconciled", booked=num_booked, returned=num_returned)

    async def _register_adapters(self, registry_epoch: str) -> None:
        """Register the worker's own adapters, once per epoch of the registry."""
        if registry_epoch == self._registry_epoch:
            return
        for adapter in self._own_adapters:
            version = await self._registry.add_adapter(adapter)
            if version != adapter.version:
                log.warning("adapter_superseded", version=adapter.version, served=version)
        self._registry_epoch = registry_epoch
