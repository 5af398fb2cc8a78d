"""Drives the queue's scripts as fast as one process can, and reports what they cost Redis.

`python -m ops.bench.scale.one_redis.drive JOBS TOKENS BATCH` prints an `OneRedis` as JSON. There
are no engines and no HTTP: the process enqueues jobs, claims them, publishes their tokens, finishes
them, and reads the reply streams. It starts a Redis of its own.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

import orjson
import typer

from ops.bench.load.prompts import prompt
from ops.bench.scale.key_bytes import bytes_by_kind, growth_per_job
from ops.bench.scale.one_redis.driven_worker import PROMPT_WORDS, VERSIONS, DrivenWorker
from ops.bench.synthetic_pool import LIMITS, new_pool, own_pool, synthetic_job
from ops.local.embedded_redis import start_redis
from shared.protocol.ids import ApiId, JobId
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import ReplyReader
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

APIS = [ApiId(f"api-{number}") for number in range(16)]
NUM_WORKERS = 4
SENT = "sent"
"""Kind of the only keys that grow with the jobs and belong to workers."""
SETTLE_S = 1.5
"""Time in which the readers delete what they have read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRedis:
    """Rates, and costs of Redis. Times are CPU times of the Redis process."""

    jobs: int
    tokens: int
    """Number of tokens of all jobs together."""
    tokens_per_job: int
    """Mean length of the jobs. Their lengths differ, so that they don't end at the same time."""
    batch: int
    """Number of jobs of a worker, which publishes one token of each in one call."""
    seconds: float
    redis_cpu_s: float
    bytes_per_running_job: dict[str, float]
    """Bytes in Redis by kind of key, after the last token and before the end of each job."""
    bytes_per_ended_job: dict[str, float]
    """Bytes in Redis by kind of key, while the answer is kept."""
    bytes_per_worker: float
    """Bytes of a worker's list of publications, whose length is limited."""


async def measure_one_redis(url: str, jobs: int, tokens_per_job: int, batch: int) -> OneRedis:
    """Measure rates and bytes in temporary pools. No other client may use the Redis at `url`.

    The rates are measured until at least `jobs` jobs have ended. The batches are full all the time.
    """
    async with _pool(url, tokens_per_job, batch) as pool:
        await pool.fill()
        cpu_s, start_s = await _redis_cpu_s(pool.redis), time.perf_counter()
        progress = _Progress()
        await asyncio.gather(*(_serve(worker, pool, progress, jobs) for worker in pool.workers))
        seconds = time.perf_counter() - start_s
        cpu_s = await _redis_cpu_s(pool.redis) - cpu_s
    running, ended = await _measure_bytes(url, tokens_per_job, batch)
    sent = running.pop(SENT, 0.0)
    ended.pop(SENT, None)
    return OneRedis(
        jobs=progress.jobs,
        tokens=progress.tokens,
        tokens_per_job=tokens_per_job,
        batch=batch,
        seconds=seconds,
        redis_cpu_s=cpu_s,
        bytes_per_running_job=running,
        bytes_per_ended_job=ended,
        bytes_per_worker=sent * batch,
    )


@dataclass(slots=True)
class _Progress:
    """Jobs that have ended, and tokens that were published."""

    jobs: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Pool:
    """A pool with workers, in which the front ends read their reply streams."""

    queue: Queue
    redis: Redis
    keys: Keys
    workers: list[DrivenWorker]
    batch: int
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def fill(self) -> None:
        """Fill the batches of all workers, and leave as many jobs in the queue."""
        await self.enqueue(2 * self.batch * NUM_WORKERS)
        for worker in self.workers:
            await worker.claim()

    async def enqueue(self, num_jobs: int) -> None:
        """Enqueue new jobs. Their versions and front ends take turns."""
        await asyncio.gather(*(self._enqueue(next(self.numbers)) for _ in range(num_jobs)))

    async def _enqueue(self, number: int) -> None:
        job = synthetic_job(
            VERSIONS[number % len(VERSIONS)],
            PROMPT_WORDS,
            id=JobId(f"{number:032x}"),
            prompts=(prompt("one-redis", number, PROMPT_WORDS),),
            reply_to=APIS[number % len(APIS)],
        )
        await self.queue.enqueue(job, LIMITS)


async def _serve(worker: DrivenWorker, pool: _Pool, progress: _Progress, num_jobs: int) -> None:
    """Serve jobs until `num_jobs` jobs of all workers have ended. Replace each job that ends."""
    while progress.jobs < num_jobs:
        num_tokens = await worker.step()
        progress.tokens += num_tokens  # a sum with an await would lose the tokens of other workers
        if ended := await worker.finish():
            progress.jobs += ended
            await pool.enqueue(ended)
            await worker.claim()


async def _measure_bytes(
    url: str, tokens_per_job: int, batch: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the bytes by kind of key of each running job, and of each ended job."""
    async with _pool(url, tokens_per_job, batch) as pool:
        num_jobs = batch * NUM_WORKERS
        empty = await bytes_by_kind(pool.redis, pool.keys)
        await pool.enqueue(num_jobs)
        for worker in pool.workers:
            await worker.claim()
            while await worker.step():
                pass
        await asyncio.sleep(SETTLE_S)
        running = await bytes_by_kind(pool.redis, pool.keys)
        num_ended = sum([await worker.finish() for worker in pool.workers])
        await asyncio.sleep(SETTLE_S)
        ended = await bytes_by_kind(pool.redis, pool.keys)
    assert num_ended == num_jobs
    return growth_per_job(empty, running, num_jobs), growth_per_job(empty, ended, num_jobs)


@asynccontextmanager
async def _pool(url: str, tokens_per_job: int, batch: int) -> AsyncIterator[_Pool]:
    name = new_pool()
    keys = Keys(name)
    async with own_pool(url, name) as (queue, redis):
        workers = [DrivenWorker(queue, n, tokens_per_job, batch) for n in range(NUM_WORKERS)]
        for worker in workers:
            await worker.join()
        readers = [asyncio.create_task(_read(ReplyReader(redis, keys, api))) for api in APIS]
        try:
            yield _Pool(queue, redis, keys, workers, batch)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _read(reader: ReplyReader) -> None:
    while True:
        await reader.read()


async def _redis_cpu_s(redis: Redis) -> float:
    info = await redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main(jobs: int, tokens: int, batch: int) -> None:
    """Measure, and print the figures as a line of JSON."""
    redis = start_redis(None)
    try:
        found = asyncio.run(measure_one_redis(redis.url, jobs, tokens, batch))
    finally:
        redis.stop()
    sys.stdout.write(orjson.dumps(asdict(found)).decode() + "\n")


if __name__ == "__main__":
    typer.run(main)
