"""Creates the parts of a worker that fetch adapters from URLs and keep copies of adapters."""

from shared.cache_folder import cache_folder
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.settings import WorkerSettings
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote.allowed_urls import AllowedUrls
from worker.adapters.remote.stager import Stager

MIB = 1 << 20


def adapter_store(settings: WorkerSettings) -> AdapterStore:
    """Return the store for copies of adapters. Raises SettingsError if its folder is read-only."""
    folder = settings.adapter_store or cache_folder() / "adapters"
    # Each pool has a folder of its own, since trimming deletes copies that the pool doesn't know.
    return AdapterStore(folder / settings.pool, max_bytes=settings.adapter_store_mb * MIB)


def remote_sources(settings: WorkerSettings, store: AdapterStore, allowed: AllowedUrls) -> Stager:
    """Return a worker's stager, which fetches adapters from URLs into `store`."""
    return Stager(
        store,
        allowed,
        AddressCheck(settings.adapter_private_hosts),
        max_bytes=settings.adapter_download_mb * MIB,
    )
