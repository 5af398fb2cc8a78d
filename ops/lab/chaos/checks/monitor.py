"""Samples the pool during the run."""

import asyncio
import time

import httpx
import orjson

from ops.lab.chaos.cluster.pool import READY_TIMEOUT_S, Api, Pool
from ops.lab.chaos.load.answer import usage_of
from ops.lab.chaos.polling import seen, until
from shared.protocol.ids import JobId
from shared.protocol.jobs import UNFINISHED, JobState

SAMPLE_S = 2.0
NUM_NEWEST = 2000
"""Number of newest jobs of each tenant that a sample reads.

Far fewer jobs start within `SETTLED_S`, so samples miss no job that becomes settled.
"""
SETTLED_S = 30.0
"""Seconds for which a job must exist before it is settled. The pool must not lose settled jobs.

A replaced master keeps running for about ten seconds. The jobs that exist only there are lost, but
their requests weren't accepted."""
DIVERGED = "lorikeet_resume_diverged_total"


class Monitor:
    """Collects data that doesn't survive the run: front ends' metrics, jobs' states and usage."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._diverged: dict[tuple[str, int], float] = {}
        self._earlier: set[str] = set()
        self._first_seen_s: dict[str, float] = {}
        self._settled: set[str] = set()
        self._states: dict[str, str] = {}
        """State of each job when it was last seen."""
        self._usage: dict[str, list[int]] = {}
        """Prompt and completion tokens of each job; empty for a job without recorded usage."""
        self._timelines: dict[str, str] = {}

    @property
    def jobs(self) -> frozenset[str]:
        """Ids of the settled jobs that were created after `run` was called and weren't cancelled.

        A request that isn't acknowledged in time may leave a job, which is cancelled if the client
        doesn't send its request again within the grace period.
        """
        return frozenset(
            job for job in self._settled if self._states.get(job) != JobState.CANCELLED
        )

    @property
    def cancelled(self) -> dict[str, list[int]]:
        """Prompt and completion tokens of all jobs that were cancelled, by job.

        Among them are the jobs of requests that weren't acknowledged. No client knows these.
        """
        return {
            job: self._usage.get(job, [])
            for job in self._settled
            if self._states.get(job) == JobState.CANCELLED
        }

    @property
    def timelines(self) -> dict[str, str]:
        """Timelines of the settled jobs, whether cancelled or not, in the form that records use."""
        return {job: self._timelines.get(job, "") for job in self._settled}

    @property
    def states(self) -> dict[str, str]:
        """States of the settled jobs when they were last seen."""
        return {job: self._states[job] for job in self._settled if job in self._states}

    @property
    def num_diverged(self) -> int:
        """Number of streams that ended because their continuation contradicted earlier tokens."""
        return round(sum(self._diverged.values()))

    async def run(self) -> None:
        """Sample until this task is cancelled."""
        self._earlier = await self._newest_jobs()
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_S)

    async def sample(self) -> None:
        """Read the metrics of all front ends, and the ids and states of the newest jobs."""
        await asyncio.gather(*map(self._read_metrics, self._pool.apis))
        await seen(self._read_jobs, None)

    async def finish(self) -> None:
        """Sample once more, after the last fault. All jobs in this sample are settled.

        Raises:
            NotInTime: the pool didn't answer.
        """
        await until(self._read_last_jobs, "Redis answers", within_s=READY_TIMEOUT_S * 10)

    async def _read_last_jobs(self) -> bool:
        newest = await self._newest_jobs()
        await self._read_states(newest)
        self._settled |= newest
        return True

    async def _read_metrics(self, api: Api) -> None:
        try:
            async with httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http:
                text = (await http.get(f"{api.url}/metrics")).text
        except httpx.HTTPError:
            return
        for line in text.splitlines():
            if line.startswith(f"{DIVERGED} "):
                self._diverged[api.name, api.pid] = float(line.split()[1])

    async def _read_jobs(self) -> None:
        now_s = time.monotonic()
        newest = await self._newest_jobs()
        await self._read_states(newest)
        self._first_seen_s = {job: self._first_seen_s.get(job, now_s) for job in newest}
        self._settled |= {
            job for job, seen_s in self._first_seen_s.items() if now_s - seen_s >= SETTLED_S
        }

    async def _read_states(self, jobs: set[str]) -> None:
        open_jobs = [job for job in jobs if self._states.get(job, JobState.QUEUED) in UNFINISHED]
        pipe = self._pool.redis.pipeline(transaction=False)
        for job in open_jobs:
            pipe.hmget(self._pool.keys.job(JobId(job)), ["state", "usage", "timeline"])
        replies = await pipe.execute()
        for job, (state, usage, timeline) in zip(open_jobs, replies, strict=True):
            if state is not None:
                self._timelines[job] = (timeline or b"").decode()
                self._states[job] = state.decode()
                self._usage[job] = usage_of({"usage": orjson.loads(usage or b"null")})

    async def _newest_jobs(self) -> set[str]:
        redis, pattern = self._pool.redis, self._pool.keys.jobs("*")
        newest: set[str] = set()
        async for key in redis.scan_iter(match=pattern, count=1000):
            newest |= {raw.decode() for raw in await redis.zrevrange(key, 0, NUM_NEWEST - 1)}
        return newest - self._earlier
