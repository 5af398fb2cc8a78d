"""Many registered workers without engines, whose state changes every second."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from api_support import BASE
from queue_support import INFO, make_adapter

from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

LEASE_MS = 60_000


class Crowd:
    """Workers of a pool with a base model and adapters."""

    def __init__(self, redis: Redis, keys: Keys, *, num_workers: int, num_adapters: int) -> None:
        self._registry = Registry(redis, keys)
        self._residency = ResidencyStore(redis, keys)
        self._queue = Queue(redis, keys, residency=self._residency)
        self._random = Random(7)
        self._held: dict[WorkerId, list[AdapterVersion]] = {
            WorkerId(f"host-{index}:{index}:{index:04x}{'0' * 28}"): []
            for index in range(num_workers)
        }
        self.adapters = [
            make_adapter(f"adapter-{index:03}@{index:012x}") for index in range(num_adapters)
        ]

    async def register(self) -> None:
        await self._registry.set_base(BASE)
        for adapter in self.adapters:
            await self._registry.add_adapter(adapter)
        for wid in self._held:
            await self._queue.register(wid, lease_ms=LEASE_MS, info=INFO, residents=[])

    async def change_for_ever(self) -> None:
        """Change what each worker holds, keeps and runs, about once a second."""
        while True:
            for wid in self._held:
                await self._change(wid)
            await asyncio.sleep(0.5)

    async def _change(self, wid: WorkerId) -> None:
        versions = [adapter.version for adapter in self.adapters]
        held = self._random.sample(versions, len(versions) // 3)
        before, self._held[wid] = self._held[wid], held
        await self._residency.set_residents(
            wid,
            add=[version for version in held if version not in before],
            remove=[version for version in before if version not in held],
        )
        await self._queue.beat(wid, lease_ms=LEASE_MS, info=self._info(held, versions))

    def _info(
        self, held: Sequence[AdapterVersion], versions: Sequence[AdapterVersion]
    ) -> WorkerInfo:
        running = {version: self._random.randint(1, 4) for version in held[:10]}
        host = sorted(self._random.sample(versions, 20))
        return replace(INFO, running_by_version=running, host_adapters=tuple(host))
