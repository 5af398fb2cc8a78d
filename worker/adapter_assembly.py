"""Assembles the objects that manage a worker's adapters."""

from worker.adapters.actors import Adapters
from worker.adapters.advertiser import Advertiser
from worker.adapters.load_policy import MAX_LOADING
from worker.adapters.loader import AdapterLoader
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.memory_queue import MemoryQueue
from worker.adapters.pin_keeper import PinKeeper
from worker.adapters.prefetch import Prefetcher
from worker.adapters.residency import Jobs, Residency
from worker.adapters.retention import Retention
from worker.adapters.source.inspector import Inspector
from worker.adapters.source.remote_reads import MAX_STAGING, RemoteReads
from worker.adapters.source.upload_fetcher import UploadFetcher
from worker.engine.thread import EngineThread
from worker.jobs.running import RunningJobs
from worker.lease import Lease
from worker.pool_stores import PoolStores
from worker.served_model import ServedModel
from worker.text.prompt_style import BASE_STYLE


def assemble_adapters(
    served: ServedModel, stores: PoolStores, lease: Lease, jobs: RunningJobs, engine: EngineThread
) -> Adapters:
    """Create the objects that manage a worker's adapters. Nothing runs yet."""
    base, supply = served.base.version, served.adapters

    def threads(number: int) -> LoaderThreads:
        return LoaderThreads(
            number, spare_cores=served.cpu.spare_cores, is_engine_busy=lambda: engine.is_busy
        )

    def num_jobs() -> Jobs:
        """Return the number of running jobs by adapter version. The base model is left out."""
        return {version: n for version, n in jobs.num_by_version.items() if version != base}

    residency = Residency(base, BASE_STYLE)
    jobs.subscribe(lambda: residency.job_finished(num_jobs()))
    advertiser = Advertiser(stores.residency, stores.views, lease, residency)
    loader_threads, inspector_thread = threads(MAX_LOADING), threads(1)
    staging_threads = threads(MAX_STAGING)
    remote = RemoteReads(staging_threads, stores.staging, supply.stager)
    uploads = UploadFetcher(stores.uploads, supply.store)
    loader = AdapterLoader(
        residency,
        stores.registry,
        advertiser,
        MemoryQueue(residency, num_jobs=num_jobs),
        engine,
        source=supply.source,
        uploads=uploads,
        host=supply.host,
        threads=loader_threads,
        remote=remote,
    )
    retention = Retention(
        stores.registry,
        stores.adapter_views,
        residency,
        loader,
        advertiser,
        supply.store,
        lambda: jobs.num_by_version,
        base=base,
    )
    return Adapters(
        residency=residency,
        loader=loader,
        advertiser=advertiser,
        prefetcher=Prefetcher(stores.residency, residency, loader, served.serves),
        pin_keeper=PinKeeper(stores.pins, residency, loader, advertiser, lease, served.serves),
        inspector=Inspector(
            stores.inspections, supply.source.inspect, inspector_thread, uploads, remote
        ),
        retention=retention,
        loader_threads=loader_threads,
        inspector_thread=inspector_thread,
        staging_threads=staging_threads,
        remote=remote,
    )
