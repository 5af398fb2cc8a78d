"""Registers the worker in the pool, reports its state with each heartbeat, and acts on the reply.

It also reconciles: jobs that the pool assigns to the worker, but that the worker doesn't have, are
returned to the queue.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

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
from worker.jobs.operator_drain import OperatorDrain
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs

log = structlog.get_logger()

MISMATCHES_UNTIL_RECONCILED = 2
"""Number of mismatches in a row after which the worker reconciles.

In a mismatch, the reply to a heartbeat counts more jobs than the worker has. A claim whose reply is
still on its way can cause a single mismatch.
"""


@dataclass(slots=True, eq=False)
class Membership:
    """Implements `Member`: registers a worker, sends heartbeats and finally removes the worker."""

    queue: Queue
    registry: Registry
    residency: Residency
    retention: Retention
    jobs: RunningJobs
    publisher: Publisher
    ends: DurableEnds
    _: KW_ONLY
    base: BaseModel
    lease_ms: int
    """Time without a heartbeat after which the pool declares the worker dead."""
    describe: Callable[[], WorkerInfo]
    """Returns the worker's current state as shown to operators."""
    drain: OperatorDrain
    _num_forgotten: int = field(default=0, init=False)
    _own_adapters: list[Adapter] = field(default_factory=list, init=False)
    _registry_epoch: str | None = field(default=None, init=False)
    """Epoch of the registry when this worker's own adapters were last registered."""
    _num_mismatches: int = field(default=0, init=False)

    def add_adapter(self, adapter: Adapter) -> None:
        """Add an adapter from the settings. `enter` registers the adapter in the pool."""
        self._own_adapters.append(adapter)

    async def enter(self, wid: WorkerId) -> None:
        """Register the worker, its base model and its adapters.

        Raises:
            SettingsError: live workers of the pool serve another base model.
        """
        await self._register_adapters(await self.registry.set_base(self.base))
        await self.queue.register(
            wid,
            lease_ms=self.lease_ms,
            info=self.describe(),
            residents=sorted(self.residency.held),
            mode=self.drain.mode,
        )

    async def beat(self, wid: WorkerId) -> None:
        """Renew the lease, and act on the reply. Raises LeaseLost if the lease has expired."""
        epochs = self.jobs.claim_epochs
        try:
            standing = await self.queue.beat(
                wid,
                lease_ms=self.lease_ms,
                info=self.describe(),
                loading=sorted(self.residency.loading),
                known=epochs,
            )
        except RedisUnavailable:
            self.publisher.on_redis_away()
            raise
        self.publisher.apply_standing(standing, epochs)
        if standing.num_forgotten != self._num_forgotten:
            self._num_forgotten = standing.num_forgotten
            self.retention.tidy()
        self.drain.set_mode(standing.mode)
        await self._reconcile(wid, standing.booked)

    async def leave(self, wid: WorkerId) -> None:
        """Remove the worker `wid` from the pool, and return its jobs to the queue."""
        await self.queue.leave(wid)

    async def _reconcile(self, wid: WorkerId, num_booked: int) -> None:
        """Return to the queue the jobs that the pool assigns to this worker by mistake."""
        self._num_mismatches = self._num_mismatches + 1 if num_booked > len(self.jobs) else 0
        if self._num_mismatches >= MISMATCHES_UNTIL_RECONCILED:
            known = {*(job.id for job in self.jobs), *self.ends.job_ids}
            num_returned = await self.queue.reconcile(wid, list(known), grace_ms=self.lease_ms // 3)
            log.warning("jobs_reconciled", booked=num_booked, returned=num_returned)

    async def _register_adapters(self, registry_epoch: str) -> None:
        """Register the worker's own adapters, once per epoch of the registry."""
        if registry_epoch == self._registry_epoch:
            return
        for adapter in self._own_adapters:
            version = await self.registry.add_adapter(adapter)
            if version != adapter.version:
                log.warning("adapter_superseded", version=adapter.version, served=version)
        self._registry_epoch = registry_epoch
