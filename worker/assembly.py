"""Assembles the parts of a worker. Nothing runs before `Worker.run`."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings
from shared.store.jobs.token_streams import recover
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from worker.adapter_assembly import assemble_adapters
from worker.adapters.actors import Adapters
from worker.engine.thread import EngineThread
from worker.jobs.consumer import Consumer
from worker.jobs.durable_ends import DurableEnds
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs
from worker.jobs.tokenizations import AdapterStyles, TokenizationDesk
from worker.lease import Lease
from worker.membership import Membership
from worker.pool_stores import PoolStores, open_stores
from worker.served_model import ServedModel
from worker.worker_info import worker_info

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

MAX_LISTED = 200
"""Maximum number of versions in host memory that a heartbeat lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """The actors of a worker and the state that they share."""

    stores: PoolStores
    lease: Lease
    jobs: RunningJobs
    engine: EngineThread
    publisher: Publisher
    ends: DurableEnds
    adapters: Adapters
    consumer: Consumer
    membership: Membership
    tokenizations: TokenizationDesk


def assemble(
    settings: WorkerSettings,
    served: ServedModel,
    redis: Redis,
    durability: Durability | None,
    tracer: "Tracer | None",
) -> WorkerParts:
    """Create the parts of a worker.

    `durability` sets how many copies of each claim must exist in Redis before the worker uses the
    claim. If `durability` is None, claims don't wait for copies. `tracer` records the work on each
    job; None records nothing.
    """
    stores = open_stores(redis, settings.pool, durability)
    lease = Lease(lease_ms=settings.lease_ms)
    jobs = _running_jobs(tracer, lease)
    engine = EngineThread(served.engine, take_cores=served.cpu.take_cores)
    ends = DurableEnds(stores.queue)
    publisher = Publisher(stores.queue, lease, jobs, abort=engine.abort, ends=ends)
    adapters = assemble_adapters(served, stores, lease, jobs, engine)
    consumer = Consumer(
        stores.queue,
        lease,
        jobs,
        engine,
        adapters,
        publisher,
        served=served,
        max_num_seqs=served.info.max_num_seqs,
        recover=partial(recover, redis, stores.keys),
    )
    membership = Membership(
        stores.queue,
        stores.registry,
        adapters.residency,
        adapters.retention,
        jobs,
        publisher,
        ends,
        base=served.base,
        lease_ms=settings.lease_ms,
        describe=partial(_describe, settings, served, engine, lease, adapters, jobs),
    )
    return WorkerParts(
        stores=stores,
        lease=lease,
        jobs=jobs,
        engine=engine,
        publisher=publisher,
        ends=ends,
        adapters=adapters,
        consumer=consumer,
        membership=membership,
        tokenizations=_tokenizations(served, stores, adapters),
    )


def _running_jobs(tracer: "Tracer | None", lease: Lease) -> RunningJobs:
    if tracer is None:
        return RunningJobs()
    # This imports OpenTelemetry, which only processes with a tracer need.
    from worker.jobs.traced_jobs import TracedJobs

    return TracedJobs(tracer, lease)


def _tokenizations(served: ServedModel, stores: PoolStores, adapters: Adapters) -> TokenizationDesk:
    styles = AdapterStyles(
        adapters.residency, stores.registry, served.adapters.source, adapters.reading_threads
    )
    return TokenizationDesk(stores.tokenizations, served.tokenizer, styles)


def _describe(
    settings: WorkerSettings,
    served: ServedModel,
    engine: EngineThread,
    lease: Lease,
    adapters: Adapters,
    jobs: RunningJobs,
) -> WorkerInfo:
    """Return the worker's current state as shown to operators."""
    counters = {"lease_losses": lease.num_losses, **adapters.residency.stats.totals}
    info = worker_info(settings, served, engine.stats, counters, step_s=engine.step_s)
    return replace(
        info,
        first_tokens=jobs.first_tokens.counts,
        running_by_version=jobs.num_owned_by_version,
        host_adapters=tuple(sorted(adapters.residency.in_host_memory)[:MAX_LISTED]),
    )
