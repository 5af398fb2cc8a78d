"""What the pool is told of a worker: that it is there, what it holds, and what it brought along."""

from collections.abc import Callable, Mapping

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.ids import JobId, WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.queue import Queue
from shared.store.queue_replies import Standing
from shared.store.registry import Adapter, BaseModel, Registry
from worker.adapters.residency import Adapters
from worker.jobs.running import RunningJobs

log = structlog.get_logger()

MISMATCHES_UNTIL_RECONCILED = 2


class Membership:
    """Enters the pool and renews the lease, whenever `Lease` says that it is time."""

    def __init__(
        self,
        queue: Queue,
        registry: Registry,
        adapters: Adapters,
        jobs: RunningJobs,
        *,
        base: BaseModel,
        lease_ms: int,
        info: Callable[[], WorkerInfo],
        heed: Callable[[Standing, Mapping[JobId, int]], None],
        on_away: Callable[[], None],
        on_forgotten: Callable[[], None],
    ) -> None:
        """Nothing is told yet.

        Args:
            queue: the pool's.
            registry: the pool's.
            adapters: those of this worker.
            jobs: what it runs.
            base: the model that it serves.
            lease_ms: how long the pool waits for a beat.
            info: the worker as operators see it now.
            heed: told with each beat how the jobs stand, and which claims were asked about.
            on_away: called when a beat doesn't reach Redis.
            on_forgotten: called when the registry has forgotten versions, which may be resident.
        """
        self._queue = queue
        self._registry = registry
        self._adapters = adapters
        self._jobs = jobs
        self._base = base
        self._lease_ms = lease_ms
        self._info = info
        self._heed = heed
        self._on_away = on_away
        self._on_forgotten = on_forgotten
        self._num_forgotten = 0
        self._brought: list[Adapter] = []
        self._epoch: str | None = None
        """The registry's, when it last knew all that was brought."""
        self._num_mismatches = 0

    def bring(self, adapter: Adapter) -> None:
        """Note an adapter of the worker's settings: entering the pool, it registers it."""
        self._brought.append(adapter)

    async def enter(self, wid: WorkerId) -> None:
        """Register, with all that the pool would have to know if Redis had lost everything.

        Raises:
            SettingsError: live workers of the pool serve another base model.
        """
        await self._register_adapters(await self._registry.set_base(self._base))
        await self._queue.register(
            wid,
            lease_ms=self._lease_ms,
            info=self._info(),
            residents=self._adapters.holding.for_registration(),
        )

    async def beat(self, wid: WorkerId) -> None:
        """Renew the lease; jobs that are booked here and aren't known go back.

        Raises:
            LeaseLost: the worker was given up.
        """
        epochs = self._jobs.epochs
        try:
            standing = await self._queue.beat(
                wid,
                lease_ms=self._lease_ms,
                info=self._info(),
                loading=self._adapters.loading,
                known=epochs,
            )
        except RedisUnavailable:
            self._on_away()
            raise
        self._heed(standing, epochs)
        if standing.num_forgotten != self._num_forgotten:
            self._num_forgotten = standing.num_forgotten
            self._on_forgotten()
        await self._reconcile(wid, standing.booked)

    async def _reconcile(self, wid: WorkerId, num_booked: int) -> None:
        self._num_mismatches = self._num_mismatches + 1 if num_booked > len(self._jobs) else 0
        if self._num_mismatches >= MISMATCHES_UNTIL_RECONCILED:
            known = [job.id for job in self._jobs]
            num_returned = await self._queue.reconcile(wid, known, grace_ms=self._lease_ms // 3)
            log.warning("jobs_reconciled", booked=num_booked, returned=num_returned)

    async def _register_adapters(self, epoch: str) -> None:
        """Tell the registry what was brought, once in each of its epochs."""
        if epoch == self._epoch:
            return
        for adapter in self._brought:
            version = await self._registry.add_adapter(adapter)
            if version != adapter.version:
                log.warning("adapter_superseded", version=adapter.version, served=version)
        self._epoch = epoch
