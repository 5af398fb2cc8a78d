"""The queue without an engine: how late a parked worker gets a job, and how many jobs pass.

Needs a Redis that nobody else uses. Clients and server share the machine, as in `lorikeet up`.
"""

import asyncio
import statistics
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from ops.bench.load.percentiles import percentile
from shared.protocol.events import End, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Endpoint, Job, JobState, SamplingParams
from shared.protocol.limits import Limits
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.protocol.workers import WorkerInfo
from shared.store.connection import Redis, connect
from shared.store.keys import Keys
from shared.store.queue import Queue

VERSION = AdapterVersion("bench@0123456789ab")
WORKER = WorkerId("bench:1:0")
API = ApiId("bench")
LEASE_MS = 600_000  # nobody beats here
LIMITS = Limits(max_waiting=10**6, max_waiting_adapter=10**6, max_waiting_tenant=10**6, retain_ms=1)
LATENCY_JOBS = 500
PASS_JOBS = 5000
ENQUEUERS = 64
SEQUENCES = 32
"""What the worker has room for: jobs that it takes with one claim, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """What the queue costs on this machine."""

    claim_p50_ms: float
    """From before `enqueue` to after `claim`, by a worker parked in another process."""
    claim_p99_ms: float
    jobs_per_s: float
    """Through enqueue, claim, publish and finish, with one client process for all four."""
    redis_us_per_job: float
    """CPU time of the server for these calls."""


async def measure_queue(
    url: str, *, latency_jobs: int = LATENCY_JOBS, pass_jobs: int = PASS_JOBS
) -> QueueReport:
    """Measure the queue in pools of its own in the Redis at `url`."""
    delays = await _claim_delays_ms(url, latency_jobs)
    jobs_per_s, us_per_job = await _pass_jobs(url, pass_jobs)
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
            await _line(worker, "parked")
            start = time.monotonic_ns()
            await queue.enqueue(_job(), LIMITS)
            # CLOCK_MONOTONIC is one clock for all processes.
            claimed = int((await _line(worker, "claimed")).split()[1])
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


async def _line(worker: Process, start: str) -> str:
    """The worker's next line that starts so; a worker that waits long says `parked` repeatedly."""
    assert worker.stdout is not None
    async for line in worker.stdout:
        if line.startswith(start.encode()):
            return line.decode()
    raise RuntimeError("the queue bench's worker has ended")


async def _run_worker(url: str, pool: str) -> None:
    """Claim and finish for ever, and tell standard output about it."""
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


async def _pass_jobs(url: str, num_jobs: int) -> tuple[float, float]:
    """Jobs per second and Redis' CPU microseconds per job."""
    async with own_pool(url, new_pool()) as (queue, redis):
        await _register(queue)
        cpu, start = await _redis_cpu_s(redis), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(ENQUEUERS):
                tasks.create_task(_enqueue_many(queue, num_jobs // ENQUEUERS))
            tasks.create_task(_work(queue, num_jobs // ENQUEUERS * ENQUEUERS))
        seconds = time.perf_counter() - start
        cpu = await _redis_cpu_s(redis) - cpu
    done = num_jobs // ENQUEUERS * ENQUEUERS
    return done / seconds, 1e6 * cpu / done


async def _enqueue_many(queue: Queue, num_jobs: int) -> None:
    for _ in range(num_jobs):
        await queue.enqueue(_job(), LIMITS)


async def _work(queue: Queue, num_jobs: int) -> None:
    """Claim, publish one token of each job with one call, finish; as a worker does it."""
    while num_jobs:
        jobs = await _claim(queue)
        if not jobs:
            await queue.wait(WORKER, timeout_s=1)
            continue
        await queue.publish(WORKER, {API: [_token(job) for job in jobs]})
        await asyncio.gather(*(_finish(queue, job) for job in jobs))
        num_jobs -= len(jobs)


@asynccontextmanager
async def own_pool(url: str, pool: str) -> AsyncIterator[tuple[Queue, Redis]]:
    """The queue of a pool that is gone after the block."""
    redis, keys = connect(url, max_connections=2 * ENQUEUERS), Keys(pool)
    try:
        yield Queue(redis, keys), redis
    finally:
        async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
            await redis.delete(key)
        await redis.aclose()


async def _register(queue: Queue) -> None:
    info = WorkerInfo(
        model="bench", device="cpu", dtype="none", version="0", max_num_seqs=SEQUENCES
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


def _job() -> Job:
    return Job(
        id=JobId(uuid.uuid4().hex),
        endpoint=Endpoint.COMPLETIONS,
        model="bench",
        version=VERSION,
        sampling=SamplingParams(seed=0, max_tokens=1),
        created_s=int(time.time()),
        deadline_ms=LEASE_MS,
        cost=129,
        reply_to=API,
        prompts=("word " * 128,),
    )


def _token(claimed: ClaimedJob) -> Tokens:
    return Tokens(job=claimed.job.id, try_=claimed.try_, choice=0, index=0, ids=(1,), text=" word")


def new_pool() -> str:
    """A name that no other pool has."""
    return f"bench-{uuid.uuid4().hex[:12]}"


async def _redis_cpu_s(redis: Redis) -> float:
    info = await redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main(
    url: Annotated[str, typer.Argument(help="Redis")],
    pool: Annotated[str, typer.Argument(help="the pool to work for")],
) -> None:
    """Be the parked worker of the latency measurement; it ends by SIGTERM."""
    asyncio.run(_run_worker(url, pool))


if __name__ == "__main__":
    typer.run(main)
