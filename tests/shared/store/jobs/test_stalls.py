"""Stalls of Redis and jumps of its clock don't count as deaths of workers."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_clock import FakeClock
from queue_support import INFO, LIMITS, Actor, eventually, make_job

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import LeaseLost
from shared.protocol.jobs import Job, JobState
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

LEASE_MS = 600
HOUR_S = 3600


async def is_suspect(redis: Redis, keys: Keys, job: Job) -> bool:
    return await redis.hget(keys.job(job.id), "suspect") is not None


async def test_a_missing_worker_that_beats_again_stays(actor, queue: Queue) -> None:
    worker = await actor()
    await queue.beat(worker.id, lease_ms=0, info=INFO)
    await queue.reap()
    await queue.beat(worker.id, lease_ms=60_000, info=INFO)
    assert [(await queue.reap()).workers for _ in range(3)] == [0, 0, 0]
    assert await worker.claim() == []


async def test_a_worker_is_missing_for_a_sixth_of_its_lease_before_it_is_given_up(
    actor, queue: Queue, redis: Redis, keys: Keys
) -> None:
    worker = await actor(lease_ms=LEASE_MS)
    await redis.zadd(keys.workers, {worker.id: 1})
    assert [(await queue.reap()).workers for _ in range(2)] == [0, 0]

    async def is_given_up() -> bool:
        return (await queue.reap()).workers == 1

    await eventually(is_given_up)


@pytest.mark.parametrize("is_gap", [False, True])
async def test_a_sweep_after_a_gap_of_half_a_lease_extends_every_lease(
    actor, queue: Queue, redis: Redis, keys: Keys, is_gap: bool
) -> None:
    workers = [await actor(f"w{i}", lease_ms=6000) for i in range(3)]
    await queue.reap()
    await redis.zadd(keys.workers, {worker.id: 1 for worker in workers})
    await redis.zadd(keys.missing, {worker.id: 1 for worker in workers})
    if is_gap:
        await redis.hincrby(keys.counters, "swept", -3100)
    assert (await queue.reap()).workers == (0 if is_gap else 3)


async def test_a_suspended_redis_takes_no_jobs_from_workers(
    own_server: EmbeddedRedis, open_client, keys: Keys
) -> None:
    """When Redis continues, the waiting sweeps run before the waiting heartbeats."""
    redis = open_client(own_server.url)
    queue = Queue(redis, keys)
    workers = [Actor(queue, redis, keys, f"w{i}", ["a@1"]) for i in range(6)]
    jobs = [make_job() for _ in workers]
    for worker, job in zip(workers, jobs, strict=True):
        await worker.register(lease_ms=LEASE_MS)
        await queue.enqueue(job, LIMITS)
        await worker.claim(sequences=1)
    sweepers = [Queue(open_client(own_server.url), keys) for _ in workers]
    for sweeper in sweepers:
        await sweeper.reap()
    os.kill(own_server.pid, signal.SIGSTOP)
    sweeps = [asyncio.create_task(sweeper.reap()) for sweeper in sweepers]
    await asyncio.sleep(2 * LEASE_MS / 1000)
    os.kill(own_server.pid, signal.SIGCONT)
    assert sum(reaped.workers for reaped in await asyncio.gather(*sweeps)) == 0
    for worker in workers:
        assert (await queue.beat(worker.id, lease_ms=LEASE_MS, info=INFO)).booked == 1
    assert not any([await is_suspect(redis, keys, job) for job in jobs])


async def test_one_of_many_concurrent_sweeps_does_the_work(
    actor, queue: Queue, redis, keys
) -> None:
    await queue.reap(every_ms=60_000)
    worker = await actor()
    await queue.beat(worker.id, lease_ms=0, info=INFO)
    for _ in range(3):
        await Queue(redis, keys).reap(every_ms=60_000)
    assert await redis.zscore(keys.missing, worker.id) is None


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[FakeClock]:
    with FakeClock.build(tmp_path) as clock:
        yield clock


@pytest.mark.slow
async def test_a_clock_that_jumps_an_hour_and_back_makes_no_suspects_and_ends_no_job(
    clock: FakeClock, open_client, keys: Keys
) -> None:
    redis = open_client(clock.start_redis())
    queue = Queue(redis, keys)
    views = PoolViews(redis, keys)
    workers = [
        await Actor(queue, redis, keys, f"w{i}", ["a@1"]).register(lease_ms=LEASE_MS)
        for i in range(3)
    ]
    jobs = [make_job(deadline_ms=60_000) for _ in range(9)]
    for job in jobs:
        await queue.enqueue(job, LIMITS)
    claimed = [c for worker in workers for c in await worker.claim(sequences=2)]

    async def sweep_and_beat(times: int) -> int:
        lost = 0
        for _ in range(times):
            lost += (await queue.reap()).workers
            for worker in workers:
                await queue.beat(worker.id, lease_ms=LEASE_MS, info=INFO)
            await asyncio.sleep(LEASE_MS / 1000 / 4)
        return lost

    for offset_s in (0, HOUR_S, 0, -HOUR_S, 0):
        clock.set(offset_s)

        async def has_jumped(offset_s: int = offset_s) -> bool:
            return abs((await redis.time())[0] - time.time() - offset_s) < 60

        await eventually(has_jumped)  # the server reads the offset again after some milliseconds
        assert await sweep_and_beat(6) == 0
    assert not any([await is_suspect(redis, keys, job) for job in jobs])
    states = [(await views.job(job.id)).state for job in jobs]
    assert states == [JobState.RUNNING] * len(claimed) + [JobState.QUEUED] * 3
    clock.set(-HOUR_S)

    async def all_given_up() -> bool:
        await queue.reap()
        return not await redis.zcard(keys.workers)

    await eventually(all_given_up)  # a dead worker is detected although its lease ends in an hour
    assert (await views.counts()).retried == len(claimed)


async def test_a_worker_that_proves_alive_during_its_handover_is_not_charged(
    actor, enqueue, queue: Queue, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    worker, job = await actor(), await enqueue()
    await worker.claim()
    await redis.zrem(keys.workers, worker.id)
    await redis.zadd(keys.lost, {worker.id: 1})  # given up, but its jobs aren't handed over yet
    with pytest.raises(LeaseLost):
        await worker.claim()
    await queue.reap()
    assert (await views.job(job.id)).state == JobState.QUEUED
    assert not await is_suspect(redis, keys, job)
    assert await redis.zcard(keys.lost) == 0


async def test_a_worker_that_registers_again_under_its_id_keeps_its_jobs(
    actor, enqueue, queue: Queue, views: PoolViews, redis: Redis, keys: Keys
) -> None:
    """The reply to its first call was lost, and a sweep gave it up before the second call."""
    await redis.zadd(keys.lost, {"w1": 0})
    worker, job = await actor("w1"), await enqueue()
    await worker.claim()
    for _ in range(3):
        await queue.reap()
    assert (await views.job(job.id)).state == JobState.RUNNING
    assert await redis.zcard(keys.lost) == 0
