"""Samples the pool during the run."""

import asyncio

import httpx

from ops.chaos.cluster.pool import READY_TIMEOUT_S, Pool
from shared.errors import RedisUnavailable

SAMPLE_S = 2.0
NUM_NEWEST = 2000
"""Number of jobs per tenant that a sample reads: many more than start between two samples."""
DIVERGED = "lorikeet_resume_diverged_total"


class Monitor:
    """Collects what isn't visible at the end: values of processes and of jobs that are gone."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._diverged: dict[tuple[str, int], float] = {}
        self._earlier: set[str] = set()
        self._newest: set[str] = set()
        self.jobs: set[str] = set()
        """Ids of all jobs that the pool has had since `run` was called."""

    @property
    def num_diverged(self) -> int:
        """Number of answers that a worker continued with other tokens than those already sent."""
        return round(sum(self._diverged.values()))

    async def run(self) -> None:
        """Sample until this task is cancelled."""
        self._earlier = await self._newest_jobs()
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_S)

    async def sample(self) -> None:
        """Read the metrics of all front ends, and the ids of all jobs."""
        await asyncio.gather(
            *(self._read_metrics(number) for number in range(len(self._pool.apis)))
        )
        try:
            await self._read_jobs()
        except RedisUnavailable:
            return

    async def _read_metrics(self, number: int) -> None:
        api = self._pool.apis[number]
        try:
            async with httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http:
                text = (await http.get(f"{api.url}/metrics")).text
        except httpx.HTTPError:
            return
        for line in text.splitlines():
            if line.startswith(f"{DIVERGED} "):
                self._diverged[api.name, api.pid] = float(line.split()[1])

    async def _read_jobs(self) -> None:
        newest = await self._newest_jobs()
        # A job that only one sample sees may be of a master that was replaced meanwhile, and be
        # lost with it before its request was accepted.
        self.jobs |= (newest & self._newest) - self._earlier
        self._newest = newest

    async def _newest_jobs(self) -> set[str]:
        redis, pattern = self._pool.redis, self._pool.keys.jobs("*")
        newest: set[str] = set()
        async for key in redis.scan_iter(match=pattern, count=1000):
            newest |= {raw.decode() for raw in await redis.zrevrange(key, 0, NUM_NEWEST - 1)}
        return newest
