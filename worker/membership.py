"""Registers the worker in the pool, and reports with each heartbeat what it does."""

from collections.abc import Callable

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.ids import WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.queue import Queue
from shared.store.registry import Registry
from worker.adapters.residency import Residency
from worker.adapters.retention import Retention
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs

log = structlog.get_logger()

MISMATCHES_UNTIL_RECONCILED = 2


class Membership:
    """Makes the calls to the pool for which `Lease` keeps the time."""

    def __init__(
        self,
        queue: Queue,
        registry: Registry,
        residency: Residency,
        retention: Retention,
        jobs: RunningJobs,
        publisher: Publisher,
        *,
        base: BaseModel,
        lease_ms: int,
        describe: Callable[[], WorkerInfo],
    ) -> None:
        """Create a membership that hasn't registered anything yet.

        Args:
            queue: the pool's queue.
            registry: the pool's registry of adapters.
            residency: the adapters of this worker.
            retention: learns when the registry has forgotten versions.
            jobs: the jobs that this worker runs.
            publisher: applies what the pool says of these jobs.
            base: the base model that the worker serves.
            lease_ms: how long the pool waits for a heartbeat.
            describe: returns the worker as operators see it now.
        """
        self._queue = queue
        self._registry = registry
        self._residency = residency
        self._retention = retention
        self._jobs = jobs
        self._publisher = publisher
        self._base = base
        self._lease_ms = lease_ms
        self._describe = describe
        self._num_forgotten = 0
        self._own_adapters: list[Adapter] = []
        self._registry_epoch: str | None = None
        """The registry's epoch in which all own adapters were registered."""
        self._num_mismatches = 0

    def add_adapter(self, adapter: Adapter) -> None:
        """Register an adapter of the worker's settings whenever the worker enters the pool."""
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
        """Renew the lease, and apply what the pool replies.

        Raises:
            LeaseLost: the worker was given up.
        """
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
        """Remove `wid` from the pool; its jobs go back to the queue."""
        await self._queue.leave(wid)

    async def _reconcile(self, wid: WorkerId, num_booked: int) -> None:
        """Return jobs that the pool counts as this worker's, and that it doesn't know."""
        self._num_mismatches = self._num_mismatches + 1 if num_booked > len(self._jobs) else 0
        if self._num_mismatches >= MISMATCHES_UNTIL_RECONCILED:
            known = [job.id for job in self._jobs]
            num_returned = await self._queue.reconcile(wid, known, grace_ms=self._lease_ms // 3)
            log.warning("jobs_reconciled", booked=num_booked, returned=num_returned)

    async def _register_adapters(self, registry_epoch: str) -> None:
        """Register the worker's own adapters, once in each epoch of the registry."""
        if registry_epoch == self._registry_epoch:
            return
        for adapter in self._own_adapters:
            version = await self._registry.add_adapter(adapter)
            if version != adapter.version:
                log.warning("adapter_superseded", version=adapter.version, served=version)
        self._registry_epoch = registry_epoch
