"""The adapters that this worker holds, and how it loads those that it doesn't.

They are in tiers: on the device, in the host's memory ready to be copied there, and where the
registry says. Reading, checking and copying run in threads of their own, while the engine steps.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

import structlog

from shared.errors import AdapterRejected
from shared.protocol.ids import AdapterVersion
from shared.store.queue import Queue
from shared.store.registry import Adapter, Registry
from worker.adapters.advertised import Holding
from worker.adapters.load_stats import LoadTimes
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.memory_queue import Line
from worker.adapters.yield_policy import Room
from worker.engine.thread import EngineThread
from worker.lease import Lease
from worker.redis_retry import until_redis_is_back

if TYPE_CHECKING:  # they import torch
    from worker.engine.engine import Engine
    from worker.lora.checkpoint.adapter import LoRAAdapter
    from worker.lora.memory.host_tier import HostTier
    from worker.lora.memory.layout import AdapterImage
    from worker.lora.memory.pool import Reserved

log = structlog.get_logger()
T = TypeVar("T")

REFUSED_S = 30.0
MAX_LOADING = 2
"""Adapters loaded at a time: more would only make each of them later. So many wait for memory
besides."""


class NoRoom(AdapterRejected):
    """The adapter doesn't fit into the adapter memory beside those in use."""


class Adapters:
    """Which versions are resident in the engine, and how others come there."""

    def __init__(
        self,
        queue: Queue,
        registry: Registry,
        lease: Lease,
        engine: EngineThread,
        *,
        base: AdapterVersion,
        read: Callable[[Adapter], "LoRAAdapter"],
        host: "HostTier",
        threads: LoaderThreads,
        num_jobs: Callable[[], Mapping[AdapterVersion, int]],
    ) -> None:
        """Start with the base alone.

        Args:
            queue: the pool's.
            registry: knows where adapters are.
            lease: this worker's part in the pool.
            engine: has the adapters that are on the device.
            base: the base model's version.
            read: takes a registry's entry, checks all, and blocks.
            host: has those in the host's memory.
            threads: load them.
            num_jobs: how many jobs the engine has of each version.
        """
        self.room = Room()
        self.on_loaded: Callable[[], None] = lambda: None
        """Called after each load, and when one waits for memory: the next one may begin."""
        self.times = LoadTimes()
        self._queue = queue
        self._registry = registry
        self._lease = lease
        self._engine = engine
        self._read = read
        self._host = host
        self._threads = threads
        self._line = Line(
            self.room,
            num_jobs=lambda: {v: number for v, number in num_jobs().items() if v != base},
            on_wait=lambda: self.on_loaded(),
        )
        self._residents = {base}
        self.holding = Holding(queue, lease, self._residents)
        self._loading: set[AdapterVersion] = set()
        self._staging: set[AdapterVersion] = set()
        self._locks: WeakValueDictionary[AdapterVersion, asyncio.Lock] = WeakValueDictionary()
        # Whoever holds it may be sure that nothing is evicted meanwhile.
        self._engine_turn = asyncio.Lock()
        self._refused_until_s: dict[AdapterVersion, float] = {}

    @property
    def held(self) -> list[AdapterVersion]:
        """What jobs are claimed for first: it is here or will be soon. The base is included."""
        return sorted(self.holding.versions | self._loading)

    @property
    def known(self) -> list[AdapterVersion]:
        """What is in any tier here, the base included."""
        return sorted(self._residents.union(self._host.versions))

    @property
    def loading(self) -> list[AdapterVersion]:
        """What this worker reads for the whole pool: others leave it to this one."""
        return sorted(self._loading | self._staging)

    @property
    def totals(self) -> dict[str, int]:
        """What was done since the start, by name."""
        return {
            "reads": self.times.num_reads,
            "loads": self.times.num_loads,
            "load_ms": int(1000 * self.times.total_s),
            "evictions": self.times.num_evictions,
            "spreads": self.holding.spread.num_spread,
            "shrinks": self.holding.spread.num_given_up,
        }

    @property
    def refused(self) -> set[AdapterVersion]:
        """What couldn't be loaded here a moment ago, but is held elsewhere."""
        now_s = time.monotonic()
        return {version for version, until_s in self._refused_until_s.items() if until_s > now_s}

    def refuse(self, version: AdapterVersion) -> None:
        """Leave `version` to others for a while: its files, or its holder, may come and go."""
        self._refused_until_s[version] = time.monotonic() + REFUSED_S

    @property
    def max_cold(self) -> int:
        """How many more versions may be loaded now."""
        waiting = self._line.versions
        if len(waiting) >= MAX_LOADING:
            return 0
        return max(0, MAX_LOADING - len(self._loading - waiting))

    def job_gone(self) -> None:
        """Note that a job has ended: its adapter may make room for others."""
        self._line.job_gone()

    async def add(self, adapter: "LoRAAdapter") -> None:
        """Keep an adapter that was read wherever there is room, without telling the pool.

        Raises:
            AdapterRejected: it is larger than all of the adapter memory.
        """
        image = self._host.image(adapter)
        async with self._lock(adapter.version):
            placing = await self._call(lambda engine: engine.place(image, may_evict=False))
            if placing.reserved is None and not self._host.has_room(image.num_bytes):
                return
            image = await self._threads.run(lambda: self._host.put(adapter, may_evict=False))
            try:
                if placing.reserved is not None:
                    await self._write(placing.reserved, image)
                    self._activate(placing.reserved, image)
            finally:
                self._host.release(image)

    async def evict(self, version: AdapterVersion) -> None:
        """Let go of a version in every tier; requests that want it still end with an error."""
        async with self._lock(version), self._engine_turn:
            self._host.drop(version)
            if version in self._residents:
                await self._call(lambda engine: engine.remove_adapter(version))
                self._forget([version])
                self._line.memory_freed()
        await self.holding.tell()

    async def shrink(self, running: Mapping[AdapterVersion, int]) -> None:
        """Give up copies that others can do without for long; `running` jobs there are of each."""
        await self.holding.shrink(running, self.times.steal_ms)

    @asynccontextmanager
    async def resident(self, version: AdapterVersion) -> AsyncIterator[None]:
        """Inside, `version` is in the engine, loaded if need be; wait for nothing there.

        Raises:
            AdapterRejected: it can't be loaded; NoRoom if only for now.
        """
        self._host.touch(version)
        self.holding.spread.used(version)
        if version not in self._residents:
            self._loading.add(version)
        loaded = None
        try:
            async with self._lock(version):
                while True:
                    async with self._engine_turn:
                        if loaded:
                            self._activate(*loaded)
                        if version in self._residents:
                            yield
                            break
                    loaded = await self._load(version)
        finally:
            if version in self._loading:
                self._loading.discard(version)
                self.on_loaded()
        await self.holding.tell()

    async def let_others_load(self, version: AdapterVersion) -> bool:
        """Take back that this worker loads `version`; whether another one holds it."""
        await self.holding.renounce(version)
        return await self.holding.is_elsewhere(version)

    def can_stage(self, version: AdapterVersion) -> bool:
        """Whether `stage` would bring `version` closer, and nothing else is loaded for it."""
        has_turn = not self._staging and not self._line.versions
        is_free = has_turn and len(self._loading) < MAX_LOADING
        is_here = version in self._residents or version in self._loading or version in self._host
        return is_free and not is_here and version not in self.refused

    async def stage(self, version: AdapterVersion) -> None:
        """Read a version whose jobs wait, unless another worker does."""
        self._staging.add(version)
        try:
            if await until_redis_is_back(lambda: self._queue.start_load(self._lease.wid, version)):
                await self._stage_alone(version)
        finally:
            self._staging.discard(version)

    async def _stage_alone(self, version: AdapterVersion) -> None:
        try:
            entry = await self._entry(version)
            async with self._lock(version):
                if not self._host.max_bytes:
                    await self._stage_on_device(entry)
                elif version not in self._host and entry.num_bytes <= self._host.max_bytes:
                    self._host.release(await self._read_to_host(entry))
        except AdapterRejected as error:  # whoever claims its jobs will tell them
            log.warning("adapter_not_staged", version=version, error=str(error))
        except Exception:  # per adapter: the worker goes on
            log.exception("staging_failed", version=version)
        if version in self._residents:
            await self.holding.tell()
        elif version not in self._loading:
            await self.holding.renounce(version)

    async def _stage_on_device(self, entry: Adapter) -> None:
        """Without memory for copies, a version is read ahead to where it will be computed."""
        has_room = await self._call(lambda engine: engine.has_room(entry.num_bytes))
        if entry.version in self._residents or not has_room:
            return
        started_s = time.monotonic()
        image = await self._read_to_host(entry)
        if self._line.versions:  # those come first
            return
        reserved = await self._place_now(image)
        if reserved is not None:
            await self._write(reserved, image)
            self.times.took(time.monotonic() - started_s)
            async with self._engine_turn:
                self._activate(reserved, image)

    async def _load(self, version: AdapterVersion) -> tuple["Reserved", "AdapterImage"]:
        """Bring a version to the device; it isn't resident yet."""
        if version in self.room.crowded_out:
            raise NoRoom(f"{version}: another job of it has just found no room")
        self._loading.add(version)
        started_s = time.monotonic()
        image = self._host.take(version)
        if image is None:
            image = await self._read_to_host(await self._entry(version))
        try:
            read_s = time.monotonic()
            reserved = await self._place(image)
            waited_s = time.monotonic() - read_s
            await self._write(reserved, image)
        finally:
            self._host.release(image)
        self.times.took(time.monotonic() - started_s - waited_s)
        return reserved, image

    async def _entry(self, version: AdapterVersion) -> Adapter:
        """Where the registry says that the version is."""
        entry = await until_redis_is_back(lambda: self._registry.adapter_by_version(version))
        if entry is None:
            raise AdapterRejected(f"adapter version {version} is no longer registered")
        return entry

    async def _read_to_host(self, entry: Adapter) -> "AdapterImage":
        def read() -> "AdapterImage":
            adapter = self._read(entry)
            if adapter.version != entry.version:
                raise AdapterRejected(
                    f"{entry.source} holds {adapter.version} by now, not {entry.version}"
                )
            return self._host.put(adapter)

        image = await self._threads.run(read)
        self.times.num_reads += 1
        return image

    async def _place(self, image: "AdapterImage") -> "Reserved":
        """Memory on the device, for which others may have to go."""
        patience_s = self.times.steal_ms / 1000
        reserved = await self._line.place(image.version, lambda: self._place_now(image), patience_s)
        if reserved is None:
            raise NoRoom(f"{image.version}: the adapters in use leave no room for it")
        return reserved

    async def _place_now(self, image: "AdapterImage") -> "Reserved | None":
        async with self._engine_turn:
            surplus = frozenset(self.holding.spread.surplus)
            placing = await self._call(lambda engine: engine.place(image, surplus=surplus))
            self._forget(placing.evicted)
        if placing.evicted:
            await self.holding.tell()
        if placing.reserved is not None:
            log.info("adapter_placed", version=image.version, evicted=placing.evicted)
        return placing.reserved

    async def _write(self, reserved: "Reserved", image: "AdapterImage") -> None:
        try:
            await self._threads.run(lambda: self._engine.write_adapter(reserved, image))
        except Exception as error:  # most likely torch's own, of the device
            await self._call(lambda engine: engine.remove_adapter(image.version))
            self._line.memory_freed()
            raise AdapterRejected(f"adapter {image.version}: {error}") from error

    def _activate(self, reserved: "Reserved", image: "AdapterImage") -> None:
        """Make a version resident; requests that the engine is given from here on find it."""
        self._engine.call(lambda engine: engine.activate_adapter(reserved, image))
        self._residents.add(image.version)
        self._line.loaded()
        self.times.num_loads += 1
        log.info("adapter_loaded", version=image.version)

    def _forget(self, evicted: Sequence[AdapterVersion]) -> None:
        self._residents.difference_update(evicted)
        self.holding.spread.left(evicted)
        self.times.num_evictions += len(evicted)

    async def _call(self, function: Callable[["Engine"], T]) -> T:
        return await asyncio.wrap_future(self._engine.call(function))

    def _lock(self, version: AdapterVersion) -> asyncio.Lock:
        """Held by who changes where the version is."""
        return self._locks.setdefault(version, asyncio.Lock())
