"""Assembles the parts of a worker. Nothing runs before `Worker.run`."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shared.protocol.capabilities import Feature
from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings
from shared.store.jobs.token_streams import recover
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from worker.adapter_assembly import assemble_adapters
from worker.engine.thread import EngineThread
from worker.jobs.consumer import Consumer
from worker.jobs.durable_ends import DurableEnds
from worker.jobs.operator_drain import OperatorDrain
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs
from worker.jobs.tokenizations import AdapterStyles, TokenizationDesk
from worker.lease import Lease
from worker.membership import Membership
from worker.pool_stores import PoolStores
from worker.served_model import ServedModel
from worker.worker_info import worker_info

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

MAX_LISTED = 200
"""Maximum number of versions in host memory that a heartbeat lists."""


class WorkerParts:
    """The actors of a worker and the state that they share."""

    def __init__(
        self,
        settings: WorkerSettings,
        served: ServedModel,
        redis: Redis,
        durability: Durability | None,
        tracer: "Tracer | None",
    ) -> None:
        """Create the parts of a worker.

        `durability` sets how many copies of each claim must exist in Redis before the worker uses
        the claim. If `durability` is None, claims don't wait for copies. `tracer` records the work
        on each job; None records nothing.
        """
        self._settings = settings
        self._served = served
        self.stores = stores = PoolStores(redis, settings.pool, durability)
        self.lease = lease = Lease(lease_ms=settings.lease_ms)
        self.jobs = jobs = _running_jobs(tracer, lease)
        self.engine = engine = EngineThread(served.engine, take_cores=served.cpu.take_cores)
        self.ends = ends = DurableEnds(stores.queue)
        self.publisher = Publisher(stores.queue, lease, jobs, abort=engine.abort, ends=ends)
        self.adapters = adapters = assemble_adapters(served, stores, lease, jobs, engine)
        self.consumer = Consumer(
            stores.queue,
            lease,
            jobs,
            engine,
            adapters,
            self.publisher,
            served=served,
            max_num_seqs=served.info.max_num_seqs,
            recover=partial(recover, redis, stores.keys),
        )
        self.drain = OperatorDrain(jobs, self.consumer, drain_s=settings.drain_s)
        self.membership = Membership(
            stores.queue,
            stores.registry,
            adapters.residency,
            adapters.retention,
            jobs,
            self.publisher,
            ends,
            base=served.base,
            lease_ms=settings.lease_ms,
            describe=self._describe,
            drain=self.drain,
        )
        styles = AdapterStyles(
            adapters.residency, stores.registry, served.adapters.source, adapters.reading_threads
        )
        self.tokenizations = TokenizationDesk(
            *(stores.tokenizations, served.tokenizer, styles),
            serves_images=Feature.IMAGES in served.serves.features,
        )

    def _describe(self) -> WorkerInfo:
        """Return the worker's current state as shown to operators."""
        engine, residency = self.engine, self.adapters.residency
        counters = {"lease_losses": self.lease.num_losses, **residency.stats.totals}
        info = worker_info(
            self._settings, self._served, engine.stats, counters, step_s=engine.step_s
        )
        return replace(
            info,
            first_tokens=self.jobs.first_tokens.counts,
            running_by_version=self.jobs.num_owned_by_version,
            host_adapters=tuple(sorted(residency.in_host_memory)[:MAX_LISTED]),
        )


def _running_jobs(tracer: "Tracer | None", lease: Lease) -> RunningJobs:
    if tracer is None:
        return RunningJobs()
    # This imports OpenTelemetry, which only processes with a tracer need.
    from worker.jobs.traced_jobs import TracedJobs

    return TracedJobs(tracer, lease)
