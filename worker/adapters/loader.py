"""Loads adapters: from their files into host memory, and from there to the device.

Reading, checking and copying run in loader threads, while the engine steps.

A load must call these methods of `Residency` in this order: `reading`, `was_read`, `placing` and
`became_resident`. If host memory has a copy, the load begins with `placing`. If no copy is kept
after reading, `placing` may be left out. A load that goes only into host memory ends with
`was_read`. A load that fails or gets no device memory ends with `not_loaded`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog

from shared.adapter_sources import without_query
from shared.errors import AdapterRejected
from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.redis.retry import retry_until_available
from worker.adapters.advertiser import Advertiser
from worker.adapters.host_memory import HostMemory
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.memory_queue import MemoryQueue
from worker.adapters.residency import Residency
from worker.adapters.source.interface import AdapterSource, AdapterWeights, CheckedAdapter
from worker.adapters.source.remote_reads import RemoteReads
from worker.adapters.source.upload_fetcher import UploadFetcher
from worker.engine.interface import AdapterImage, AnyEngine, EvictionOrder
from worker.engine.thread import EngineThread

log = structlog.get_logger()
T = TypeVar("T")


class NoAdapterMemory(AdapterRejected):
    """The adapters in use leave too little device memory to load another adapter."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterLoader:
    """Makes adapter versions resident, and evicts them."""

    residency: Residency
    registry: Registry
    advertiser: Advertiser
    memory_queue: MemoryQueue
    engine: EngineThread
    """Copies adapters from `host` to the device."""
    _: KW_ONLY
    source: AdapterSource
    uploads: UploadFetcher
    host: HostMemory
    """Host memory into which adapters are read."""
    threads: LoaderThreads
    remote: RemoteReads
    _locks: WeakValueDictionary[AdapterVersion, asyncio.Lock] = field(
        default_factory=WeakValueDictionary, init=False
    )
    _eviction_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    """Held while adapters are evicted, and while a resident adapter must not be evicted."""

    async def add(self, adapter: CheckedAdapter[AdapterWeights]) -> None:
        """Load an adapter from files that were already read. No other adapter is evicted.

        If enough device memory is free, the adapter becomes resident. Otherwise, if enough host
        memory is free, a copy is kept there. If neither is free, the adapter's files are read again
        when a job needs the adapter.

        Raises:
            AdapterRejected: the adapter is larger than the total adapter memory.
        """
        version, host = adapter.weights.version, self.host
        image = host.image(adapter.weights)
        async with self._lock(version):
            placing = await self._call(lambda engine: engine.place(image, may_evict=False))
            self.residency.reading(version)
            if placing.reserved is not None or host.has_room(image.num_bytes):
                image = await self.threads.run(lambda: host.put(adapter.weights, may_evict=False))
            with self._loading(image):
                self.residency.was_read(version, adapter.style, host)
                if placing.reserved is not None:
                    self.residency.placing(version)
                    await self._write(placing.reserved, image)
                    self._activate(placing.reserved, image)
            if not self.residency.is_resident(version):
                self._not_loaded(version)

    async def evict_forgotten(self, version: AdapterVersion) -> bool:
        """Remove a version from device and host memory, if the registry has forgotten it.

        Return whether the registry has forgotten it. No job can begin to use the version during
        this call, because clients may register the same version again at any time.
        """
        async with self._lock(version):
            is_forgotten = bool(await self.registry.forgotten([version]))
            if is_forgotten:
                await self._evict(version)
            return is_forgotten

    async def _evict(self, version: AdapterVersion) -> None:
        async with self._eviction_lock:
            self.host.drop(version)
            if self.residency.is_resident(version):
                await self._call(lambda engine: engine.remove_adapter(version))
                self.residency.evicted([version], host=())
                self.residency.memory_freed()
            else:
                self.residency.not_loaded(version, is_copied=False)
            self.residency.forgotten(version)

    @asynccontextmanager
    async def resident(self, version: AdapterVersion) -> AsyncIterator[None]:
        """Keep `version` resident inside the context, loading it first if necessary.

        The body of the context must not await, because no adapter can be evicted until it ends.

        Raises:
            AdapterRejected: the version can't be loaded.
            NoAdapterMemory: the version can't be loaded now, but perhaps later.
        """
        self.host.touch(version)
        self.residency.job_waits(version)
        loaded = None
        try:
            async with self._lock(version):
                while True:
                    async with self._eviction_lock:
                        if loaded:
                            self._activate(*loaded)
                        if self.residency.is_resident(version):
                            yield
                            break
                    loaded = await self._load(version)
        finally:
            self.residency.job_served(version)

    async def prefetch(self, version: AdapterVersion) -> None:
        """Load a version whose jobs are in the queue, unless another worker holds or loads it."""
        self.residency.prefetch_began(version)
        try:
            if await self.advertiser.start_load(version):
                await self._prefetch(version)
        finally:
            self.residency.prefetch_ended(version)

    async def _prefetch(self, version: AdapterVersion) -> None:
        try:
            entry = await self._entry(version)
            async with self._lock(version):
                if self.residency.is_resident(version):
                    return  # a claimed job has loaded it meanwhile
                if not self.host.max_bytes:
                    await self._prefetch_to_device(entry)
                elif version not in self.host and entry.num_bytes <= self.host.max_bytes:
                    self.host.release(await self._read(entry))
        except AdapterRejected as error:  # the jobs of the version get this error once claimed
            log.warning("adapter_not_staged", version=version, error=str(error))
        except Exception:  # per adapter: the worker goes on
            log.exception("staging_failed", version=version)
        is_needed = self.residency.is_resident(version) or self.residency.is_awaited(version)
        if not is_needed:
            await self.advertiser.end_load(version)

    async def _prefetch_to_device(self, entry: Adapter) -> None:
        """Load a version to the device, unless used or waiting versions need the memory."""
        version = entry.version
        has_room = await self._call(lambda engine: engine.has_room(entry.num_bytes))
        if not has_room:
            return
        started_s = time.monotonic()
        image = await self._read(entry)
        with self._loading(image):
            reserved = None if self.residency.has_memory_queue else await self._place_now(image)
            if reserved is None:
                self._not_loaded(version)
                return
            await self._write(reserved, image)
            self.residency.stats.record_load(time.monotonic() - started_s)
            async with self._eviction_lock:
                self._activate(reserved, image)

    async def _load(self, version: AdapterVersion) -> tuple[object, AdapterImage]:
        """Copy a version to the device, and return its reserved device memory and its image.

        The caller must make the version resident by calling `_activate` with both.
        """
        if self.residency.is_crowded_out(version):
            raise NoAdapterMemory(f"{version}: another job has just found no device memory for it")
        started_s = time.monotonic()
        image = self.host.take(version)
        if image is None:
            image = await self._read(await self._entry(version))
        with self._loading(image):
            self.residency.placing(version)
            read_s = time.monotonic()
            reserved = await self._place(image)
            waited_s = time.monotonic() - read_s
            await self._write(reserved, image)
        self.residency.stats.record_load(time.monotonic() - started_s - waited_s)
        return reserved, image

    @contextmanager
    def _loading(self, image: AdapterImage) -> Iterator[None]:
        """Release `image` at the end of the block. If the block raises, record a failed load."""
        try:
            yield
        except BaseException:
            self._not_loaded(image.version)
            raise
        finally:
            self.host.release(image)

    def _not_loaded(self, version: AdapterVersion) -> None:
        self.residency.not_loaded(version, is_copied=version in self.host)

    async def _entry(self, version: AdapterVersion) -> Adapter:
        """Return the registry's entry of a version."""
        entry = await retry_until_available(lambda: self.registry.adapter_by_version(version))
        if entry is None:
            raise AdapterRejected(f"adapter version {version} is no longer registered")
        return entry

    async def _read(self, entry: Adapter) -> AdapterImage:
        """Read a version into host memory. The caller must release the image."""

        def read() -> tuple[CheckedAdapter[AdapterWeights], AdapterImage]:
            adapter = self.source.read_version(entry)
            if adapter.weights.version != entry.version:
                raise AdapterRejected(
                    f"{without_query(entry.source)} now holds {adapter.weights.version}, not "
                    f"{entry.version}"
                )
            return adapter, self.host.put(adapter.weights)

        self.residency.reading(entry.version)
        try:
            async with self.uploads.fetched(entry.source, digest=entry.digest):
                threads = self._threads_for(entry)
                adapter, image = await threads.run(read)
        except BaseException:
            self._not_loaded(entry.version)
            raise
        self.residency.stats.num_reads += 1
        self.residency.was_read(entry.version, adapter.style, self.host)
        return image

    def _threads_for(self, entry: Adapter) -> LoaderThreads:
        """Return the threads that read a version. Slow sources have separate threads."""
        if self.uploads.has_copy(entry.digest):
            return self.threads
        return self.remote.threads_for(entry.source) or self.threads

    async def _place(self, image: AdapterImage) -> object:
        """Reserve device memory for an adapter. If necessary, wait and evict other adapters."""
        patience_s = self.residency.stats.steal_ms / 1000
        reserved = await self.memory_queue.place(
            image.version, lambda: self._place_now(image), patience_s
        )
        if reserved is None:
            raise NoAdapterMemory(
                f"{image.version}: the adapters in use leave no device memory for it"
            )
        return reserved

    async def _place_now(self, image: AdapterImage) -> object | None:
        async with self._eviction_lock:
            order = EvictionOrder(first=self.residency.surplus, last=self.residency.pinned)
            placing = await self._call(lambda engine: engine.place(image, order=order))
            self.residency.evicted(placing.evicted, self.host)
        if placing.reserved is not None:
            log.info("adapter_placed", version=image.version, evicted=placing.evicted)
        return placing.reserved

    async def _write(self, reserved: object, image: AdapterImage) -> None:
        try:
            await self.threads.run(lambda: self.engine.write_adapter(reserved, image))
        except Exception as error:  # most likely a device error that torch raises
            await self._call(lambda engine: engine.remove_adapter(image.version))
            self.residency.memory_freed()
            raise AdapterRejected(f"adapter {image.version}: {error}") from error

    def _activate(self, reserved: object, image: AdapterImage) -> None:
        """Make a version resident, so that requests added to the engine later can use it."""
        self.engine.call(lambda engine: engine.activate_adapter(reserved, image))
        self.residency.became_resident(image.version)
        log.info("adapter_loaded", version=image.version)

    async def _call(self, function: Callable[[AnyEngine], T]) -> T:
        return await asyncio.wrap_future(self.engine.call(function))

    def _lock(self, version: AdapterVersion) -> asyncio.Lock:
        """Return the lock that must be held while the version is loaded or evicted."""
        return self._locks.setdefault(version, asyncio.Lock())
