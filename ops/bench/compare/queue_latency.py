"""Measures the queue without an engine: claim latency of a parked worker, and jobs per second.

A parked worker waits for its next job in a blocking Redis call. No other client may use the Redis
server. Redis and its clients run on the same machine, as in `lorikeet up`.
"""

import asyncio
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from ops.bench.load.percentiles import percentile
from ops.bench.synthetic_pool import (
    API,
    LEASE_MS,
    LIMITS,
    first_token,
    new_pool,
    own_pool,
    synthetic_job,
)
from shared.protocol.events import End
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.protocol.workers import WorkerInfo
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis

VERSION = AdapterVersion("bench@0123456789ab")
WORKER = WorkerId("bench:1:0")
LATENCY_JOBS = 500
PASS_JOBS = 5000
ENQUEUERS = 64
PROMPT_WORDS = 128
SEQUENCES = 32
"""Maximum number of jobs that the worker takes with one claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """Latency and cost of the queue on this machine."""

    claim_p50_ms: float
    """Median time from calling `enqueue` until a parked worker in another process has the job."""
    claim_p99_ms: float
    jobs_per_s: float
    """Throughput when one process enqueues, claims, publishes and finishes all jobs."""
    redis_us_per_job: float
    """CPU time of the Redis server in microseconds per job, from enqueue to finish."""


async def measure_queue(
    url: str, *, latency_jobs: int = LATENCY_JOBS, pass_jobs: int = PASS_JOBS
) -> QueueReport:
    """Measure the queue's latency and throughput in temporary pools on the Redis at `url`."""
    delays = await _claim_delays_ms(url, latency_jobs)
    jobs_per_s, us_per_job = await _measure_rate(url, pass_jobs)
    return QueueReport(
        claim_p50_ms=statistics.median(delays),
        claim_p99_ms=percentile(delays, 99),
        jobs_per_s=jobs_per_s,
        redis_us_per_job=us_per_job,
    )


async def _claim_delays_ms(url: str, num_jobs: int) -> list[float]:
    pool = new_pool()
    async with own_pool(url, pool) as (queue, _), _parked_worker(url, pool) as worker:
        delays = []
        for _ in range(num_jobs):
            await _next_line(worker, "parked")
            start = time.monotonic_ns()
            await queue.enqueue(synthetic_job(VERSION, PROMPT_WORDS), LIMITS)
            # All processes share CLOCK_MONOTONIC.
            claimed = int((await _next_line(worker, "claimed")).split()[1])
            delays.append((claimed - start) / 1e6)
        return delays


@asynccontextmanager
async def _parked_worker(url: str, pool: str) -> AsyncIterator[Process]:
    command = (sys.executable, "-m", "ops.bench.compare.queue_latency", url, pool)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def _next_line(worker: Process, start: str) -> str:
    """Wait for the worker's next line that begins with `start`, and return it.

    Skips other lines. While the caller waits for `claimed`, for example, a worker that is still
    parked prints `parked` once per second.
    """
    assert worker.stdout is not None
    async for line in worker.stdout:
        if line.startswith(start.encode()):
            return line.decode()
    raise RuntimeError("the worker of the queue measurement ended early; its traceback is above")


async def _run_worker(url: str, pool: str) -> None:
    """Claim and finish jobs until the process ends.

    Prints a line for each claimed job, and a line each time the worker parks.
    """
    async with own_pool(url, pool) as (queue, _):
        await _register(queue)
        while True:
            jobs = await _claim(queue)
            now = time.monotonic_ns()
            for job in jobs:
                print("claimed", now, flush=True)
                await _finish(queue, job)
            if not jobs:
                print("parked", flush=True)
                await queue.wait(WORKER, timeout_s=1)


async def _measure_rate(url: str, num_jobs: int) -> tuple[float, float]:
    """Return two values: jobs per second, and CPU time of Redis in microseconds per job."""
    async with own_pool(url, new_pool()) as (queue, redis):
        await _register(queue)
        cpu, start = await _redis_cpu_s(redis), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(ENQUEUERS):
                tasks.create_task(_enqueue_many(queue, num_jobs // ENQUEUERS))
            tasks.create_task(_process_jobs(queue, num_jobs // ENQUEUERS * ENQUEUERS))
        seconds = time.perf_counter() - start
        cpu = await _redis_cpu_s(redis) - cpu
    done = num_jobs // ENQUEUERS * ENQUEUERS
    return done / seconds, 1e6 * cpu / done


async def _enqueue_many(queue: Queue, num_jobs: int) -> None:
    for _ in range(num_jobs):
        await queue.enqueue(synthetic_job(VERSION, PROMPT_WORDS), LIMITS)


async def _process_jobs(queue: Queue, num_jobs: int) -> None:
    """Claim and finish `num_jobs` jobs as a worker does, and publish one token of each job."""
    while num_jobs:
        jobs = await _claim(queue)
        if not jobs:
            await queue.wait(WORKER, timeout_s=1)
            continue
        await queue.publish(WORKER, {API: [first_token(job) for job in jobs]})
        await asyncio.gather(*(_finish(queue, job) for job in jobs))
        num_jobs -= len(jobs)


async def _register(queue: Queue) -> None:
    info = WorkerInfo(
        model="bench",
        device="cpu",
        dtype="none",
        version="0",
        max_num_seqs=SEQUENCES,
        kv_tokens=10**6,
    )
    await queue.register(WORKER, lease_ms=LEASE_MS, info=info, residents=[VERSION])


async def _claim(queue: Queue) -> tuple[ClaimedJob, ...]:
    claim = await queue.claim(
        WORKER, sequences=SEQUENCES, tokens=10**6, steal_ms=1000, max_cold=0, residents=[VERSION]
    )
    return claim.jobs


async def _finish(queue: Queue, claimed: ClaimedJob) -> None:
    job, usage = claimed.job.id, Usage(prompt_tokens=128, completion_tokens=1)
    choice = Choice(text=" word", finish=FinishReason.LENGTH, ids=(1,))
    await queue.finish(
        WORKER,
        End(job=job, try_=claimed.try_, state=JobState.DONE, usage=usage),
        Result(job=job, state=JobState.DONE, choices=(choice,), usage=usage),
    )


async def _redis_cpu_s(redis: Redis) -> float:
    info = await redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main(
    url: Annotated[str, typer.Argument(help="URL of Redis.")],
    pool: Annotated[str, typer.Argument(help="Name of the pool to serve.")],
) -> None:
    """Run the parked worker of the latency measurement until SIGTERM."""
    asyncio.run(_run_worker(url, pool))


if __name__ == "__main__":
    typer.run(main)
