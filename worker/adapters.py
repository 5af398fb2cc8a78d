"""The adapters that this worker holds, and how it loads those that it doesn't."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from shared.errors import AdapterRejected, LeaseLost
from shared.ids import AdapterVersion
from shared.queue import Queue
from shared.registry import Adapter, Registry
from worker.engine_thread import EngineThread
from worker.lease import Lease
from worker.retry import until_redis_is_back

if TYPE_CHECKING:  # it imports torch
    from worker.lora.adapter import LoRAAdapter

log = structlog.get_logger()

MIN_STEAL_MS = 250.0
STEAL_PER_LOAD = 1.5
LOAD_MS_SHARE = 0.25
"""Weight of the newest load in the mean load time."""
REFUSED_S = 30.0
MAX_LOADING = 2
"""Adapters read at a time: more would only make each of them later."""


class NoRoom(AdapterRejected):
    """The adapter doesn't fit into the adapter memory beside those in use."""


class Adapters:
    """Which versions are resident in the engine; tells the pool of each change."""

    def __init__(
        self,
        queue: Queue,
        registry: Registry,
        lease: Lease,
        engine: EngineThread,
        *,
        base: AdapterVersion,
        read: Callable[[Adapter], "LoRAAdapter"],
    ) -> None:
        """Start with the base alone; `read` takes a registry's entry, checks all, and blocks."""
        self._queue = queue
        self._registry = registry
        self._lease = lease
        self._engine = engine
        self._read = read
        self._residents = {base}
        self._told: set[AdapterVersion] = set()
        self._loading: set[AdapterVersion] = set()
        self._mean_load_ms = 0.0
        self.num_loads = 0
        self._one_load_each: defaultdict[AdapterVersion, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Whoever holds it may be sure that nothing is evicted meanwhile.
        self._engine_turn = asyncio.Lock()
        self._telling = asyncio.Lock()
        self._refused_until_s: dict[AdapterVersion, float] = {}
        self.crowded_out: set[AdapterVersion] = set()
        """What found no room in the adapter memory since a job last ended."""

    @property
    def held(self) -> list[AdapterVersion]:
        """What the engine holds or will hold soon, the base included."""
        return sorted(self._residents | self._loading)

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
        return max(0, MAX_LOADING - len(self._loading))

    @property
    def steal_ms(self) -> int:
        """How long a job waits for the workers that hold its adapter before others load it."""
        return int(max(MIN_STEAL_MS, STEAL_PER_LOAD * self._mean_load_ms))

    def for_registration(self) -> list[AdapterVersion]:
        """What the engine holds; the pool is told of changes from here on."""
        self._told = set(self._residents)
        return sorted(self._told)

    async def add(self, adapter: "LoRAAdapter") -> None:
        """Put an adapter that was read into the engine, without telling the pool.

        Raises:
            NoRoom: those in use leave no room for it.
        """
        added = self._engine.call(lambda engine: engine.add_adapter(adapter))
        try:
            evicted = await asyncio.wrap_future(added)
        except AdapterRejected as error:
            raise NoRoom(str(error)) from error
        self.num_loads += 1
        self._residents.add(adapter.version)
        self._residents.difference_update(evicted)
        log.info("adapter_loaded", version=adapter.version, evicted=evicted)

    @asynccontextmanager
    async def resident(self, version: AdapterVersion) -> AsyncIterator[None]:
        """Inside, `version` is in the engine, loaded if need be; wait for nothing there.

        Raises:
            AdapterRejected: it can't be loaded; NoRoom if only for now.
        """
        adapter = None
        async with self._one_load_each[version]:
            try:
                while True:
                    async with self._engine_turn:
                        if adapter and version not in self._residents:
                            await self.add(adapter)
                        if version in self._residents:
                            yield
                            break
                    adapter = await self._fetch(version)
            finally:
                self._loading.discard(version)
        await self._tell_pool()

    async def drop(self, versions: Sequence[AdapterVersion]) -> None:
        """Let go of versions that no job will ask for any more; one in use stays for now."""
        async with self._engine_turn:
            removed = self._engine.call(lambda engine: engine.remove_idle_adapters(versions))
            dropped = await asyncio.wrap_future(removed)
            self._residents.difference_update(dropped)
        for version in dropped:
            log.info("adapter_dropped", version=version)
            self._refused_until_s.pop(version, None)
            if not self._one_load_each[version].locked():
                del self._one_load_each[version]
        await self._tell_pool()

    async def let_others_load(self, version: AdapterVersion) -> bool:
        """Take back that this worker loads `version`; whether another one holds it."""
        await self._set_residents([], [version])
        workers = await until_redis_is_back(self._queue.workers)
        return any(version in w.residents for w in workers if w.id != self._lease.wid)

    async def _fetch(self, version: AdapterVersion) -> "LoRAAdapter":
        """Read the version from where the registry says that it is."""
        self._loading.add(version)
        entry = await until_redis_is_back(lambda: self._registry.adapter_by_version(version))
        if entry is None:
            raise AdapterRejected(f"adapter version {version} is no longer registered")
        adapter, load_ms = await asyncio.to_thread(self._read_timed, entry)
        if adapter.version != version:
            raise AdapterRejected(f"{entry.source} holds {adapter.version} by now, not {version}")
        share = LOAD_MS_SHARE if self._mean_load_ms else 1.0
        self._mean_load_ms += (load_ms - self._mean_load_ms) * share
        return adapter

    def _read_timed(self, entry: Adapter) -> tuple["LoRAAdapter", float]:
        started_s = time.monotonic()
        adapter = self._read(entry)
        return adapter, (time.monotonic() - started_s) * 1000

    async def _tell_pool(self) -> None:
        async with self._telling:
            now, told = set(self._residents), self._told
            if now != told:
                self._told = now
                await self._set_residents(sorted(now - told), sorted(told - now))

    async def _set_residents(self, add: list[AdapterVersion], remove: list[AdapterVersion]) -> None:
        wid = self._lease.wid
        try:
            await until_redis_is_back(
                lambda: self._queue.set_residents(wid, add=add, remove=remove)
            )
        except LeaseLost:
            self._lease.lose(wid)
