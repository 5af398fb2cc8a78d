"""What the pool knows this worker to hold: jobs of these versions are its own before others'."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog

from shared.errors import LeaseLost
from shared.protocol.ids import AdapterVersion
from shared.store.queue import Queue
from worker.adapters.replica_policy import Spread
from worker.lease import Lease
from worker.redis_retry import until_redis_is_back

log = structlog.get_logger()


class Holding:
    """Tells the pool of each change of what is resident, but for copies that were given up."""

    def __init__(self, queue: Queue, lease: Lease, residents: set[AdapterVersion]) -> None:
        """`residents` is what the engine holds, and changes as that does."""
        self.spread = Spread()
        self._queue = queue
        self._lease = lease
        self._residents = residents
        self._told: set[AdapterVersion] = set()
        self._telling = asyncio.Lock()

    @property
    def versions(self) -> set[AdapterVersion]:
        """What is resident and wasn't given up."""
        return self._residents - self.spread.surplus

    def for_registration(self) -> list[AdapterVersion]:
        """What the pool is to know of; it is told of changes from here on."""
        self._told = self.versions
        return sorted(self._told)

    async def tell(self) -> None:
        """Tell the pool what has changed."""
        async with self._telling:
            now, told = self.versions, self._told
            if now != told:
                self._told = now
                shared = await self._change(sorted(now - told), sorted(told - now))
                self.spread.came(now.intersection(shared))

    async def renounce(self, version: AdapterVersion) -> None:
        """Take back that this worker loads `version`."""
        await self._change([], [version])

    async def is_elsewhere(self, version: AdapterVersion) -> bool:
        """Whether another worker holds `version`."""
        workers = await until_redis_is_back(self._queue.workers)
        return any(version in w.residents for w in workers if w.id != self._lease.wid)

    async def shrink(self, running: Mapping[AdapterVersion, int], steal_ms: int) -> None:
        """Give up copies that others can do without for long; `running` jobs there are of each."""
        spread, wid = self.spread, self._lease.wid
        if not spread.copies:
            return
        async with self._telling:
            now_ms = time.monotonic() * 1000
            copies = {version: running.get(version, 0) for version in spread.copies}
            due = spread.due(now_ms, steal_ms)
            try:
                standing = await self._queue.shrink(wid, copies, due=due, steal_ms=steal_ms)
            except LeaseLost:
                self._lease.lose(wid)
                return
            if wid != self._lease.wid:  # the next id is registered with all of them
                return
            given_up = spread.note(standing, now_ms)
            self._told -= given_up
        if given_up:
            log.info("adapter_copies_given_up", versions=sorted(given_up))

    async def _change(
        self, add: Sequence[AdapterVersion], remove: Sequence[AdapterVersion]
    ) -> list[AdapterVersion]:
        """Returns which of `add` others hold as well."""
        wid = self._lease.wid
        try:
            return await until_redis_is_back(
                lambda: self._queue.set_residents(wid, add=add, remove=remove)
            )
        except LeaseLost:
            self._lease.lose(wid)
            return []
