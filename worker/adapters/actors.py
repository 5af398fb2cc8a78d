"""The objects that manage a worker's adapters."""

from dataclasses import dataclass

from worker.adapters.advertiser import Advertiser
from worker.adapters.loader import AdapterLoader
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.pin_keeper import PinKeeper
from worker.adapters.prefetch import Prefetcher
from worker.adapters.residency import Residency
from worker.adapters.retention import Retention
from worker.adapters.source.inspector import Inspector
from worker.adapters.source.remote_reads import RemoteReads


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The objects that load, advertise, inspect and evict a worker's adapters."""

    residency: Residency
    loader: AdapterLoader
    advertiser: Advertiser
    prefetcher: Prefetcher
    pin_keeper: PinKeeper
    inspector: Inspector
    retention: Retention
    loader_threads: LoaderThreads
    inspector_thread: LoaderThreads
    staging_threads: LoaderThreads
    remote: RemoteReads

    def reading_threads(self, source: str) -> LoaderThreads:
        """Return the threads that read an adapter from `source` while no job waits for it."""
        return self.remote.threads_for(source) or self.inspector_thread

    def close(self) -> None:
        """Stop accepting work. Each thread ends after the function that it is running."""
        self.loader_threads.close()
        self.inspector_thread.close()
        self.staging_threads.close()
